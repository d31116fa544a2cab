"""Connections to a backend, by number, and who hears of each. Not here: bytes of any protocol, lanes.

The connections themselves live in the engine's upstream thread; what they carry goes from there to the clients without
coming by here.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from fanwire._engine import FAILING_STATUSES, Engine, Roots, Upstream
from fanwire._loop import ends_task
from fanwire.endings import Endings
from fanwire.faults import Faults
from fanwire.relay.readiness import Readiness
from fanwire.timings import LaneTracing
from fanwire.workers.bus import Bus

HeaderFields = Sequence[tuple[str, str]]
REFUSING = (401, 403)
"""Statuses with which a backend says that a connection is not for this one."""


FAILING = FAILING_STATUSES
"""Statuses of a negotiate with which a server is as good as down: another one is asked."""


BAD_REQUEST = 400
"""What a client is answered whose query or headers cannot be sent to any server."""


DESCRIPTORS_PART = 2
"""Connections to backends have one in so many of the process's descriptors: half, so that clients have the rest."""


class ServerHealth(Protocol):
    """Where it is noted how a backend's servers do; see ``servers``."""

    def reached(self, index: int, took_s: float | None = None, *, is_own: bool) -> None:
        """A connection was had: of fanwire's own, or in a client's name. It took so many seconds, with all attempts."""

    def failed(self, index: int, why: str, *, is_own: bool) -> None:
        """A connection could not be had."""


def status_of(event: Upstream) -> int | None:
    """With which status a client is refused that asked for a plain session; None where there is none to be had."""
    return BAD_REQUEST if event.fault == "request" else event.status


class SessionHandler:
    """Whose a session is. Every event of it is told to the handler, which overrides what it wants to hear.

    ``closed`` is the last.
    """

    __slots__ = ()

    def fail(self) -> None:
        """Something went wrong that nobody expected, and is noted: end what it belongs to, and tell who waits."""

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands; ``subprotocol`` is what a plain one chose."""

    def completed(self, event: Upstream) -> None:
        """A call of ours has ended: ``id``, ``outcome`` and ``body``."""

    def happened(self, event: Upstream) -> None:
        """Anything else; see ``Upstream.kind``."""

    def closed(self, event: Upstream) -> None:
        """The session is over, or could not be had: ``text``, ``status``, ``may_reconnect``, ``pending``."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where sessions go and how long they may take; see ``config``."""

    urls: Sequence[str]
    negotiates: bool
    keepalive: float
    server_timeout: float
    connect_timeout: float
    record_bytes_max: int
    queue_bytes_max: int
    headers: HeaderFields = field(default=(), repr=False)
    roots: Roots | None = None
    """By whom the servers' certificates are to be signed; the system's where it is None."""
    health: ServerHealth | None = field(default=None, repr=False, compare=False)


class Upstreams:
    """The sessions of one relay."""

    def __init__(self, sessions: "Sessions") -> None:
        self._sessions = sessions
        self.faults = sessions.faults
        """Where what goes wrong in any relay of this serving is noted."""
        self.endings = sessions.endings
        """How clients are told that something is over."""
        self.readiness = sessions.readiness
        """What ``/readyz`` is to say of the relays."""
        self.tracing = sessions.tracing
        """Who wants to know how long lanes take, if anybody does."""

    @property
    def engine(self) -> Engine:
        """What has them; until it has ended."""
        return self._sessions.engine

    def __len__(self) -> int:
        """How many all relays have."""
        return len(self._sessions)

    @property
    def count_max(self) -> int:
        """How many all relays may have: their part of the process's descriptors."""
        return self._sessions.count_max

    def end(self) -> None:
        """Close those of this relay; nobody hears of them any more."""
        for session in self._sessions.forget_all_of(self):
            self.close(session)

    def open(
        self,
        handler: SessionHandler,
        backend: Backend,
        protocol: str,
        route: tuple[Any, ...],
        *,
        headers: HeaderFields = (),
        urls: Sequence[str] | None = None,
        idle: float | None = None,
        is_own: bool = True,
    ) -> int:
        """Begin a session and give its number; what is sent to it at once goes out behind the handshake.

        It is fanwire's own where nothing of it is a client's: no header, no query, no subprotocol.
        """
        kind = {"negotiates": backend.negotiates, "record_bytes_max": backend.record_bytes_max}
        begin = self.engine.upstream_open
        return self._open(begin, handler, backend, protocol, route, headers, urls, idle, is_own=is_own, **kind)

    def open_plain(
        self,
        handler: SessionHandler,
        backend: Backend,
        subprotocols: Sequence[str],
        route: tuple[Any, ...],
        *,
        headers: HeaderFields = (),
        urls: Sequence[str] | None = None,
        idle: float | None = None,
    ) -> int:
        """As ``open``, with a plain WebSocket backend, and in a client's words: its query, or its subprotocols."""
        begin, offered = self.engine.upstream_open_plain, list(subprotocols)
        bytes_max = backend.record_bytes_max
        return self._open(
            begin, handler, backend, offered, route, headers, urls, idle, is_own=False, message_bytes_max=bytes_max
        )

    def _open(
        self,
        begin: Callable[..., None],
        handler: SessionHandler,
        backend: Backend,
        spoken: str | list[str],
        route: tuple[Any, ...],
        headers: HeaderFields,
        urls: Sequence[str] | None,
        idle: float | None,
        *,
        is_own: bool,
        **of_kind: Any,
    ) -> int:
        session = self._sessions.number(handler, self, backend.health, is_own=is_own)
        self._begin(
            begin,
            session,
            list(urls or backend.urls),
            [*backend.headers, *headers],
            spoken,
            route,
            keepalive=backend.keepalive,
            server_timeout=backend.server_timeout,
            connect_timeout=backend.connect_timeout,
            idle=idle,
            queue_bytes_max=backend.queue_bytes_max,
            roots=backend.roots,
            **of_kind,
        )
        return session

    def negotiate(
        self, handler: SessionHandler, url: str, headers: HeaderFields, timeout: float, roots: Roots | None
    ) -> int:
        """Ask a backend what it would answer to these credentials; ``happened`` hears of ``negotiated``, once.

        ``close`` calls it off.
        """
        session = self._sessions.number(handler, self)
        self._begin(self.engine.upstream_negotiate, session, url, list(headers), timeout, roots)
        return session

    def _begin(self, begin: Callable[..., None], session: int, *arguments: Any, **named: Any) -> None:
        try:
            begin(session, *arguments, **named)
        except BaseException:  # there will be no ``closed``
            self._sessions.forget(session)
            raise

    def send(self, session: int, records: bytes) -> int | None:
        """Queue whole records; gives how many bytes wait, None where the session is closed or closing."""
        return self.engine.upstream_send(session, records)

    def send_message(self, session: int, data: bytes, *, is_text: bool) -> int | None:
        """As ``send``, one message for a plain backend."""
        return self.engine.upstream_send_message(session, data, is_text)

    def close(self, session: int, farewell: tuple[int, str] | None = None) -> None:
        """End a session, with this code and reason in the Close frame; ``closed`` is told all the same."""
        for _ in range(2):  # nobody is to keep one that nobody has
            with self.faults.contained("relay.close", "a session could not be closed"):
                self.engine.upstream_close(session, farewell)
                return


