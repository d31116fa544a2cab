"""A lane of any kind, with a clock that stands still, and without sockets or loops."""

from types import SimpleNamespace
from typing import Any

from fanwire.relay.config import CallShare, Lanes
from fanwire.relay.driver import LaneContext
from fanwire.relay.lane import CallLane, CallLaneContext, PlainLane
from fanwire.relay.lingering import Lingering
from fanwire.relay.shared import SharedCall
from fanwire.relay.timing import Backoff
from fanwire.relay.wire import Asked, PlainWire
from fanwire.timings import Timings

from support.clock import BACKEND, FakeTimers, Noted, One, happened, upstreams

LANES = Lanes(backoff_min=1.0, backoff_max=8.0, on_gap="message")


class Stage:
    """A lane, its clock, and all that it asks for."""

    def __init__(self, kind: str = "call", lanes: Lanes = LANES, **engine: Any) -> None:
        self.timers = FakeTimers()
        self.engine = Noted(**{"join_lane": True, **engine})
        self.upstreams = upstreams()
        self.upstreams.engine = self.engine
        self.ended: list[Any] = []
        common: Any = (self.upstreams, self.timers, BACKEND, 30.0, lanes, Lingering(lanes.per_client_max), Timings())
        self.lingering: Lingering = common[-2]
        self.lane: Any
        if kind == "call":
            share, call = CallShare(subscribe="Watch", fresh=60.0), SharedCall("Watch", "json", b'["m"]')
            everyones: Any = SimpleNamespace(life_of=lambda protocol: 0)
            context = CallLaneContext(*common, frozenset(), Noted(), everyones)  # type: ignore[arg-type]
            self.lane = CallLane("l", share, call, context, self.ended.append)
        else:
            message = b'{"watch":1}' if kind == "message" else None
            self.lane = PlainLane("l", PlainWire("?m", message, 1), [], (), LaneContext(*common), self.ended.append)
        self.lane._backoff = Backoff(1.0, 8.0, lambda low, high: high)

    def come(self, client: One, id: str = "1") -> None:
        """Have a client watch."""
        if isinstance(self.lane, CallLane):
            self.lane.subscribe(client, Asked(id, "Watch"))
        elif self.lane.message is None:
            self.lane.admit(client)
        else:
            self.lane.watch(client)

    def agree(self) -> None:
        """The backend takes what is asked."""
        self.lane.opened(happened("opened"))
        if isinstance(self.lane, CallLane):
            self.answer()

    def answer(self, outcome: str = "result") -> None:
        """To the newest call."""
        self.lane.completed(happened("completion", id=str(self.lane._calls), outcome=outcome))

    def lose(self, **told: Any) -> None:
        """The connection ends."""
        self.lane.closed(happened("closed", **{"text": "gone", **told}))
