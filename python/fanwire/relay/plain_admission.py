"""Who may connect to a relay of plain WebSockets, where no lane says: whoever the backend opens a connection for.

A connection is opened as the client would have opened it, and closed again. What the backend said is remembered for
``admit_for``: the same credentials and query get the same answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic

from fanwire._engine import Opening, Upstream
from fanwire.auth import Request
from fanwire.logs import relay_log
from fanwire.relay.admission import Credentials, Memory, credentials_of, is_lasting
from fanwire.relay.headers import Passing
from fanwire.relay.queries import with_query
from fanwire.relay.upstreams import Owner, Target, Upstreams

SWITCHING = 101
"""HTTP's status of a WebSocket that opens."""
OF_EVERYBODY = ("x-forwarded-host", "x-forwarded-proto")
"""Headers that say how a visitor came, and not who it is."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client that asks to connect: what it shows, and what it wants."""

    credentials: Credentials
    query: str = field(repr=False)
    """As sent."""
    subprotocols: tuple[str, ...]
    """Those that it offers."""

    @property
    def is_anybody(self) -> bool:
        """Whether it shows nothing by which a backend could tell it from others, its query aside."""
        return not any(name not in OF_EVERYBODY for name, _ in self.credentials.important)

    def key(self) -> tuple[object, ...]:
        """Equal for visitors that are the same to the backend."""
        return self.credentials.important, self.query, self.subprotocols

    def as_nobody(self) -> "Visitor":
        """The same subprotocols, and nothing shown."""
        return Visitor(
            replace(self.credentials, headers=(), query="", has_token=False, important=()), "", self.subprotocols
        )


def visitor_of(opening: Opening, passing: Passing) -> Visitor:
    """The client of an opening, by a relay's rules."""
    request = Request(opening)
    offered = (name.strip() for line in request.headers.all("sec-websocket-protocol") for name in line.split(","))
    query = opening.target.partition("?")[2]
    return Visitor(credentials_of(request, passing), query, tuple(filter(None, offered)))


@dataclass(slots=True)
class Answer:
    """What the backend said to a visitor."""

    status: int | None = None
    """HTTP's: 101 of one that may connect; None while it is not known, 0 where the backend cannot be reached."""
    subprotocol: str | None = None
    until: float = 0.0

    @property
    def extra_bytes(self) -> int:
        """What it holds beside numbers."""
        return len(self.subprotocol or "")


Then = Callable[[Answer], None]


def nothing() -> None:
    """There is nothing to call off."""


class Probe(Owner):
    """A connection that is opened as a visitor, and closed."""

    def __init__(self, admission: "PlainAdmission", visitor: Visitor, answer: Answer) -> None:
        self._admission = admission
        self.visitor = visitor
        self.answer = answer
        self.waiting: dict[Then, None] = {}
        self._is_off = False
        self._session = admission.open(self)

    def leave(self, then: Then) -> None:
        """One that waits is gone; when all are, it is called off."""
        self.waiting.pop(then, None)
        if not self.waiting and self.answer.status is None:
            self._is_off = True
            self._admission.call_off(self, self._session)

    def opened(self, event: Upstream) -> None:
        """It may connect."""
        if self._is_off:
            return
        self.answer.subprotocol = event.subprotocol
        self._admission.close(self._session)
        self._tell(SWITCHING)

    def closed(self, event: Upstream) -> None:
        """It is over; it may not, unless it was opened before."""
        if self.answer.status is None and not self._is_off:
            if event.status is None:
                relay_log.warning("nobody can be admitted: %s", event.text)
            self._tell(event.status or 0)

    def _tell(self, status: int) -> None:
        self.answer.status = status
        self._admission.answered(self)
        waiting, self.waiting = self.waiting, {}
        for then in waiting:
            with self._admission.faults.contained(
                "relay.admission", "a client could not be told whether it may connect"
            ):
                then(self.answer)

    def fail(self) -> None:
        """Who waits is turned away."""
        if self.waiting:
            self._tell(self.answer.status or 0)


class PlainAdmission:
    """Asks the backend once for each kind of visitor, and remembers its answers for a while."""

    def __init__(self, upstreams: Upstreams, target: Target, *, asks: bool, admit_for: float) -> None:
        self._upstreams = upstreams
        self.faults = upstreams.faults
        self._target = target
        self._asks = asks
        self._admit_for = admit_for
        self._answers: Memory[Answer] = Memory()
        self._probes: dict[bytes, Probe] = {}

    def ask(self, visitor: Visitor, then: Then) -> Callable[[], object]:
        """Have `then` called with the backend's answer, at once where it is known. Gives what calls that off.

        Where nobody is asked about, the backend is still asked which of the client's subprotocols it chooses.
        """
        if not self._asks:
            if not visitor.subprotocols:
                then(Answer(SWITCHING))
                return nothing
            visitor = visitor.as_nobody()
        key = self._answers.hash(visitor.key())
        answer = self._answers.get(key)
        if answer is not None:
            then(answer)
            return nothing
        probe = self._probes.get(key)
        if probe is None:
            probe = self._probes[key] = Probe(self, visitor, Answer())
        probe.waiting[then] = None
        return partial(probe.leave, then)

    # What its probes do

    def open(self, probe: Probe) -> int:
        """Begin its session: in the visitor's name, if it is asked about."""
        target, visitor = self._target, probe.visitor
        return self._upstreams.open_plain(
            probe,
            target,
            visitor.subprotocols,
            ("nowhere",),
            headers=visitor.credentials.headers if self._asks else (),
            urls=with_query(target.urls, visitor.query),
        )

    def close(self, session: int) -> None:
        """End it."""
        self._upstreams.close(session, (1000, ""))

    def call_off(self, probe: Probe, session: int) -> None:
        """Nobody waits for it any more."""
        self._probes.pop(self._answers.hash(probe.visitor.key()), None)
        self.close(session)

    def answered(self, probe: Probe) -> None:
        """Remember the answer; not one that may have been the backend's bad moment."""
        key, answer = self._answers.hash(probe.visitor.key()), probe.answer
        self._probes.pop(key, None)
        if answer.status is not None and is_lasting(answer.status):
            answer.until = monotonic() + min(self._admit_for, probe.visitor.credentials.expires_in())
            self._answers.put(key, answer)