def descriptors_max() -> int:
    """How many files this process may have open."""
    try:
        import resource
    except ImportError:  # Windows, where there is no such bound and no relay
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class Sessions:
    """Those of one serving, by number, and who hears of each."""

    def __init__(
        self,
        engine: Engine,
        faults: Faults,
        endings: Endings,
        bus: Bus | None = None,
        tracing: LaneTracing | None = None,
    ) -> None:
        self.engine, self.faults, self.endings, self.tracing = engine, faults, endings, tracing
        self.count_max = descriptors_max() // DESCRIPTORS_PART
        """How many there may be: clients' connections and health checks have to find a descriptor, too."""
        self.readiness = Readiness(self, bus)
        self._handlers: dict[int, tuple[SessionHandler, Upstreams]] = {}
        # Of sessions that are opening: where it is noted, whether it is in nobody's name, and when it began.
        self._opening: dict[int, tuple[ServerHealth, bool, float]] = {}
        self._newest = 0

    def __len__(self) -> int:
        return len(self._handlers)

    def let_go(self) -> None:
        """Hold the engine no longer: all that relays have, in whatever circles, has it from here. The last call."""
        del self.engine

    def number(
        self, handler: SessionHandler, of: Upstreams, health: ServerHealth | None = None, *, is_own: bool = False
    ) -> int:
        """The number of a session that begins."""
        self._newest += 1
        self._handlers[self._newest] = handler, of
        if health is not None:
            self._opening[self._newest] = health, is_own, monotonic()
        return self._newest

    def forget(self, session: int) -> None:
        """Nobody hears of it any more."""
        del self._handlers[session]
        self._opening.pop(session, None)

    def forget_all_of(self, upstreams: Upstreams) -> list[int]:
        """The same of all of one relay; gives their numbers."""
        theirs = [session for session, (_, of) in self._handlers.items() if of is upstreams]
        for session in theirs:
            self.forget(session)
        return theirs

    def dispatch(self, event: Upstream) -> None:
        """Tell the handler. What goes wrong there ends what is the handler's, and the others go on."""
        handler, _ = self._handlers.get(event.session, (None, None))
        if handler is None:
            return
        self._note(event)
        try:
            self._tell(handler, event)
        except BaseException as error:
            if ends_task(error):
                raise
            self.faults.note("relay.upstreams", error, "a backend's %r could not be dealt with", event.kind)
            with self.faults.contained("relay.fail", "what it belongs to could not be ended"):
                handler.fail()

    def _note(self, event: Upstream) -> None:
        """How the server did that was to be had."""
        if event.kind == "unreached":
            health, is_own, _ = self._opening.get(event.session, (None, False, 0.0))
            if health is not None:
                with self.faults.contained("relay.servers", "how an upstream does could not be noted"):
                    health.failed(event.url_index, event.text, is_own=is_own)
        elif event.kind in ("opened", "closed"):
            health, is_own, since = self._opening.pop(event.session, (None, False, 0.0))
            if health is not None and event.kind == "opened":
                with self.faults.contained("relay.servers", "how an upstream does could not be noted"):
                    health.reached(event.url_index, monotonic() - since, is_own=is_own)

    def _tell(self, handler: SessionHandler, event: Upstream) -> None:
        match event.kind:
            case "opened":
                handler.opened(event)
            case "completion":
                handler.completed(event)
            case "closed":
                del self._handlers[event.session]
                handler.closed(event)
            case "unreached":
                pass
            case "negotiated":
                del self._handlers[event.session]
                handler.happened(event)
            case _:
                handler.happened(event)
