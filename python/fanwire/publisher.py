"""``Publisher``: publishing into a backbone from what serves nobody: workers of WSGI, tasks of Celery, scripts.

Hubs that name the same backbone pass on what it publishes as they do what each of them does. None has to run.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

import anyio
from anyio.lowlevel import checkpoint

from fanwire._engine import Answer, BackboneLink, Position, Settings
from fanwire.backbone import backbone_of
from fanwire.calls import check_channel, check_items, check_text, explain, wrong
from fanwire.channel import Channel
from fanwire.errors import NotPublished
from fanwire.logs import hub_log
from fanwire.options import OWN, RULES, encoder_of
from fanwire.presence import check_channels
from fanwire.stand_in import require_engine
from fanwire.to import Target, ToAll, ToClient, ToUser
from fanwire.values import Seconds, checked

UNDER_WAY_MAX = 1_024
"""So many publications of one ``publish_many`` are under way at once."""
TIMEOUT_MAX_S = 3_600.0
IDEMPOTENCY_BYTES_MAX = 255


class Publisher:
    """Publishes into a backbone. Any thread, any event loop, any fork of the process that made it.

    It connects when it first publishes, and a forked child connects anew. What it publishes hubs pass on to their
    clients as any other publication: one order for all, the same positions.

    Args:
        url: that of the hubs' ``backbone``: ``redis://HOST:PORT`` and what else docs/machines.md has.
        prefix: the hubs' ``backbone_prefix``.
        channels: the hubs' ``channels``, which say what is kept of a publication. None: as hubs have told the backbone
            when they began; where none ever did, nothing is kept.
        timeout: seconds that a call waits at most, > 0 and <= 3,600, the connecting included.
        encode, formats, decimal, duration, publication_bytes_max: the hubs' options of these names.

    Raises:
        TypeError, ValueError: one of these is not what it may be; a URL is not shown, as it may hold a password.
        EngineMissing: this is the pure-Python wheel.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "fanwire",
        channels: Mapping[str, Channel] | None = None,
        timeout: float = 10.0,
        encode: Callable[[Any], Any] | None = OWN["encode"],
        formats: Iterable[str] = OWN["formats"],
        decimal: str | None = OWN["decimal"],
        duration: str | None = OWN["duration"],
        publication_bytes_max: int | None = None,
    ) -> None:
        require_engine("a Publisher")
        if url is None:
            wrong("url", "the URL of a Redis or Valkey server, as redis://HOST:PORT", url)
        self._backbone = backbone_of(url, prefix, called=("url", "prefix"))
        self._asks = channels is None
        self._timeout: float = checked("timeout", timeout, Seconds(0.001, TIMEOUT_MAX_S))
        given = {"encode": encode, "formats": formats, "decimal": decimal, "duration": duration}
        self._encoder = encoder_of({name: checked(name, value, RULES[name]) for name, value in given.items()})
        rules = [channel.rule(pattern) for pattern, channel in check_channels(channels).items()]
        bounds = {}
        if publication_bytes_max is not None:
            name = "publication_bytes_max"
            bounds[name] = checked(name, publication_bytes_max, RULES[name])
        self._settings = Settings(channels=rules, **bounds)
        self._lock = threading.Lock()
        self._link: BackboneLink | None = None
        self._is_closed = False
        _publishers.add(self)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "not connected" if self._link is None else "open"
        return f"<fanwire.Publisher {state}>"

    # Publishing

    def publish(
        self,
        channel: str | Target,
        data: str | bytes | object,
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        tags: Mapping[str, str | int | float | bool] | None = None,
        idempotency_key: str | None = None,
    ) -> Position:
        """Publish, and wait until the backbone has given it its place. Any thread, but not that of an event loop.

        Args:
            channel: as for ``Hub.publish``: a channel's name, ``to.user(…)`` or ``to.all(path)``.
            data: as for ``Hub.publish``, and so are `event`, `key`, `ttl`, `keyframe` and `tags`.
            idempotency_key: 1 to 255 bytes: what was published in this channel with the same key within five minutes is
                not published again, and its position is the answer.

        Returns:
            Where it stands.

        Raises:
            NotPublished: it has no place, or nobody knows: ``may_stand`` says which.
            LimitReached: too much waits for the backbone, 64 MiB or 262,144 publications.
            InvalidChannel, PayloadTooBig, UnsupportedType, UnsupportedValue, TypeError, ValueError: as ``Hub.publish``.
        """
        terms = (event, key, ttl, keyframe, idempotency_key, tags)
        call = Sending(self, self._timeout)
        call.settle(call.prepare())
        return call.settle(self._send(call, channel, data, *terms))

    async def apublish(
        self,
        channel: str | Target,
        data: str | bytes | object,
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        tags: Mapping[str, str | int | float | bool] | None = None,
        idempotency_key: str | None = None,
    ) -> Position:
        """``publish`` in any event loop, which goes on meanwhile. Cancelled, it may be published all the same."""
        terms = (event, key, ttl, keyframe, idempotency_key, tags)
        call = Sending(self, self._timeout)
        await call.asettle(call.prepare())
        return await call.asettle(self._send(call, channel, data, *terms))

    def publish_many(
        self,
        channel: str | Target,
        items: Iterable[str | bytes | object],
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        tags: Mapping[str, str | int | float | bool] | None = None,
    ) -> list[Position]:
        """Publish each of `items` as ``publish`` does, without waiting for one before the next: they stand together.

        The timeout is for each.

        Returns:
            Where each stands, in the order of `items`.

        Raises:
            What ``publish`` raises, with a note that says of which item; those before it are published.
            TypeError: `items` is one thing, such as a str, and nothing is published.
        """
        check_items(items)
        call, positions = Sending(self, self._timeout), list[Position]()
        call.settle(call.prepare())
        with noted(positions):
            for one in self._send_each(call, channel, items, (event, key, ttl, keyframe, None, tags)):
                positions.append(call.settle(one))
        return positions

    async def apublish_many(
        self,
        channel: str | Target,
        items: Iterable[str | bytes | object],
        *,
        event: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        keyframe: bool = False,
        tags: Mapping[str, str | int | float | bool] | None = None,
    ) -> list[Position]:
        """``publish_many`` in any event loop."""
        check_items(items)
        call, positions = Sending(self, self._timeout), list[Position]()
        await call.asettle(call.prepare())
        with noted(positions):
            for one in self._send_each(call, channel, items, (event, key, ttl, keyframe, None, tags)):
                positions.append(await call.asettle(one))
        return positions

    def remove(
        self,
        channel: str,
        *,
        key: str,
        data: str | bytes | object = None,
        event: str | None = None,
        tags: Mapping[str, str | int | float | bool] | None = None,
    ) -> Position:
        """End a key of a channel of policy ``latest``, as ``Hub.remove``. Raises what ``publish`` raises."""
        call = Sending(self, self._timeout)
        call.settle(call.prepare())
        return call.settle(self._remove(call, channel, key, data, event, tags))

    async def aremove(
        self,
        channel: str,
        *,
        key: str,
        data: str | bytes | object = None,
        event: str | None = None,
        tags: Mapping[str, str | int | float | bool] | None = None,
    ) -> Position:
        """``remove`` in any event loop."""
        call = Sending(self, self._timeout)
        await call.asettle(call.prepare())
        return await call.asettle(self._remove(call, channel, key, data, event, tags))

    # Its end

    def close(self) -> None:
        """End the connection. What other threads publish just then may stand or not. Idempotent; nothing may follow."""
        with self._lock:
            self._is_closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()
            tell(link)

    async def aclose(self) -> None:
        """``close`` in any event loop."""
        self.close()
        await checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Inside

    def _linked(self) -> BackboneLink:
        with self._lock:
            if self._is_closed:
                raise NotPublished("the publisher was closed")
            if self._link is None:
                assert self._backbone is not None
                url, prefix = self._backbone.url, self._backbone.prefix
                self._link = BackboneLink(url, prefix, self._settings, self._asks, self._encoder)
            return self._link

    def _forget(self) -> None:
        """This is a forked child: the link's thread is the parent's, and so is whoever holds the lock."""
        self._lock = threading.Lock()
        self._link = None

    def _send(
        self,
        call: "Sending",
        channel: str | Target,
        data: object,
        event: str | None,
        key: str | None,
        ttl: float | None,
        keyframe: bool,
        idempotency_key: str | None,
        tags: Mapping[str, str | int | float | bool] | None,
    ) -> Answer:
        kind, name = recipients_of(channel, key, ttl, keyframe, tags)
        if idempotency_key is not None:
            check_idempotency(idempotency_key)
        try:
            return call.link.publish(kind, name, data, event, key, ttl, keyframe, False, idempotency_key, tags)
        except (TypeError, ValueError) as error:
            explain(error, event=event, key=key, ttl=ttl, keyframe=keyframe, tags=tags)
            raise

    def _send_each(
        self, call: "Sending", channel: str | Target, items: Iterable[object], terms: tuple[Any, ...]
    ) -> Iterator[Answer]:
        """Their answers, in their order, while others are under way."""
        answers: list[Answer] = []
        failure: Exception | None = None
        iterator = iter(items)
        while failure is None:
            try:
                for item in iterator:
                    answers.append(self._send(call, channel, item, *terms))
                    if len(answers) >= UNDER_WAY_MAX:
                        break
                else:
                    break
            except Exception as error:  # those before it are answered first
                failure = error
                break
            yield answers.pop(0)
        yield from answers
        if failure is not None:
            raise failure

    async def _apublish_all(self, calls: Iterable[tuple[Any, ...]]) -> None:
        """All of these calls of the link's, in their order. Raises NotPublished once all are answered."""
        call = Sending(self, self._timeout)
        await call.asettle(call.prepare())
        failure: Exception | None = None
        for answer in [call.link.publish(*one) for one in calls]:
            try:
                await call.asettle(answer)
            except NotPublished as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _remove(
        self,
        call: "Sending",
        channel: str,
        key: str,
        data: object,
        event: str | None,
        tags: Mapping[str, str | int | float | bool] | None,
    ) -> Answer:
        check_channel(channel)
        if key is None:
            wrong("key", "a str of at most 255 bytes", key)
        told = {"removed": key} if data is None else data
        try:
            return call.link.publish("channel", channel, told, event, key, None, False, True, None, tags)
        except (TypeError, ValueError) as error:
            explain(error, event=event, key=key, tags=tags)
            raise


