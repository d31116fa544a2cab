"""The hub: what the application registers, serves with and publishes to. Not here: bytes of any protocol, event loops.

Who may do what where: ``serve`` lives in one task of one event loop, and callbacks run there. ``publish`` and every
other verb may be called from any thread, but for those whose docstring begins with "In the event loop's thread": what
is ``async``, and ``relay_stats``. Before and after serving they raise HubStopped.
"""

import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack

import anyio
from anyio.lowlevel import checkpoint

from fanwire._engine import HeldAddress, Settings
from fanwire._loop import Interrupt, background_tasks, run, watch_signals
from fanwire.addresses import address_of, inherited
from fanwire.admin.config import AdminConfig, config_of
from fanwire.admin.local import addresses_of
from fanwire.asgi import Mounted
from fanwire.asking import OriginAdmission
from fanwire.attaching import Attaching
from fanwire.backbone import PREFIX, OnDown, backbone_of, check_edge, is_origin
from fanwire.channel import Channel
from fanwire.client import Link
from fanwire.entering import AsyncOnly
from fanwire.errors import HubStopped, ListenFailed, WorkersApart
from fanwire.logs import hub_log, log_as_worker
from fanwire.options import (
    OWN,
    WORKER_TIMEOUT_RULE,
    WORKERS_RULE,
    Options,
    check_options,
    count_of_workers,
    signalr_key,
)
from fanwire.presence import check_channels
from fanwire.scope import here
from fanwire.serving import LOOP_CLOSED, STOPPED, Life, Serving, leave, plan
from fanwire.sources.stats import MeasuredSource
from fanwire.stand_in import require_engine, tell_once
from fanwire.values import checked
from fanwire.workers.foreign import path_of_siblings, tell_of_workers
from fanwire.workers.seat import GRACE_S, Seat, Signs, take_seat
from fanwire.workers.siblings import Sibling

if TYPE_CHECKING:
    from fanwire.workers.supervisor import Supervisor

NOT_STARTED = "the hub is not serving yet: do this inside `async with hub.serve(...)`, or after `await hub.start(...)`"

SUPERVISES = "this process is the supervisor of the hub's workers, which serve: publish in one of them"


