"""A channel layer's way to the layers of other processes, by a backbone: each hears the groups that it has members of.

Messages go out as MessagePack. What is sent comes back to its own process as to any other, so that all have one order.
Each process hears its own channels under one name, and a group for as long as one of its channels is in it.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable
from secrets import token_hex
from threading import Lock
from typing import Any

import msgspec

from fanwire._engine import Answer
from fanwire.backbone import backbone_of
from fanwire.exchange import DOWN, UP, Exchange, Receiving
from fanwire.stand_in import require_engine

OWNER = re.compile(r"[^!]*\.([0-9a-f]{12})x[0-9a-f]{16}!")
"""A channel that a process made: of which."""
GROUP, PROCESS, NAMED = "channels:g:", "channels:p:", "channels:n:"

log = logging.getLogger("fanwire.channels")
Came = Callable[[str | None, str | None, dict[str, Any]], None]


class Crossing:
    """That of one layer. It begins when it is first used, in a fork anew. Any thread, any event loop.

    Args:
        url, prefix: of the backbone.
        came: is told what comes, in a thread of its own: for a group, or for a channel.
        changed: is told there that the backbone is lost, or back.

    Raises:
        TypeError, ValueError: the URL or the prefix is none.
        EngineMissing: this is the pure-Python wheel.
    """

    def __init__(self, url: str, prefix: str, came: Came, changed: Callable[[bool], None]) -> None:
        require_engine("a layer with a backbone")
        backbone_of(url, prefix)
        self._url, self._prefix = url, prefix
        self._came, self._changed = came, changed
        self._lock = Lock()
        self._process = 0
        self._own: str
        self._exchange: Exchange
        self._reader: Receiving
        # What is heard, or about to be.
        self._answers: dict[str, Answer] = {}

    def _begun(self) -> Exchange:
        """The exchange of this process."""
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._own = token_hex(6)
                    self._exchange = Exchange(self._url, prefix=self._prefix)
                    self._answers = {}
                    self._answers[PROCESS + self._own] = self._exchange.hear(PROCESS + self._own)
                    self._reader = Receiving(self._exchange, self._take)
                    self._process = os.getpid()
        return self._exchange

    async def began(self) -> None:
        """Return once the channels of this process are heard. Raises NotPublished where the backbone is away."""
        exchange = self._begun()
        await exchange.heard(self._answers[PROCESS + self._own])

    def new_name(self) -> str:
        """The last part of a channel's name that says whose it is."""
        self._begun()
        return f"{self._own}x{token_hex(8)}"

    def is_own(self, channel: str) -> bool:
        """Whether this process made it."""
        self._begun()
        return owner_of(channel) == self._own

    async def send(self, channel: str, content: dict[str, Any]) -> None:
        """To the process that made the channel, or to those that receive from one of that name. Raises NotPublished."""
        owner = owner_of(channel)
        if owner is None:
            await self._tell(NAMED + channel, content)
        else:
            await self._tell(PROCESS + owner, [channel, content])

    async def send_to_group(self, group: str, content: dict[str, Any]) -> None:
        """To all processes that have members of it. Raises NotPublished."""
        await self._tell(GROUP + group, content)

    async def _tell(self, name: str, message: Any) -> None:
        await self._begun().atell(name, msgspec.msgpack.encode(message))

    async def receives(self, channel: str) -> None:
        """Somebody receives from a channel: what is sent to it comes from now on. Raises NotPublished."""
        if owner_of(channel) is None:
            await self.heard(self._hear(NAMED + channel))
        else:
            await self.began()

    def hear(self, group: str) -> Answer:
        """The group has a member here."""
        return self._hear(GROUP + group)

    def _hear(self, name: str) -> Answer:
        exchange = self._begun()
        with self._lock:
            answer = self._answers.get(name)
            if answer is None:
                answer = self._answers[name] = exchange.hear(name)
            return answer

    async def heard(self, answer: Answer) -> None:
        """Return once it is. Raises NotPublished."""
        await self._begun().heard(answer)

    def leave(self, group: str) -> None:
        """It has none any more."""
        with self._lock:
            if self._answers.pop(GROUP + group, None) is not None and self._process == os.getpid():
                self._exchange.leave(GROUP + group)

    def leave_all(self, groups: Iterable[str]) -> None:
        """None of these has."""
        for group in groups:
            self.leave(group)

    def close(self) -> None:
        """End it, in this process; what is used again begins anew."""
        with self._lock:
            if self._process != os.getpid():
                return
            self._process = 0
        self._reader.close()
        self._exchange.close()

    def _take(self, name: str, message: bytes) -> None:
        try:
            if not name:
                self._tell_of(message.decode())
            elif name.startswith(GROUP):
                self._came(name.removeprefix(GROUP), None, msgspec.msgpack.decode(message, type=dict[str, Any]))
            elif name.startswith(NAMED):
                self._came(None, name.removeprefix(NAMED), msgspec.msgpack.decode(message, type=dict[str, Any]))
            else:
                channel, content = msgspec.msgpack.decode(message, type=tuple[str, dict[str, Any]])
                self._came(None, channel, content)
        except Exception:
            log.exception("a message of the backbone in %r is left out", name)

    def _tell_of(self, what: str) -> None:
        if what in (DOWN, UP):
            if what == DOWN:
                log.error("the backbone is lost, and what is sent meanwhile")
            else:
                log.info("the backbone is reached")
            self._changed(what == DOWN)
        else:
            log.warning("%s messages of other processes were left out: too many waited", what)


def owner_of(channel: str) -> str | None:
    """The process that made a channel; None for one that none has."""
    found = OWNER.match(channel)
    return None if found is None else found[1]
