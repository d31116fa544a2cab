"""Pooled calls: methods whose answer is nobody's own go over a few shared connections. ✗ streams.

Each client counts its calls from 0, so they get numbers of the pool's own on their way out, and their old ones back.
"""

from typing import Protocol

from fanwire._engine import HubMessage, Upstream
from fanwire.relay.client import LOST
from fanwire.relay.lane import UNREACHABLE
from fanwire.relay.upstreams import Owner, Target, Upstreams


class Caller(Protocol):
    """Whose call it is."""

    def complete(self, call: HubMessage, outcome: Upstream) -> None:
        """The call ended so."""

    def failed(self, call: HubMessage, why: str) -> None:
        """The call could not be made."""

    def acknowledge(self) -> None:
        """Another message may come: a client waits for its calls as it would at the backend, and piles up none."""


class Member(Owner):
    """One connection of a pool, opened with its first call and again after a loss."""

    def __init__(self, upstreams: Upstreams, target: Target, protocol: str, idle: float) -> None:
        self._upstreams = upstreams
        self._target = target
        self._protocol = protocol
        self._idle = idle
        self._session: int | None = None
        self._newest = 0
        self.calls: dict[str, tuple[Caller, HubMessage]] = {}
        """Those that wait for their outcome, by our number."""

    def call(self, caller: Caller, call: HubMessage) -> None:
        """Make a client's call."""
        if self._session is None:
            self._session = self._upstreams.open(self, self._target, self._protocol, ("calls",), idle=self._idle)
        self._newest += 1
        id = str(self._newest)
        self.calls[id] = caller, call
        self._upstreams.invoke(self._session, self._protocol, id, call.target, call.body)

    def completed(self, event: Upstream) -> None:
        """A call has ended."""
        caller, call = self.calls.pop(event.id, (None, None))
        if caller is not None and call is not None:
            caller.complete(call, event)
            caller.acknowledge()

    def happened(self, event: Upstream) -> None:
        """It is idle."""
        if event.kind == "idle" and not self.calls and self._session is not None:
            self._upstreams.close(self._session)
            self._session = None

    def closed(self, event: Upstream) -> None:
        """The connection is gone, and what waited with it."""
        if event.session != self._session:
            return
        self._session = None
        calls, self.calls = self.calls, {}
        for caller, call in calls.values():
            caller.failed(call, LOST if event.was_open else UNREACHABLE)
            caller.acknowledge()


class Pool:
    """The connections for one hub protocol."""

    def __init__(self, upstreams: Upstreams, target: Target, protocol: str, size: int, idle: float) -> None:
        self._members = [Member(upstreams, target, protocol, idle) for _ in range(size)]

    def call(self, caller: Caller, call: HubMessage) -> None:
        """Make a client's call over the connection with the fewest that wait."""
        min(self._members, key=lambda member: len(member.calls)).call(caller, call)
