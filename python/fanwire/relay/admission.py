"""Who may connect to a relay: whoever the backend would let in. ✗ what they do then.

A client's credentials are what it sends: headers and the query. Nothing here reads them; they are passed on to the
backend as they are, they are in no ``repr``, and what is remembered of them is a hash.
"""

import secrets
from base64 import urlsafe_b64decode
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from math import inf
from time import monotonic, time
from typing import Generic, Protocol, TypeVar
from urllib.parse import parse_qsl

import anyio
import msgspec

from fanwire._engine import Upstream
from fanwire.auth import Identity, Refused, Request
from fanwire.logs import relay_log
from fanwire.relay.headers import Passing
from fanwire.relay.queries import with_query, without
from fanwire.relay.upstreams import FAILING, REFUSING, Headers, Owner, Target, Upstreams

OWN_HEADERS = ("authorization", "cookie")
"""Who a client is: with one of them it is more than anybody."""
OF_CONNECTION = ("id", "negotiateVersion", "useStatefulReconnect")
"""Of a client's query, what is between it and fanwire."""
REMEMBERED_BYTES_MAX = 8 << 20
"""Of answers that are remembered, by set of credentials: some 25,000, where the backend's errors have no words."""
REMEMBERED_BYTES = 320
"""Of one, without the backend's words: measured, with room."""
MAX_EXPIRY = 1e12
"""Of a JWT; what is later is as good as never."""
ASKING_PART = 0.8
"""Of the time for a handshake, what the backend has to say whether it may be."""


class RefusedByBackend(Refused):
    """The backend's negotiate was answered with an error of its own, which the client is to read."""

    def __init__(self, body: bytes) -> None:
        super().__init__("refused by the backend")
        self.body = body


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client showed, and what the backend is to know of it."""

    headers: Headers = field(repr=False)
    query: str = field(repr=False)
    """As sent, without what is between the client and fanwire."""
    has_token: bool
    """In the query."""
    important: tuple[tuple[str, str], ...] = field(repr=False)
    """Those of the headers by which the backend may tell one client from another."""

    @property
    def are_any(self) -> bool:
        """Whether the client is more than anybody."""
        return self.has_token or any(name in OWN_HEADERS for name, _ in self.headers)

    def urls(self, urls: Sequence[str]) -> list[str]:
        """The backend's addresses with the client's query."""
        return with_query(urls, self.query)

    def key(self) -> tuple[object, ...]:
        """Equal for clients that are the same to the backend."""
        return (self.query, *self.important)

    def expires_in(self) -> float:
        """Seconds until a token among them expires, as the token says; infinite where none says so."""
        tokens = [value.partition(" ")[2] for name, value in self.headers if name == "authorization"]
        tokens += [value for name, value in parse_qsl(self.query) if name == "access_token"]
        return min((expiry_of(token) for token in tokens), default=inf) - time()


def expiry_of(token: str) -> float:
    """A JWT's ``exp`` (RFC 7519 §4.1.4), in seconds since 1970; infinite of what is none. Nothing is verified."""
    claims = token.strip().split(".")[1:2]
    try:
        expiry = msgspec.json.decode(urlsafe_b64decode(claims[0] + "==")).get("exp")
    except Exception:  # whatever a stranger wrote there, nested without end too: it is no JWT
        return inf
    is_number = isinstance(expiry, int | float) and not isinstance(expiry, bool)
    return float(max(min(expiry, MAX_EXPIRY), 0)) if is_number else inf


def credentials_of(request: Request, passing: Passing) -> Credentials:
    """What a request shows, by a relay's rules."""
    headers = passing.end_to_end(request)
    query = without(request._query_text, OF_CONNECTION)
    has_token = "access_token" in query and bool(request.query.get("access_token"))
    return Credentials(headers, query, has_token, passing.important(headers))


class Lasting(Protocol):
    """What is remembered until a time of ``monotonic``."""

    until: float

    @property
    def extra_bytes(self) -> int:
        """What it holds beside numbers."""


A = TypeVar("A", bound=Lasting)