class Sending:
    """One call of a publisher, and how long it may wait."""

    __slots__ = ("_timeout", "link")

    def __init__(self, publisher: Publisher, timeout: float) -> None:
        self.link = publisher._linked()
        self._timeout = timeout

    def prepare(self) -> Answer | None:
        """What has to be known before, if it is not."""
        return self.link.prepare()

    def settle(self, answer: Answer | None) -> Position:
        """Wait for it. Raises NotPublished."""
        if answer is None:
            return NOWHERE
        try:
            return answer.wait(self._timeout) or self._late()
        except NotPublished:
            tell(self.link)
            raise

    async def asettle(self, answer: Answer | None) -> Position:
        """The same in an event loop."""
        if answer is None:
            return NOWHERE
        if answer.is_known:
            await checkpoint()
        else:
            with anyio.move_on_after(self._timeout):
                await anyio.wait_readable(answer.fileno())
        try:
            return answer.wait(0) or self._late()
        except NotPublished:
            tell(self.link)
            raise

    def _late(self) -> NoReturn:
        text = f"the backbone has not answered for {self._timeout:g} s, and whether it was published is not known"
        raise NotPublished(text, True)


NOWHERE = Position(0, 0)


class noted:
    """Adds to what is raised which item it was of."""

    def __init__(self, positions: list[Position]) -> None:
        self._positions = positions

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            count = len(self._positions)
            error.add_note(f"raised by item {count} of publish_many; those before it are published")


