"""A clock that stands still until a test lets time pass, and what a lane tells of what it does: no socket, no loop."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fanwire.budget import Budgets
from fanwire.faults import Faults
from fanwire.relay.wire import Asked

BACKEND: Any = SimpleNamespace(connect_timeout=5.0, queue_bytes_max=100, record_bytes_max=1_000, urls=[])
"""Of sessions."""


@dataclass(eq=False)
class Later:
    """What is to happen."""

    at: float
    function: Callable[[], object]
    is_off: bool = False

    def call_off(self) -> None:
        """It does not happen."""
        self.is_off = True


@dataclass
class FakeTimers:
    """In the place of ``fanwire.relay.timing.Timers``."""

    time: float = 1_000.0
    due: list[Later] = field(default_factory=list)

    def now(self) -> float:
        """Seconds."""
        return self.time

    def later(self, seconds: float, function: Callable[[], object], fail: Any = None) -> Any:
        """Have it happen then."""
        self.due.append(Later(self.time + seconds, function))
        return self.due[-1]

    @property
    def waits(self) -> list[float]:
        """In how many seconds something happens, in order."""
        return sorted(round(one.at - self.time, 6) for one in self.due if not one.is_off)

    def let_pass(self, seconds: float) -> None:
        """Have all happen that is due by then, in order."""
        end = self.time + seconds
        while ready := [one for one in self.due if not one.is_off and one.at <= end]:
            first = min(ready, key=lambda one: one.at)
            self.due.remove(first)
            self.time = first.at
            first.function()
        self.time = end


class Noted:
    """In the place of an engine or of upstreams: it notes what it is asked for, and has an answer for some of it."""

    def __init__(self, **answers: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, *arguments))
            answer = self._answers.get(name)
            return answer(*arguments) if callable(answer) else answer

        return call

    def counts(self) -> Counter[str]:
        """How often each was asked for."""
        return Counter(name for name, *_ in self.calls)


def upstreams() -> Any:
    """Those of a relay, whose sessions are numbered from 1."""
    noted = Noted()
    numbers = iter(range(1, 1_000_000))
    opened: list[int] = []

    def begin(*arguments: Any, **named: Any) -> int:
        opened.append(next(numbers))
        return opened[-1]

    return SimpleNamespace(
        faults=Faults(),
        endings=noted,
        noted=noted,
        opened=opened,
        tracing=None,
        open=begin,
        open_plain=begin,
        send=lambda *arguments: 0,
        send_message=lambda *arguments, **named: 0,
        close=lambda session, farewell=None: noted.calls.append(("close session", session)),
    )


def happened(kind: str, **told: Any) -> Any:
    """An event of a session."""
    usual = {"id": "", "outcome": "", "text": "", "status": None, "said": False, "code": None, "was_open": False}
    usual |= {"fault": ""}
    return SimpleNamespace(kind=kind, **{**usual, "subprotocol": None, "body": b"", **told})


class One:
    """A client, of either kind, that notes what it is told."""

    def __init__(self, id: int = 1, bytes_max: int = 100_000) -> None:
        self.id = id
        self.budget = Budgets(bytes_max).open()
        self.told: list[str] = []
        self.tell: Callable[[str], None] = self.told.append

    def complete(self, call: Asked, outcome: Any) -> None:
        """Note it."""
        self.tell(f"complete {call.id}")

    def given_up(self, lane: Any, call: Asked, why: str) -> None:
        """Note it."""
        self.tell(f"given up {call.id}: {why}")

    def failed(self, call: Asked, why: str) -> None:
        """Note it."""
        self.tell(f"failed {call.id}")

    def left(self, lane: Any, call: Asked) -> None:
        """Note it."""
        self.tell(f"left {call.id}")

    def let_in(self, subprotocol: str | None) -> None:
        """Note it."""
        self.tell("let in")

    def turned_away(self, status: int | None) -> None:
        """Note it."""
        self.tell(f"turned away {status}")

    def refused(self, lane: Any, *what: Any) -> None:
        """Note it."""
        self.tell("refused")

    def fail(self) -> None:
        """Note it."""
        self.tell("fail")
