"""Who may connect, over workers: the backend is asked once for all who show the same, whichever of them they come to.

For each hash of what is shown one worker keeps the answer, by rendezvous hashing over those that are there. Whoever has
not got it asks that one first, and hears the answer, or that it is to ask the backend itself; others who ask meanwhile
wait for what it hears. What visitors show stays in the worker that they come to: hashes cross, and answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, TypeAlias

from fanwire.relay.sharing import Sharing
from fanwire.relay.timing import Delay

PATIENCE_S = 1.0
"""How long another worker may take to say what it knows: then the backend is asked all the same."""
KINDS = frozenset({"may they", "they may", "wait", "ask", "heard"})
"""Of what relays tell each other, what is for here."""
Said: TypeAlias = tuple[int, bytes, str | None, float]
"""A verdict: status, body, subprotocol, and for how many seconds it holds."""


class OneAsking(Protocol):
    """Who waits to be told."""

    key: bytes

    @property
    def shown(self) -> bytes:
        """A hash of all that it shows."""


class Admitting(Protocol):
    """What a relay's admission is to this."""

    def known(self, key: bytes, shown: bytes) -> Said | None:
        """What is remembered here."""

    def remember(self, key: bytes, shown: bytes, said: Said) -> None:
        """Another worker has heard it."""

    def say(self, asker: Any, said: Said) -> None:
        """Tell one that waits."""

    def go_and_ask(self, asker: Any) -> None:
        """Have one that waits asked about, with all who have the same key."""

    def ask_anew(self, asker: Any) -> None:
        """Have it asked about by all that it shows, when there is room: another who showed less was refused."""

    def later(self, seconds: float, function: Callable[[], object]) -> Delay:
        """Call it then."""


@dataclass(slots=True)
class Question:
    """That a worker asks the backend."""

    worker: int
    until: float
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    """Workers that wait for what it hears, and what their visitors show."""


@dataclass(slots=True)
class Unheard:
    """Those who wait for what another worker knows."""

    owner: int
    askers: dict[Any, None] = field(default_factory=dict)
    patience: Delay | None = None


class SharedAdmission:
    """One relay's.

    Args:
        asking_s: seconds that the backend has to answer.
    """

    def __init__(self, sharing: Sharing, path: str, admission: Admitting, asking_s: float) -> None:
        self._sharing, self._path, self._admission = sharing, path, admission
        self._asking_s = asking_s
        # Of keys that this worker keeps: who asks the backend.
        self._questions: dict[bytes, Question] = {}
        # Of keys that others keep, by them.
        self._pending: dict[bytes, Unheard] = {}
        # Keys for which this worker asks, as their owner said.
        self._asks: dict[bytes, int] = {}

    def ask(self, asker: OneAsking) -> None:
        """Find out about one of whom nothing is known here."""
        pending = self._pending.get(asker.key)
        if pending is None:
            owner = self._sharing.elected(asker.key)
            pending = self._pending[asker.key] = Unheard(owner)
            pending.askers[asker] = None
            if owner != self._sharing.number:
                pending.patience = self._admission.later(PATIENCE_S, lambda: self._go_and_ask(asker.key))
            self._tell(owner, "may they", asker.key, asker.shown)
        else:
            pending.askers[asker] = None

    def leave(self, asker: OneAsking) -> None:
        """One that waits is gone."""
        pending = self._pending.get(asker.key)
        if pending is not None:
            pending.askers.pop(asker, None)

    def heard(self, asker: OneAsking, said: Said | None) -> None:
        """The backend has answered about one; None: nobody wants to know any more."""
        owner = self._asks.pop(asker.key, None)
        if owner is not None or (said is not None and said[3] > 0):
            self._tell(self._sharing.elected(asker.key), "heard", asker.key, asker.shown, said)

    def told(self, worker: int, what: str, key: bytes, shown: bytes, *said: Any) -> None:
        """Another worker says something; or this one, to itself."""
        match what:
            case "may they":
                self._answer(worker, key, shown)
            case "they may":
                self._say(key, shown, said[0])
            case "wait":
                self._wait(key)
            case "ask":
                self._asks[key] = worker
                self._go_and_ask(key)
            case "heard":
                self._settle(worker, key, shown, said[0])

    def parted(self, worker: int) -> None:
        """It is gone: what it was to answer others find out."""
        for key, pending in list(self._pending.items()):
            if pending.owner == worker:
                self._go_and_ask(key)
        for key, question in list(self._questions.items()):
            question.waiting = [one for one in question.waiting if one[0] != worker]
            if question.worker == worker:
                self._next(key)

    def _tell(self, to: int, what: str, key: bytes, shown: bytes, *said: Any) -> None:
        if to == self._sharing.number:
            self.told(to, what, key, shown, *said)
        else:
            self._sharing.tell_relays(self._path, what, key, shown, *said, to=to)

    # For those whose key this worker keeps

    def _answer(self, worker: int, key: bytes, shown: bytes) -> None:
        known = self._admission.known(key, shown)
        if known is not None:
            self._tell(worker, "they may", key, shown, known)
            return
        question, now = self._questions.get(key), monotonic()
        if question is None or question.until < now:
            self._questions[key] = Question(worker, now + self._asking_s + PATIENCE_S)
            self._tell(worker, "ask", key, shown)
        else:
            question.waiting.append((worker, shown))
            self._tell(worker, "wait", key, shown)

    def _settle(self, worker: int, key: bytes, shown: bytes, said: Said | None) -> None:
        if said is None:
            self._next(key)
            return
        if said[3] > 0 and worker != self._sharing.number:
            self._admission.remember(key, shown, said)
        question = self._questions.get(key)
        if question is None or question.worker != worker:
            return
        del self._questions[key]
        is_good = 100 <= said[0] < 300 and not said[1]
        for waiting, theirs in question.waiting:  # a no may be for what others do not show
            is_theirs = is_good or theirs == shown
            self._tell(waiting, *("they may", key, theirs, said) if is_theirs else ("ask", key, theirs))

    def _next(self, key: bytes) -> None:
        """Who was to ask does not: the next does."""
        question = self._questions.pop(key, None)
        if question is not None and question.waiting:
            (worker, shown), *rest = question.waiting
            self._questions[key] = Question(worker, monotonic() + self._asking_s + PATIENCE_S, rest)
            self._tell(worker, "ask", key, shown)

    # For those who wait here

    def _take(self, key: bytes) -> list[Any]:
        pending = self._pending.pop(key, None)
        if pending is None:
            return []
        if pending.patience is not None:
            pending.patience.call_off()
        return list(pending.askers)

    def _wait(self, key: bytes) -> None:
        """Another worker asks the backend."""
        pending = self._pending.get(key)
        if pending is not None and pending.patience is not None:
            pending.patience.call_off()
            pending.patience = self._admission.later(self._asking_s + PATIENCE_S, lambda: self._go_and_ask(key))

    def _go_and_ask(self, key: bytes) -> None:
        askers = self._take(key)
        for asker in askers:
            self._admission.go_and_ask(asker)
        if not askers and key in self._asks:  # whoever wanted to know is gone
            owner = self._asks.pop(key)
            self._tell(owner, "heard", key, key, None)

    def _say(self, key: bytes, shown: bytes, said: Said) -> None:
        is_good = 100 <= said[0] < 300 and not said[1]
        for asker in self._take(key):
            if is_good or asker.shown == shown:
                self._admission.say(asker, said)
            else:
                self._admission.ask_anew(asker)