class Memory(Generic[A]):
    """The backend's answers by what was shown: a keyed hash, so that no secret is kept."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._answers: OrderedDict[bytes, A] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def hash(self, shown: tuple[object, ...]) -> bytes:
        """What is kept instead of it."""
        return blake2b(repr(shown).encode(), key=self._secret, digest_size=32).digest()

    def get(self, hash: bytes) -> A | None:
        """The answer, if it still holds."""
        answer = self._answers.get(hash)
        return None if answer is None or answer.until <= monotonic() else answer

    def put(self, hash: bytes, answer: A) -> None:
        """Remember one; those whose time is over are forgotten, and the oldest where there is no room."""
        self._forget(hash)
        self._answers[hash] = answer
        self._bytes += _cost_of(answer)
        now = monotonic()
        while self._answers:
            oldest, other = next(iter(self._answers.items()))
            if other.until > now and self._bytes <= REMEMBERED_BYTES_MAX:
                return
            self._forget(oldest)

    def _forget(self, hash: bytes) -> None:
        answer = self._answers.pop(hash, None)
        if answer is not None:
            self._bytes -= _cost_of(answer)


def _cost_of(answer: Lasting) -> int:
    """What remembering it takes, with its hash and its place, in bytes."""
    return answer.extra_bytes + REMEMBERED_BYTES


def is_lasting(status: int) -> bool:
    """Whether it lets in or does not; any other may have been the backend's bad moment."""
    return 100 <= status < 300 or status in REFUSING


@dataclass(slots=True)
class Answer:
    """What the backend said to a negotiate."""

    status: int
    body: bytes = field(repr=False)
    """Of an error in the protocol's own words; empty otherwise."""
    until: float
    """How long it holds."""

    @property
    def extra_bytes(self) -> int:
        """What it holds beside numbers."""
        return len(self.body)

    @property
    def is_good(self) -> bool:
        """Whether whoever shows the same may connect."""
        return 200 <= self.status < 300 and not self.body


class Question(Owner):
    """What credentials are good for: asked of one of the backend's addresses after the other, until one answers."""

    def __init__(self, admission: "Admission", hash: bytes, credentials: Credentials) -> None:
        self._admission = admission
        self._hash = hash
        self._credentials = credentials
        self._urls = deque(admission.urls_for(credentials))
        self._came = anyio.Event()
        self._answer = Answer(0, b"", 0.0)
        self.cookies: list[str] = []
        """What the answer sets: for the client that was asked for, and nobody who shows the same."""
        self._waiting = 0
        self._is_off = False
        self._ask()

    async def wait(self) -> Answer:
        """The answer. When all who wait were cancelled, it is called off."""
        self._waiting += 1
        try:
            await self._came.wait()
        finally:
            self._waiting -= 1
            if not self._waiting and not self._came.is_set():
                self._is_off = True
                self._admission.call_off(self._hash, self._session)
        return self._answer

    def _ask(self) -> None:
        self._index, url = self._urls.popleft()
        self._session = self._admission.ask(self, url, self._credentials.headers)

    def happened(self, event: Upstream) -> None:
        """It came; of a server that is down, or as good as that, the next is asked."""
        if self._is_off:
            return  # nobody wants it, and it says nothing of the server
        status, is_failing = event.status or 0, not event.status or event.status in FAILING
        self._admission.note(self._index, event, is_failing=is_failing)
        if not is_failing or not self._answer.status:
            self._answer = Answer(status, event.body if is_error(event.body) else b"", 0.0)
            self.cookies = event.cookies
        if is_failing and self._urls:
            self._ask()
            return
        self._end()

    def fail(self) -> None:
        """Who waits is turned away."""
        self._end()

    def _end(self) -> None:
        self._admission.answered(self._hash, self._answer, self._index, self._credentials)
        self._came.set()