class Hub(Attaching):
    """A WebSocket and SSE server of channels; Python decides, the Rust engine owns the sockets.

    Args:
        channels: patterns of channel names and what such a channel promises; the first match wins, and a channel that
            matches none, or was never named, has the defaults of ``Channel``.
        workers: ``unix:PATH``, under servers that start several processes of their own (uvicorn, gunicorn, granian):
            the hubs of those that name the same socket are one, as with ``run(workers=N)``, which needs none.
        backbone: the URL of a Redis, Valkey or NATS server: hubs that name the same, on any machines, are one. With TLS
            it is ``rediss://`` or ``tls://``; docs/machines.md has sentinels and clusters. ``fanwire://HOST:PORT`` is
            another hub, the origin: this one is an edge of it, which passes on what is published there.
        backbone_prefix: what names of keys and channels there begin with; hubs with another one have nothing in common.
        backbone_on_down: what becomes of publications while it is out of reach. ``buffer``: they wait for it, up to
            16 MiB; ``fail``: they fail at once; ``local``: they are for clients of this machine alone.
        admin: the admin side, or the address where it listens: docs/admin.md. None: there is none.
        options: defaults for ``serve``, see ``fanwire.options.Options``.

    Raises:
        TypeError, ValueError: a bad pattern, bound or option.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel] | None = None,
        *,
        workers: str | None = None,
        backbone: str | None = None,
        backbone_prefix: str = PREFIX,
        backbone_on_down: OnDown = "buffer",
        admin: AdminConfig | str | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._admin = config_of(admin)
        self._backbone = backbone_of(backbone, backbone_prefix, backbone_on_down, may_be_edge=True)
        self._siblings = None if workers is None else path_of_siblings(workers)
        self._options = check_options(options)
        super().__init__(self._options.get("signalr_paths", OWN["signalr_paths"]))
        # An edge knows no other machine.
        self._has_backbone = self._backbone is not None and not is_origin(self._backbone.url)
        self._channels = check_channels(channels)
        check_edge(self._backbone, (pattern for pattern, channel in self._channels.items() if channel.presence))
        self._life: Life | None = None
        self._supervisor: Supervisor | None = None
        # Where it serves as one of several workers.
        self._seat: Seat | None = None
        # See the supervisor's argument.
        self._program: Mapping[str, Any] | None = None
        # What a file and a command line have set, for the admin side: each with its value and its source.
        self._told_settings: Sequence[tuple[str, str, str]] = ()
        # What a file has read beside.
        self._sources: Sequence[MeasuredSource] = ()
        # What asks the origin about clients, where this is an edge that does.
        self._admission: OriginAdmission | None = None
        # Guards what follows and _is_serving: two threads may serve the same hub, or end it, and signal handlers, too.
        self._serve_lock = threading.RLock()
        # Between the call that serves and its first moment; whether it is to end at once.
        self._is_beginning = self._is_end_wanted = False
        # Why it cannot serve in this process.
        self._forked = ""
        self._unlink(NOT_STARTED)
        _hubs.add(self)

    def __repr__(self) -> str:
        serving = str(self._life.serving) if self._is_serving and self._life else "not serving"
        counts = {
            "channel pattern": len(self._channels),
            "endpoint": len(self._callbacks.endpoints),
            "path": len(self._ways),
            "relay": len(self._relays),
        }
        parts = [f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count]
        return f"<fanwire.Hub {', '.join([serving, *parts])}>"

    # Serving

    async def start(self, address: str | int | None = None, *, shards: int = 1, **options: Unpack[Options]) -> Serving:
        """Begin to serve on `address`; returns ready, the port bound. ``stop`` ends it, from any task of this loop.

        For fixtures and hooks of frameworks, whose setup and teardown may be different tasks; ``serve`` is both as one
        context. The callbacks run in tasks that belong to the loop. Stopped, the hub may serve again (as a new life:
        positions start anew).

        Args:
            address: ``HOST:PORT`` (port 0: any free one), ``[V6]:PORT`` or ``unix:PATH``; a port alone is on
                127.0.0.1, and ``:PORT`` on all addresses. ``fd:N`` is a listening socket that was inherited,
                ``systemd`` those of socket activation. None: nothing listens, all else is as ever.
            shards: threads that own the connections, > 0.
            options: as for ``Hub(...)``, whose values they replace.

        Raises:
            ListenFailed: the address cannot be had.
            RuntimeError: the hub is serving already, or in the process of which this one is a fork.
            TypeError, ValueError: a bad address or option.
        """
        return await self._begin(address, shards, options)

    async def stop(self) -> None:
        """End what ``start`` began: close every client with ``drain_code`` and wait until all is over.

        Clients get ``drain_timeout`` to answer the close. Callbacks that are then still at work are cancelled, the
        caller as well if it is one. Afterwards no thread, task or descriptor is left. Cancelled, it no longer waits for
        clients, and the serving ends by itself. Does nothing where nothing is served.

        Raises:
            What ended the serving before it was asked to, once.
            RuntimeError: this is not the event loop that serves; see ``stop_soon``.
        """
        self._let_go_of_closed()
        life = self._life
        if life is None:
            return
        if not life.is_over and not (get_ident() == life.loop.thread and life.loop.is_current):
            raise RuntimeError(
                "stop is for the event loop that serves: another loop, or another thread calls stop_soon"
            )
        try:
            await life.end()
        finally:
            self._forget(life)

    def stop_soon(self) -> None:
        """Have the serving end as ``stop`` does; any thread, callbacks as well. Returns at once; ``run`` ends, too.

        It counts from the call of ``run``, ``serve`` or ``start`` on: what has only begun ends as soon as it serves.
        """
        with self._serve_lock:
            self._let_go_of_closed()
            life, supervisor = self._life, self._supervisor
            if life is None:
                self._is_end_wanted = self._is_beginning
        if supervisor is not None:
            supervisor.end_soon()
        if life is not None:
            life.end_soon()

    def serve(
        self, address: str | int | None = None, *, shards: int = 1, **options: Unpack[Options]
    ) -> AbstractAsyncContextManager[Serving]:
        """Serve on `address` for as long as the context lasts: ``start`` and ``stop`` as one.

        At its end every client is closed with ``drain_code`` and gets ``drain_timeout`` to answer; ended by
        cancellation or an exception it is at most a second. What ends the serving itself, such as an engine's thread
        that fails, ends the context with that error.

        Arguments and errors are those of ``start``.
        """
        inner = self._served(address, shards, options)
        return AsyncOnly(inner, "hub.serve(...)", "`await hub.start(...)` and `await hub.stop()`")

    @asynccontextmanager
    async def _served(
        self, address: str | int | None, shards: int, options: Mapping[str, Any]
    ) -> AsyncIterator[Serving]:
        serving = await self._begin(address, shards, options)
        life = self._life
        assert life is not None
        try:
            with Interrupt() as life.interrupt:
                yield serving
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await life.leave(is_hurried=True)
            raise
        except BaseException:
            await life.leave(is_hurried=True)
            raise
        else:
            await life.leave()
        finally:
            self._forget(life)

    def asgi(self) -> Mounted:
        """This hub as an ASGI application, to be mounted in yours: ``app.mount("/live", hub.asgi())``.

        It serves on the port and under the path that it is mounted at, by whatever ASGI server: WebSockets, event
        streams, SignalR with all its transports, health. Callbacks see the client's address as the server knows it.
        Where the hub serves already it goes on, else the first request begins it as ``start()`` does: ``lifespan`` says
        when. Any number of times; docs/asgi.md has more.
        """
        return Mounted(self)

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """``start()`` and ``stop()`` as the lifespan of an ASGI application: ``FastAPI(lifespan=hub.lifespan)``.

        In a lifespan of your own, ``async with hub.lifespan():``. Nothing listens; see ``asgi``.

        Args:
            app: the application, as frameworks hand it in; nothing is done with it.
        """
        return AsyncOnly(self._lived(), "hub.lifespan(...)")

    @asynccontextmanager
    async def _lived(self) -> AsyncIterator[None]:
        await self.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self.stop()

    async def _begin(self, address: str | int | None, shards: int, options: Mapping[str, Any]) -> Serving:
        options = {**self._options, **check_options(options)}
        at = None if address is None else address_of(address)
        with self._serve_lock:
            self._let_go_of_closed()
            if self._is_serving and self._link.engine is not None:
                raise RuntimeError("the hub is serving already")
            if self._is_serving:
                under_way = "another start or stop of this hub is under way: wait until it has returned"
                raise RuntimeError(self._forked or under_way)
            self._is_serving = self._is_beginning = True  # from now on nothing is registered
        tell_once()
        seat: Seat | Sibling | None = self._seat
        try:
            if seat is None and self._siblings is not None:
                require_engine("one of several workers")
                seat = Sibling(self._siblings, self._backbone)
            elif seat is None and self._backbone is not None:
                require_engine("a backbone")
                seat = Sibling.alone(self._backbone)
            planned = plan(self._callbacks, self._channels, self._relays, shards, options, seat)
            await checkpoint()
            self._paths = {signalr_key(path): path for path in planned.paths}
            life = Life(planned, self._ways, self._linked, partial(self._unlink, STOPPED), self._ended)
        except BaseException:
            leave(seat)
            self._ended()
            raise
        await life.begin(at)
        if life.engine.worker is None:
            tell_of_workers()
        if self._admin is not None:
            await self._begin_side(life, self._admin)
        return life.serving

    async def _begin_side(self, life: Life, config: AdminConfig) -> None:
        """Have the admin side answer for as long as it is served."""
        from fanwire.admin.desk import MadeWith
        from fanwire.admin.side import Side  # a hub without one does without all of it

        seat = self._seat
        addresses = addresses_of(config, os.environ) if seat is None else list(filter(None, [seat.admin]))
        told = MadeWith(None if self._backbone is None else self._backbone.url, self._told_settings)
        level = logging.DEBUG if seat or config.listen is None else logging.INFO
        is_one_of_several = self._siblings is not None
        side = Side(self, life, config, told, Hub, addresses, level, is_one_of_several=is_one_of_several)
        try:
            await side.begin()
        except BaseException:
            await life.leave(is_hurried=True)
            self._forget(life)
            raise
        life.pump.tasks.start_soon(side.last)
        life.serving = replace(life.serving, admin=tuple(side.bound))

    def run(
        self,
        address: str | int,
        *,
        shards: int = 1,
        workers: int | Literal["auto"] = 0,
        worker_timeout: float = 30.0,
        **options: Unpack[Options],
    ) -> None:
        """Serve until SIGINT, SIGTERM or ``stop_soon``, under uvloop where it can be imported.

        A signal closes every client with 1001 and returns once they are gone or ``drain_timeout`` is over; a second
        one does not wait. In a thread that is not the program's main one there are no signals: ``stop_soon`` ends it.
        Arguments and errors are those of ``start``, but that it needs an address; one that cannot be had ends the
        program, as its user's trouble and not its author's.

        With `workers` this process supervises so many others, which run the same program again up to this call and
        serve in its place: docs/workers.md. It returns when all have ended; so it does in each of them, and what
        stands behind the call is run in all.

        Args:
            workers: processes that serve, 0 to 128, or ``"auto"``: one for each CPU. 0: this one serves.
            worker_timeout: seconds, 1 to 86,400, within which the loop of one has to give a sign, and it has to serve
                when it starts (there 30 at least); one that does not is killed, and replaced.

        Raises:
            RuntimeError: the program cannot be run again, or this is not its main thread; with `workers` alone.
            SystemExit: the address cannot be had; Python then prints one line and exits with 1. The ListenFailed is its
                ``__cause__``. In another thread than the main one, where nothing would be printed, it is raised itself.
        """

        address_of(address)  # a None as well is refused
        require_engine(f"serving on {address}")
        checked("workers", workers, WORKERS_RULE)
        checked("worker_timeout", worker_timeout, WORKER_TIMEOUT_RULE)
        seat = take_seat() if workers else None
        try:
            if workers and seat is None:
                self._supervise(address, shards, count_of_workers(workers), worker_timeout, options)
            else:
                if seat is not None:
                    log_as_worker(seat.number)
                self._run(seat.listen if seat else address, shards, seat, options)
        except (ListenFailed, WorkersApart) as error:
            if threading.current_thread() is not threading.main_thread():
                raise
            raise SystemExit(f"fanwire: {error}") from error

    def _run(self, address: str | int, shards: int, seat: Seat | None, options: Options) -> None:
        async def main() -> None:
            ending = anyio.Event()
            async with background_tasks() as tasks:
                if threading.current_thread() is threading.main_thread():
                    await tasks.start(watch_signals, ending.set, tasks.cancel_scope.cancel)
                async with self.serve(address, shards=shards, **options) as serving:
                    hub_log.info("%s with %s", serving, serving.poller)
                    if seat is not None:
                        tasks.start_soon(self._sit(seat, tasks.cancel_scope.cancel).beat)
                    tasks.start_soon(self._tell_of_end, ending)
                    await ending.wait()
                    hub_log.info("draining")

        with self._serve_lock:
            self._is_beginning = not self._is_serving
        self._seat = seat
        try:
            run(main)
        finally:
            self._seat = None
            if not self._is_serving:
                self._is_beginning = self._is_end_wanted = False

    def _sit(self, seat: Seat, cancel: Callable[[], object]) -> Signs:
        """Tell the supervisor that this worker serves; end when it asks for it, and with it."""
        signs, life = Signs(seat), self._life
        assert life is not None

        def hurry() -> None:
            with suppress(RuntimeError):  # the loop has ended
                life.loop.call_from_any_thread(cancel)

        signs.watch(self.stop_soon, hurry, life.grace_s + GRACE_S)
        signs.ready()
        return signs

    def _supervise(
        self, address: str | int, shards: int, count: int, timeout_s: float, options: Mapping[str, Any]
    ) -> None:
        from fanwire.workers.supervisor import Supervisor  # for this alone: processes, sockets and folders

        with self._serve_lock:
            if self._is_serving:
                raise RuntimeError("the hub is serving already")
            self._is_serving = self._is_beginning = True
        try:
            options = {**self._options, **check_options(options)}
            planned = plan(self._callbacks, self._channels, self._relays, shards, options)
            held, admin = HeldAddress(planned.settings, inherited(address_of(address))), self._held_for_admin()
            try:
                supervisor = Supervisor(
                    held, count, timeout_s, planned.grace_s, planned.settings, self._program, self._backbone, admin
                )
                with self._serve_lock:
                    self._unlink(SUPERVISES)
                    self._supervisor = supervisor
                    if self._is_end_wanted:
                        supervisor.end_soon()
                supervisor.run()
            finally:
                for one in (held, *admin):
                    one.close()
        finally:
            with self._serve_lock:
                self._supervisor = None
                self._ended()
                self._unlink(NOT_STARTED)

    def _held_for_admin(self) -> list[HeldAddress]:
        """Where the workers' admin sides listen."""
        addresses = () if self._admin is None else addresses_of(self._admin, os.environ)
        held = [HeldAddress(Settings(unix_mode=0o600), inherited(one)) for one in addresses]
        if held and self._admin is not None and self._admin.listen is not None:
            hub_log.info("the admin side is at %s", " and ".join(one.address for one in held))
        return held

    async def _tell_of_end(self, ending: anyio.Event) -> None:
        if self._life is not None:
            await self._life.wait_asked()  # by the one that serves now
        ending.set()

    def _linked(self, life: Life) -> None:
        with self._serve_lock:
            self._life = self._served_paths = life
            self._is_beginning = False
            if self._is_end_wanted:
                life.end_soon()
        self._link = life.link
        self._link.thread, self._link.loop = life.loop.thread, life.loop
        self._link.lost = self._let_go_of_closed
        here.hubs.add(self)
        self._publish = life.engine.publish
        self._engine_flush = life.engine.flush
        self._call_soon = life.loop.call_soon
        self._is_flush_due = False
        self._thread = life.loop.thread
        self._relay_stats = life.pump.relay_stats
        self._members = life.pump.presences.members
        self._roster = _unknown
        if self._callbacks.know_clients:
            self._roster = life.pump.application.roster.clients
        self._delivered = life.pump.deliveries.wait
        self._occupancy = life.pump.presences.occupancy
        self._across = lambda: life.pump.across
        self._listeners = lambda: life.pump.listeners
        self._attachments = life.pump.attachments
        for source in self._sources:
            life.pump.read_beside(source, self)
        if self._admission is not None:
            self._admission.begin(life.pump.upstreams, life.handshake_timeout)

    @property
    def _is_here(self) -> bool:
        """Whether it serves in the event loop that runs."""
        link = self._link
        return link.engine is not None and link.loop is not None and link.thread == get_ident() and link.loop.is_current

    def _forget(self, life: Life) -> None:
        """Whoever ended it has been told all: its engine may go."""
        if self._life is life and life.is_over:
            self._life = None

    def _let_go_of_closed(self) -> None:
        """End what serves where its loop was closed: none of its tasks can."""
        with self._serve_lock:
            life = self._life
            if life is not None and not life.is_over and life.loop.is_closed:
                self._life = None
                life.forsake()
                self._unlink(LOOP_CLOSED)
                hub_log.error("%s ended: %s", life.serving, LOOP_CLOSED)

    def _lose_loop(self) -> None:
        self._let_go_of_closed()
        self._link.require()

    def _ended(self) -> None:
        self._ways.end()
        self._is_serving = self._is_beginning = self._is_end_wanted = False

    def _unlink(self, why: str) -> None:
        def refuse(*arguments: object, **named: object) -> NoReturn:
            raise HubStopped(why)

        self._thread = -1
        self._served_paths = self._attachments = None
        self._link = Link(None, why)
        self._publish = refuse
        self._relay_stats = refuse
        self._members = refuse
        self._roster = refuse
        self._delivered = refuse
        self._occupancy = refuse
        self._across = refuse
        self._listeners = refuse
        self._engine_flush = refuse


def _unknown(user: str | None) -> NoReturn:
    raise LookupError(
        "the hub knows its clients where authenticate, authorize, on_connect or on_disconnect is registered; none is"
    )


_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()
"""Those of this process, for _after_fork."""


def _after_fork() -> None:
    """The engine's threads stayed in the parent: what the child inherited refuses, and says what to do."""
    for hub in _hubs:
        if hub._is_serving:
            why = (
                f"this hub serves in process {os.getppid()}, of which this one is a fork; "
                "make a new Hub here, or publish through the other process"
            )
            hub._link.end(why, is_forked=True)
            hub._unlink(why)
            hub._ways.end()
            hub._forked = why
            hub._serve_lock = threading.RLock()  # a thread that stayed behind may have held it
            hub._life = None  # its loop's wake-up is the parent's, too: nothing here may touch it


if hasattr(os, "register_at_fork"):  # Windows knows no fork
    os.register_at_fork(after_in_child=_after_fork)
