"""Who may connect to a relay: whoever the backend would let in. Not what they do then.

The backend is asked in the visitor's name, once for all who show the same: for what it would answer to a negotiation,
or for a WebSocket, which is closed again. Its answer is remembered for ``admit_for``, by a hash of what was shown.

A yes is for all whose headers that count are the same. Anything else may be for a header that does not count (a
firewall refuses a user agent), so it is only for those who showed the very same, and the others are asked about anew.
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import count
from math import inf
from time import monotonic
from typing import TypeAlias

import msgspec

from fanwire._engine import Opening, Upstream
from fanwire._loop import ends_task
from fanwire.auth import ResponseHeaders
from fanwire.logs import relay_log
from fanwire.relay.admitting import Said, SharedAdmission
from fanwire.relay.credentials import Reader, Visitor
from fanwire.relay.headers import Pairs, Passing, with_query
from fanwire.relay.sharing import Sharing
from fanwire.relay.timing import Delay, Timers
from fanwire.relay.upstreams import (
    BAD_REQUEST,
    FAILING,
    REFUSING,
    Backend,
    SessionHandler,
    Upstreams,
    status_of,
)

REMEMBERED_BYTES_MAX = 8 << 20
"""Of answers that are remembered, by set of credentials: some 23,000, where the backend's errors have no words."""
REMEMBERED_BYTES = 360
"""Of one, without the backend's words: 300 of the resident set with 100,000 of them, 355 while their table grows."""
ASKED_ANEW_MAX = 256
"""Questions at once, above which those who got another's refusal wait to be asked about anew."""
ASKING_PART = 0.8
"""Of the time for a handshake, what the backend has to say whether it may be."""
SWITCHING = 101
"""HTTP's status of a WebSocket that opens."""


@dataclass(slots=True)
class Verdict:
    """What the backend said to a visitor."""

    status: int = 0
    """HTTP's; 0 where it cannot be reached."""
    body: bytes = field(default=b"", repr=False)
    """Of an error in SignalR's own words; empty otherwise."""
    subprotocol: str | None = None
    """That it chose."""
    until: float = 0.0
    """How long it holds."""

    @property
    def extra_bytes(self) -> int:
        """What it holds beside numbers."""
        return len(self.body) + len(self.subprotocol or "")

    @property
    def is_good(self) -> bool:
        """Whether whoever shows the same may connect."""
        return 100 <= self.status < 300 and not self.body

    @property
    def refusal(self) -> tuple[int, str]:
        """The status and text for who is not let in."""
        if not self.status:
            return 503, "the backend cannot be reached"
        return (self.status if 400 <= self.status < 600 else 502), ""

    @property
    def is_lasting(self) -> bool:
        """Whether it lets in or does not; any other may have been the backend's bad moment, errors in its words too."""
        return self.is_good or self.status in REFUSING


Then: TypeAlias = Callable[[Verdict, Sequence[str]], object]
"""Hears the answer, and the cookies that are this visitor's."""


def nothing() -> None:
    """There is nothing to call off."""


@dataclass(slots=True, eq=False)
class Asker:
    """Who waits to be told."""

    visitor: Visitor
    key: bytes
    """A hash of what counts."""
    then: Then
    hash: Callable[[tuple[object, ...]], bytes] | None
    """Hashes what is shown; None where it is asked about for itself alone."""
    check: "AdmissionCheck | None" = None
    """What it waits for; None where that has yet to begin."""
    _shown: bytes = b""

    @property
    def shown(self) -> bytes:
        """A hash of all that it shows, made when it is looked at: most know a yes by the other."""
        if not self._shown:
            self._shown = self.key if self.hash is None else self.hash(self.visitor.shown())
        return self._shown


