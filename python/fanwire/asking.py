"""An edge asks the origin about its clients, each time in a client's own words: its headers and its query.

The question is a WebSocket's opening that offers ``ASKS`` as a subprotocol and names one channel. The origin answers as
it does to any client that asks to watch that, by its own ``authenticate`` and ``authorize``, but with a status where it
would have opened. What the edge itself shows the origin is in no question.
"""

import re
from collections.abc import Sequence
from urllib.parse import quote

import anyio

from fanwire._engine import matches
from fanwire.auth import ASKS, EDGES, MSGPACK, Request
from fanwire.client import Client
from fanwire.errors import Refused
from fanwire.relay.admit import ASKING_PART, PlainAdmission, Verdict
from fanwire.relay.credentials import Reader, Visitor
from fanwire.relay.headers import UNIMPORTANT, Passing, without
from fanwire.relay.upstreams import FAILING, REFUSING, Backend, Upstreams

YES = (204, 101)
"""What an origin answers that may be watched: 204, or where it asks nobody an open WebSocket, which is closed again."""
OF_CONNECTION = ("channel", "since", "start", "envelope", "format", "filter")
"""Of a client's query, what is between it and the edge."""
QUESTIONS_MAX = 256
"""Questions that are under way at once, in each worker; others wait."""
CONNECT_TIMEOUT_S = 15.0
MESSAGE_BYTES_MAX = 1 << 20
AWAY = "the origin is away"


class OriginAdmission:
    """Asks, for one hub. All but its making is of one serving, and in its loop.

    Args:
        url: the origin's, as ``Hub(backbone=...)`` takes it.
        public: patterns of channels that anyone may watch: about these nobody is asked.
        admit_for: seconds for which an answer is remembered, for those who show the same; with 0 each is asked about.
        admit_ignore: headers by which the origin does not decide.
        trusted_proxies: who may say where a client comes from.
    """

    def __init__(
        self,
        url: str,
        *,
        public: Sequence[str] = (),
        admit_for: float = 60.0,
        admit_ignore: Sequence[str] = UNIMPORTANT,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self._public, self._admit_for, self._urls = public, admit_for, question_urls(url)
        self._reader = Reader(Passing.of((), trusted_proxies, (*admit_ignore, "last-event-id")))
        self._admission: PlainAdmission | None = None
        self._room: anyio.Semaphore

    def begin(self, upstreams: Upstreams, handshake_timeout: float) -> None:
        """A serving begins: who opens a connection waits no longer than for its handshake, and is to be told why."""
        connect_timeout = min(CONNECT_TIMEOUT_S, ASKING_PART * handshake_timeout)
        backend = Backend(self._urls, False, 15.0, 30.0, connect_timeout, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX)
        self._admission = PlainAdmission(upstreams, backend, asks=True, admit_for=self._admit_for)
        self._room = anyio.Semaphore(QUESTIONS_MAX)

    async def authorize(self, client: Client, channel: str) -> bool:
        """Whether a client may watch a channel.

        Raises:
            Refused: it is not known who the client is, or nobody can say.
        """
        if any(matches(pattern, channel) for pattern in self._public):
            return True
        verdict = await self._ask(self._visitor(client.request, channel))
        if verdict.status in YES:
            return True
        if verdict.status == 401:
            raise Refused("the origin does not know who this is", status=401)
        if verdict.status not in REFUSING:
            why = AWAY if verdict.status in (0, *FAILING) else f"the origin answered with status {verdict.status}"
            raise Refused(f"nobody can say who may watch {channel!r}: {why}", status=503)
        return False

    def _visitor(self, request: Request, channel: str) -> Visitor:
        """A client as the origin is to see it."""
        own = without(request._query_text, OF_CONNECTION)
        query = "&".join(filter(None, (own, f"channel={quote(channel, safe='')}&start=live")))
        credentials, important = self._reader.read(request._header_pairs, query, request.peer)
        offered = (name for name in request.subprotocols if name not in (MSGPACK, *EDGES))
        return Visitor(credentials, query, (*offered, ASKS), important)

    async def _ask(self, visitor: Visitor) -> Verdict:
        assert self._admission is not None  # it serves
        answered, verdicts = anyio.Event(), list[Verdict]()

        def hear(verdict: Verdict, cookies: Sequence[str]) -> None:
            verdicts.append(verdict)
            answered.set()

        async with self._room:
            call_off = self._admission.ask(visitor, hear)
            try:
                await answered.wait()
            finally:
                if not verdicts:
                    call_off()
        return verdicts[0]


def question_urls(origin: str) -> list[str]:
    """Where an origin is asked, without what the edge itself shows it: ``fanwire://token@a:8000,b/live?x`` is
    ``ws://a:8000/live`` and ``ws://b:8000/live``."""
    scheme, _, rest = origin.partition("://")
    authority, path = re.match(r"([^/?]*)([^?]*)", rest).groups()  # type: ignore[union-attr]  # it matches anything
    to, port = ("wss", 443) if scheme == "fanwires" else ("ws", 8000)
    hosts = authority.rpartition("@")[2].split(",")
    places = (host if re.search(r":\d+$", host) else f"{host}:{port}" for host in hosts)
    return [f"{to}://{place}{path if path.strip('/') else '/ws'}" for place in places]