class Admission:
    """Asks the backend once for each set of credentials, and remembers its answer for a while."""

    def __init__(
        self,
        upstreams: Upstreams,
        target: Target,
        *,
        asks: bool,
        passing: Passing,
        admit_for: float,
        handshake_timeout: float,
    ) -> None:
        self._upstreams = upstreams
        self._target = target
        self._asks = asks
        self._passing = passing
        self._admit_for = admit_for
        # Who opens a connection waits no longer than for its handshake, and is to be told why.
        self._timeout = min(target.connect_timeout, ASKING_PART * handshake_timeout) / len(target.urls)
        self._first = 0
        self._remembered: Memory[Answer] = Memory()
        self._asked: dict[bytes, Question] = {}
        # Of questions that nobody else may share.
        self._numbers = count()
        self._has_told_of_cookies = False

    def recall(self, request: Request) -> Identity | None:
        """What ``admit`` would give, where the backend's answer is remembered and good; None where it is asked."""
        credentials = credentials_of(request, self._passing)
        if self._asks:
            answer = self._remembered.get(self._remembered.hash(credentials.key()))
            if answer is None or not answer.is_good:
                return None
        return Identity(None, {"credentials": credentials})

    async def admit(self, request: Request) -> Identity:
        """The client's identity, its credentials as a claim.

        Raises:
            Refused: the backend lets nobody in who shows these, or cannot be asked.
        """
        credentials = credentials_of(request, self._passing)
        identity = Identity(None, {"credentials": credentials})
        if not self._asks:
            return identity
        answer, cookies = await self._answer(credentials)
        self._give(cookies, request)
        if answer.status == 0:
            raise Refused("the backend cannot be reached", status=503)
        if answer.status >= 300:
            status = answer.status if 400 <= answer.status < 600 else 502
            raise Refused("", status=status)
        if request.method == "POST" and answer.body:
            raise RefusedByBackend(answer.body)
        return identity

    async def _answer(self, credentials: Credentials) -> tuple[Answer, Sequence[str]]:
        """What the backend says of these, and the cookies that are this client's: none that were another's."""
        # Where nothing is to be remembered, not even a moment is: each client is asked about for itself.
        hash = self._remembered.hash(credentials.key() if self._admit_for else (next(self._numbers),))
        answer = self._remembered.get(hash)
        if answer is not None:
            return answer, ()
        question = self._asked.get(hash)
        if question is not None:
            return await question.wait(), ()
        question = self._asked[hash] = Question(self, hash, credentials)
        return await question.wait(), question.cookies

    def _give(self, cookies: Sequence[str], request: Request) -> None:
        for cookie in cookies:
            try:
                request.response_headers.add("Set-Cookie", cookie)
            except ValueError as error:  # no answer can carry it, or it is one too many
                if not self._has_told_of_cookies:
                    self._has_told_of_cookies = True
                    upstream = self._target.urls[0].partition("?")[0]
                    relay_log.warning("a cookie of %s is not passed on (this is said once): %s", upstream, error)

    # What its questions do

    def urls_for(self, credentials: Credentials) -> list[tuple[int, str]]:
        """Whom to ask, with their indexes; first the one that answered last."""
        urls = list(enumerate(credentials.urls(self._target.urls)))
        return urls[self._first :] + urls[: self._first]

    def ask(self, question: Question, url: str, headers: Headers) -> int:
        """Have one of them asked; gives its session."""
        return self._upstreams.negotiate(question, url, headers, self._timeout, self._target.roots)

    def call_off(self, hash: bytes, session: int) -> None:
        """Nobody waits for a question any more."""
        self._asked.pop(hash, None)
        self._upstreams.close(session)

    def note(self, index: int, event: Upstream, *, is_failing: bool) -> None:
        """How the server did that was asked, in a client's name."""
        standing = self._target.standing
        if standing is not None and is_failing:
            why = f"negotiate was answered with status {event.status}" if event.status else event.body.decode()
            standing.failed(index, why, is_own=False)
        elif standing is not None:
            standing.reached(index, is_own=False)

    def answered(self, hash: bytes, answer: Answer, index: int, credentials: Credentials) -> None:
        """Remember the answer; not one that may have been the backend's bad moment: the next client asks again."""
        self._asked.pop(hash, None)
        if answer.status and answer.status not in FAILING:
            self._first = index
        if is_lasting(answer.status):
            answer.until = monotonic() + min(self._admit_for, credentials.expires_in())
            self._remembered.put(hash, answer)


def is_error(body: bytes) -> bool:
    """Whether the answer to a negotiate is an error in the protocol's own words."""
    if b'"error"' not in body:
        return False
    try:
        answer = msgspec.json.decode(body)
    except Exception:  # it is no answer at all: who connects finds out
        return False
    return isinstance(answer, dict) and "error" in answer