class Memory:
    """The backend's answers by what was shown: a keyed hash, so that no secret is kept."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._bytes = 0
        # What those show alike who show nothing of their own, and its hash.
        self._anybodys: tuple[Pairs, bytes] | None = None
        self.refusals = 0
        """How many of them are no yes."""

    def __len__(self) -> int:
        return len(self._verdicts)

    def hash(self, shown: tuple[object, ...]) -> bytes:
        """What is kept instead of it."""
        return blake2b(repr(shown).encode(), key=self._secret, digest_size=32).digest()

    def key_of(self, visitor: Visitor) -> bytes:
        """The hash of what counts; of what the last had, who showed nothing of its own, it is not made again."""
        if visitor.query or visitor.subprotocols:
            return self.hash(visitor.key())
        if self._anybodys is not None and self._anybodys[0] == visitor.important:
            return self._anybodys[1]
        key = self.hash(visitor.key())
        if visitor.is_anybody:
            self._anybodys = visitor.important, key
        return key

    def get(self, hash: bytes) -> Verdict | None:
        """The answer, if it still holds."""
        verdict = self._verdicts.get(hash)
        return None if verdict is None or verdict.until <= monotonic() else verdict

    def put(self, hash: bytes, verdict: Verdict) -> None:
        """Remember one; those whose time is over are forgotten, and the oldest where there is no room."""
        self._forget(hash)
        self._verdicts[hash] = verdict
        self._bytes += _cost_of(verdict)
        self.refusals += not verdict.is_good
        now = monotonic()
        while self._verdicts:
            oldest, other = next(iter(self._verdicts.items()))
            if other.until > now and self._bytes <= REMEMBERED_BYTES_MAX:
                return
            self._forget(oldest)

    def _forget(self, hash: bytes) -> None:
        verdict = self._verdicts.pop(hash, None)
        if verdict is not None:
            self._bytes -= _cost_of(verdict)
            self.refusals -= not verdict.is_good


def _cost_of(verdict: Verdict) -> int:
    """What remembering it takes, with its hash and its place, in bytes."""
    return verdict.extra_bytes + REMEMBERED_BYTES


class AdmissionCheck(SessionHandler):
    """What a visitor may: asked once, for all who show the same meanwhile."""

    def __init__(self, admission: "Admission", hash: bytes, asker: Asker) -> None:
        self.hash, self.visitor = hash, asker.visitor
        self._admission = admission
        # Whom the cookies of the answer are for: they are nobody's who shows the same.
        self.asker = asker
        self._waiting: dict[Asker, None] = {}
        self.join(asker)
        # It is answered, or nobody wants to know any more: then nothing that comes says anything.
        self._is_over = False
        self._session = self._ask()

    def _ask(self) -> int:
        """Begin a session."""
        raise NotImplementedError

    def join(self, asker: Asker) -> None:
        """Another shows the same."""
        asker.check = self
        self._waiting[asker] = None

    def leave(self, asker: Asker) -> None:
        """One that waits is gone; when all are, it is called off."""
        self._waiting.pop(asker, None)
        if not self._waiting and not self._is_over:
            self._is_over = True
            self._admission.abandoned(self)
            self._admission.upstreams.close(self._session, (1000, ""))

    def _end(self, verdict: Verdict, cookies: Sequence[str] = ()) -> None:
        self._is_over = True
        self._admission.answered(self, verdict)
        waiting, self._waiting = self._waiting, {}
        for asker in waiting:
            if not verdict.is_good and asker.shown != self.asker.shown:
                self._admission.ask_anew(asker)
                continue
            with self._admission.upstreams.faults.contained(
                "relay.admission", "a client could not be told whether it may connect"
            ):
                asker.then(verdict, cookies if asker is self.asker else ())

    def fail(self) -> None:
        """Who waits is turned away."""
        if not self._is_over:
            self._end(Verdict())


class Negotiation(AdmissionCheck):
    """Asked of one of a SignalR backend's addresses after the other, until one answers."""

    def __init__(self, admission: "Admission", hash: bytes, asker: Asker) -> None:
        self._urls = deque(admission.urls_for(asker.visitor))
        self._verdict = Verdict()
        self._cookies: Sequence[str] = ()
        super().__init__(admission, hash, asker)

    def _ask(self) -> int:
        self._index, url = self._urls.popleft()
        admission = self._admission
        timeout = admission.backend.connect_timeout / len(admission.backend.urls)
        return admission.upstreams.negotiate(
            self, url, self.visitor.credentials.headers, timeout, admission.backend.roots
        )

    def happened(self, event: Upstream) -> None:
        """It came; of a server that is down, or as good as that, the next is asked."""
        if self._is_over:
            return  # nobody wants it, and it says nothing of the server
        if event.fault == "request":  # no server would hear it
            self._end(Verdict(BAD_REQUEST))
            return
        is_failing = not event.status or event.status in FAILING
        self._note(event, is_failing=is_failing)
        if not is_failing or not self._verdict.status:
            self._verdict = Verdict(event.status or 0, event.body if is_error(event.body) else b"")
            self._cookies = event.cookies
        if is_failing and self._urls:
            self._session = self._ask()
            return
        if not is_failing:
            self._admission.first = self._index
        self._end(self._verdict, self._cookies)

    def _note(self, event: Upstream, *, is_failing: bool) -> None:
        """How the server did that was asked, in a client's name."""
        health = self._admission.backend.health
        if event.fault == "machine":
            relay_log.warning("nobody can be admitted: %s", event.body.decode())
        elif health is not None and is_failing:
            why = f"negotiate was answered with status {event.status}" if event.status else event.body.decode()
            health.failed(self._index, why, is_own=False)
        elif health is not None:
            health.reached(self._index, is_own=False)


