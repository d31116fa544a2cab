"""What a backend answers to those who unsubscribe, learned once: a lane does not while others watch. ✗ lanes.

The first time that a client leaves, a connection of its own subscribes and unsubscribes as the client did, and what the
second call gave is from then on what clients of this share and protocol are answered, whatever their arguments. Where
that went wrong nothing is learned: those who wait are answered without a result, as they have left all the same.
"""

from dataclasses import dataclass
from typing import Protocol

from fanwire._engine import HubMessage, Upstream
from fanwire.faults import Tasks
from fanwire.logs import relay_log
from fanwire.relay.lane import NOT_ANSWERED, UNREACHABLE, Lane, Outcome
from fanwire.relay.timing import Delay
from fanwire.relay.upstreams import Owner, Target, Upstreams


class Leaving(Protocol):
    """A client that has left."""

    def complete(self, call: HubMessage, outcome: Outcome) -> None:
        """The call ended so."""

    def failed(self, call: HubMessage, why: str) -> None:
        """The call could not be made."""


@dataclass(frozen=True, slots=True)
class Void:
    """A call that has ended, and gave nothing."""

    outcome: str = "void"
    body: bytes = b""


class Probe(Owner):
    """A connection that subscribes, unsubscribes and is closed."""

    def __init__(self, upstreams: Upstreams, tasks: Tasks, target: Target, lane: Lane) -> None:
        self._upstreams = upstreams
        self._is_open = False
        self.outcome: Outcome | None = None
        self.is_over = False
        self.waiting: list[tuple[Leaving, HubMessage]] = []
        self._session = upstreams.open(self, target, lane.protocol, ("calls",))
        self._lane = lane
        self._invoke("1", lane.share.subscribe)
        self._timeout = Delay(tasks, target.connect_timeout, self._give_up)

    def answer(self, client: Leaving, call: HubMessage) -> None:
        """Answer a client, once the outcome is known."""
        if self.outcome is not None:
            client.complete(call, self.outcome)
        else:
            self.waiting.append((client, call))

    def _invoke(self, id: str, method: str) -> None:
        self._upstreams.invoke(self._session, self._lane.protocol, id, method, self._lane.arguments)

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        self._is_open = True

    def completed(self, event: Upstream) -> None:
        """The second call tells; it waits for the first, as a backend may deal with several at once."""
        if event.outcome == "error":
            relay_log.warning(
                "%s: what it answers to %s could not be learned", self._lane, self._lane.share.unsubscribe
            )
            self._tell(Void())
        elif event.id == "1":
            self._invoke("2", self._lane.share.unsubscribe or "")
            return
        else:
            self.outcome = event
            self._tell(event)
        self._upstreams.close(self._session)

    def _tell(self, outcome: Outcome) -> None:
        self.is_over = True
        waiting, self.waiting = self.waiting, []
        for client, call in waiting:
            client.complete(call, outcome)

    def closed(self, event: Upstream) -> None:
        """It is over; without an outcome those who wait are told that it could not be had."""
        self._timeout.call_off()
        self._fail()

    def _give_up(self) -> None:
        self._fail()
        self._upstreams.close(self._session)

    def _fail(self) -> None:
        self.is_over = True
        waiting, self.waiting = self.waiting, []
        for client, call in waiting:
            client.failed(call, NOT_ANSWERED if self._is_open else UNREACHABLE)


class Answers:
    """By share and protocol."""

    def __init__(self, upstreams: Upstreams, tasks: Tasks, target: Target) -> None:
        self._upstreams = upstreams
        self._tasks = tasks
        self._target = target
        self._probes: dict[tuple[str, str], Probe] = {}

    def answer(self, client: Leaving, lane: Lane, call: HubMessage) -> None:
        """Answer a client that has left a lane as the backend would have."""
        key = (lane.share.subscribe, lane.protocol)
        probe = self._probes.get(key)
        if probe is None or (probe.is_over and probe.outcome is None):
            probe = self._probes[key] = Probe(self._upstreams, self._tasks, self._target, lane)
        probe.answer(client, call)