def recipients_of(channel: str | Target, key: object, ttl: object, keyframe: object, tags: object) -> tuple[str, str]:
    """The kind and the name of whom it is for. Raises TypeError, ValueError for nobody that a publisher can reach."""
    if not isinstance(channel, Target):
        return "channel", check_channel(channel)
    channel.check(key, ttl, keyframe, (), tags)
    match channel:
        case ToUser(user):
            return "user", user
        case ToAll(path):
            return "hub", OWN["signalr_paths"][0] if path is None else path
        case ToClient():
            raise ValueError(f"{channel} is a connection of a hub's: only that hub can send to it alone")
    raise AssertionError(channel)  # there is no other


def check_idempotency(key: object) -> None:
    """Raises TypeError, ValueError for what is no idempotency key."""
    must = f"a str of 1 to {IDEMPOTENCY_BYTES_MAX} bytes, or None"
    text = check_text("idempotency_key", key, must)
    if not 0 < len(text.encode()) <= IDEMPOTENCY_BYTES_MAX:
        wrong("idempotency_key", must, key, ValueError)


def tell(link: BackboneLink) -> None:
    """Write to the log what the link has to say."""
    for level, line in link.take_lines():
        hub_log.log(level, "%s", line)


_publishers: "weakref.WeakSet[Publisher]" = weakref.WeakSet()


def _forget_all() -> None:
    for one in list(_publishers):
        one._forget()


if hasattr(os, "register_at_fork"):  # not on Windows, where the stand-in refuses what is above
    os.register_at_fork(after_in_child=_forget_all)