class Trial(AdmissionCheck):
    """A connection to a plain backend that is opened as the visitor, and closed."""

    def _ask(self) -> int:
        admission, visitor = self._admission, self.visitor
        return admission.upstreams.open_plain(
            self,
            admission.backend,
            visitor.subprotocols,
            ("nowhere",),
            headers=visitor.credentials.headers,
            urls=with_query(admission.backend.urls, visitor.query),
        )

    def opened(self, event: Upstream) -> None:
        """It may connect."""
        if not self._is_over:
            self._admission.upstreams.close(self._session, (1000, ""))
            self._end(Verdict(SWITCHING, subprotocol=event.subprotocol), event.cookies)

    def closed(self, event: Upstream) -> None:
        """It is over; it may not, unless it was opened before."""
        if not self._is_over:
            status = status_of(event)
            if status is None:
                relay_log.warning("nobody can be admitted: %s", event.text)
            self._end(Verdict(status or 0))


class Admission:
    """Asks the backend once for each kind of visitor, and remembers its answers for a while.

    Args:
        backend: whose `connect_timeout` is what it has to answer, over all addresses.
        asks: whether anybody is asked about.
    """

    check: type[AdmissionCheck]

    def __init__(self, upstreams: Upstreams, backend: Backend, *, asks: bool, admit_for: float) -> None:
        self.upstreams, self.backend = upstreams, backend
        self.first = 0
        """The index of the address that answered last."""
        self._asks = asks
        self._admit_for = admit_for
        self._remembered = Memory()
        self._shared: SharedAdmission | None = None
        self._timers: Timers | None = None
        self._asked: dict[bytes, AdmissionCheck] = {}
        # Those who got another's refusal, and are asked about when there is room.
        self._anew: OrderedDict[Asker, None] = OrderedDict()
        # Of checks that nobody else may share.
        self._numbers = count()
        self._has_told_of_cookies = False
        self.refused: Callable[[], object] = nothing
        """Called when a refusal is remembered."""

    def holds_s(self, verdict: Verdict) -> float:
        """For how many seconds whoever shows what counts may be let in by a yes: 0 while somebody may not."""
        if not self._asks:
            return inf
        return 0.0 if self._remembered.refusals else max(0.0, verdict.until - monotonic())

    def ask(self, visitor: Visitor, then: Then) -> Callable[[], object]:
        """Have `then` called with the backend's answer, at once where it is known. Gives what calls that off."""
        remembered = self._remembered
        if not self._admit_for:  # not even a moment is to be remembered: each client is asked about for itself
            asker = Asker(visitor, remembered.hash((next(self._numbers),)), then, None)
            self._join(asker, asker.key)
            return partial(self._leave, asker)
        key = remembered.key_of(visitor)
        verdict = None if remembered.refusals else remembered.get(key)
        if verdict is None:
            asker = Asker(visitor, key, then, remembered.hash)
            verdict = (remembered.refusals and remembered.get(asker.shown)) or remembered.get(key)
        if verdict is not None:
            then(verdict, ())
            return nothing
        if self._shared is not None:
            self._shared.ask(asker)
        else:
            self._join(asker, asker.key)
        return partial(self._leave, asker)

    def give(self, cookies: Sequence[str], headers: ResponseHeaders) -> None:
        """Add to a client's answer what the backend's answer about it sets."""
        for cookie in cookies:
            try:
                headers.add("Set-Cookie", cookie)
            except ValueError as error:  # no answer can carry it, or it is one too many
                if not self._has_told_of_cookies:
                    self._has_told_of_cookies = True
                    upstream = self.backend.urls[0].partition("?")[0]
                    relay_log.warning("a cookie of %s is not passed on (this is said once): %s", upstream, error)

    def _leave(self, asker: Asker) -> None:
        self._anew.pop(asker, None)
        if asker.check is not None:
            asker.check.leave(asker)
        elif self._shared is not None:
            self._shared.leave(asker)

    def _join(self, asker: Asker, hash: bytes) -> None:
        check = self._asked.get(hash)
        if check is None:
            self._asked[hash] = self.check(self, hash, asker)
        else:
            check.join(asker)

    def ask_anew(self, asker: Asker) -> None:
        """Ask about it by all that it shows: the answer was for something that another has shown."""
        asker.check = None
        self._anew[asker] = None
        self._go_on()

    def _go_on(self) -> None:
        while self._anew and len(self._asked) < ASKED_ANEW_MAX:
            asker, _ = self._anew.popitem(last=False)
            try:
                self._join(asker, asker.shown)
            except BaseException as error:
                if ends_task(error):
                    raise
                self.upstreams.faults.note("relay.admission", error, "a client could not be asked about anew")
                asker.then(Verdict(), ())

    # Over workers

    def share(self, sharing: Sharing, path: str, timers: Timers) -> None:
        """Ask once for all workers: the relay at this path has them, too."""
        self._timers, self._remembered = timers, Memory(sharing.secret)
        self._shared = SharedAdmission(sharing, path, self, self.backend.connect_timeout)

    @property
    def shared(self) -> SharedAdmission | None:
        """What hears other workers."""
        return self._shared

    def known(self, key: bytes, shown: bytes) -> Said | None:
        """See ``admitting.Admitting``."""
        verdict = self._remembered.get(shown) or self._remembered.get(key)
        return None if verdict is None else said_of(verdict)

    def remember(self, key: bytes, shown: bytes, said: Said) -> None:
        """See ``admitting.Admitting``."""
        verdict = verdict_of(said)
        self._remember(key if verdict.is_good else shown, verdict)

    def _remember(self, hash: bytes, verdict: Verdict) -> None:
        self._remembered.put(hash, verdict)
        if not verdict.is_good:
            self.refused()

    def say(self, asker: Asker, said: Said) -> None:
        """See ``admitting.Admitting``."""
        self.remember(asker.key, asker.shown, said) if said[3] > 0 else None
        with self.upstreams.faults.contained("relay.admission", "a client could not be told whether it may connect"):
            asker.then(verdict_of(said), ())

    def go_and_ask(self, asker: Asker) -> None:
        """See ``admitting.Admitting``."""
        try:
            self._join(asker, asker.key)
        except BaseException as error:
            if ends_task(error):
                raise
            self.upstreams.faults.note("relay.admission", error, "a client could not be asked about")
            asker.then(Verdict(), ())

    def later(self, seconds: float, function: Callable[[], object]) -> Delay:
        """See ``admitting.Admitting``."""
        assert self._timers is not None  # it is shared
        return self._timers.later(seconds, function)

    # What its checks do

    def urls_for(self, visitor: Visitor) -> list[tuple[int, str]]:
        """Whom to ask, with their indexes; first the one that answered last."""
        urls = list(enumerate(with_query(self.backend.urls, visitor.query)))
        return urls[self.first :] + urls[: self.first]

    def forget(self, check: AdmissionCheck) -> None:
        """Nobody waits for it any more."""
        self._asked.pop(check.hash, None)
        self._go_on()

    def abandoned(self, check: AdmissionCheck) -> None:
        """The same, and the backend has not answered."""
        self.forget(check)
        if self._shared is not None:
            self._shared.heard(check.asker, None)

    def answered(self, check: AdmissionCheck, verdict: Verdict) -> None:
        """Remember the answer; not one that may have been the backend's bad moment: the next client asks again."""
        self.forget(check)
        if verdict.is_lasting:
            verdict.until = monotonic() + min(self._admit_for, check.visitor.credentials.expires_in())
            asker = check.asker
            self._remember(asker.key if verdict.is_good else asker.shown, verdict)
        if self._shared is not None:
            self._shared.heard(check.asker, said_of(verdict))


class HubAdmission(Admission):
    """To a SignalR backend."""

    check = Negotiation

    def __init__(
        self, upstreams: Upstreams, backend: Backend, *, asks: bool, admit_for: float, passing: Passing
    ) -> None:
        super().__init__(upstreams, backend, asks=asks, admit_for=admit_for)
        self.reader = Reader(passing)

    def visitor(self, event: Opening) -> Visitor:
        """Who asks to connect: what it shows."""
        query = event.target.partition("?")[2]
        credentials, important = self.reader.read(event.headers, query, event.peer)
        return Visitor(credentials, credentials.shown.query, important=important)

    def ask(self, visitor: Visitor, then: Then) -> Callable[[], object]:
        """See ``Admission``. Where nobody is asked about, it is let in at once."""
        if self._asks:
            return super().ask(visitor, then)
        then(Verdict(SWITCHING), ())
        return nothing


class PlainAdmission(Admission):
    """To a plain backend, where no lane says."""

    check = Trial

    def ask(self, visitor: Visitor, then: Then) -> Callable[[], object]:
        """See ``Admission``. Where nobody is asked about, the backend still chooses of the client's subprotocols."""
        if not self._asks:
            if not visitor.subprotocols:
                then(Verdict(SWITCHING), ())
                return nothing
            return super().ask(visitor.as_nobody(), lambda verdict, _: then(verdict, ()))  # set for nobody
        return super().ask(visitor, then)


def said_of(verdict: Verdict) -> Said:
    """A verdict as another worker is told it."""
    return verdict.status, verdict.body, verdict.subprotocol, max(0.0, verdict.until - monotonic())


def verdict_of(said: Said) -> Verdict:
    """The same as it was told."""
    status, body, subprotocol, holds_s = said
    return Verdict(status, body, subprotocol, monotonic() + holds_s if holds_s > 0 else 0.0)


def is_error(body: bytes) -> bool:
    """Whether the answer to a negotiate is an error in the protocol's own words."""
    if b'"error"' not in body:
        return False
    try:
        answer = msgspec.json.decode(body)
    except Exception:  # it is no answer at all: who connects finds out
        return False
    return isinstance(answer, dict) and "error" in answer
