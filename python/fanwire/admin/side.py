"""The admin side of one serving: a hub of its own, with a listener and a thread of its own, whose requests are answered
about the hub that is watched. Not here: what each endpoint does.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from errno import EADDRINUSE
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import msgspec

from fanwire._engine import Asking, Engine, Route
from fanwire._loop import ends_task
from fanwire.admin.acting import Acting
from fanwire.admin.channels import Channels
from fanwire.admin.clients import Clients
from fanwire.admin.config import AdminConfig
from fanwire.admin.console import console_answer, console_files
from fanwire.admin.desk import Desk, MadeWith
from fanwire.admin.door import SLOWED, AdminDoor
from fanwire.admin.live import Live
from fanwire.admin.once import Once
from fanwire.admin.openapi import document
from fanwire.admin.overview import Overview
from fanwire.admin.problems import CONTENT_TYPE, Problem, problem_of
from fanwire.admin.settings import SettingsRoom
from fanwire.admin.table import ENDPOINTS, OPENAPI, Operation
from fanwire.attaching import Attaching
from fanwire.errors import ListenFailed
from fanwire.faults import Tasks
from fanwire.logs import hub_log
from fanwire.owner import Owner
from fanwire.serving import Life
from fanwire.wording import INTERNAL_ERROR
from fanwire.workers.bus import NUMBERS

JSON = "application/json"
BODY_BYTES_MAX = 16 << 20
"""Of a request: a thousand publications, or one large one."""
LOOK_S = 1.0
"""So often a process that could not have an address looks whether it is free."""
AT_WORK_MAX = 64
"""Requests that are worked on at once; who comes then is told so."""
OF_ALL_HUBS = ("/", "/ws", "/events", "/metrics")
"""Paths that every hub begins with, and that the admin side has not."""
OPTIONS: Mapping[str, Any] = {
    "signalr_paths": (),
    "poller": "epoll",
    "channels_max": 1_024,
    "unix_mode": 0o600,
    "body_bytes_max": BODY_BYTES_MAX,
    "drain_timeout": 1.0,
    "handshake_timeout": 15.0,
}
KEY = re.compile("[!-~]{1,255}")
PASSED_ON_MAX = 512 << 10
"""Bytes of a request that is passed on to the worker that remembers; a larger one is known where it came."""
NO_STORE = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


class Side(Owner):
    """That of one hub. In its event loop's thread.

    Args:
        hub: what is watched.
        life: its serving.
        told: what it was made with.
        make_hub: makes the side's own hub.
        addresses: where it listens, each as the engine takes it.
        level: of the line that tells where.
        is_one_of_several: other processes have the same hub and the same addresses: one has them, and answers for all.
    """

    def __init__(
        self,
        hub: Attaching,
        life: Life,
        config: AdminConfig,
        told: MadeWith,
        make_hub: Callable[..., Any],
        addresses: Sequence[str],
        level: int = logging.INFO,
        *,
        is_one_of_several: bool = False,
    ) -> None:
        desk = self._desk = Desk(hub, life, told)
        overview = Overview(desk)
        self._rooms: dict[str, Any] = {
            "overview": overview,
            "clients": Clients(desk),
            "channels": Channels(desk),
            "acting": Acting(desk),
            "settings": SettingsRoom(desk, config),
        }
        self._table: dict[str, dict[str, Operation]] = {}
        for one in ENDPOINTS:
            self._table.setdefault(one.path, {})[one.method] = one
        self._config, self._addresses, self._level = config, addresses, level
        self._door = AdminDoor(config)
        self._is_one_of_several = is_one_of_several
        self._at_work = 0
        self._once = Once()
        desk.on("once", self._once_here)
        self._hub = hub_of(make_hub, config)
        self._live = Live(desk, self._hub, overview.stats, self._door)
        self._engine: Engine
        self._tasks: Tasks
        self.bound: list[str] = []
        """Where it listens."""

    async def begin(self) -> None:
        """Listen, and answer. Raises ListenFailed."""
        await self._hub.start(None)
        try:
            life = self._hub._life
            self._engine, self._tasks = life.engine, life.pump.tasks
            later = [address for address in self._addresses if not self._listen(address)]
            number = life.pump.add_owner(self)
            origins = self._door.origins = [*self._config.origins, *origins_at([*self.bound, *later])]
            for path in (*self._table, OPENAPI):
                self._engine.add_route(Route(path, "request", number, asks=["bodies"], origins=origins))
            for path in console_files():
                self._engine.add_route(Route(path, "request", number, origins=origins))
            self._live.begin(self._tasks, origins)
            for address in later:
                self._tasks.start_soon(self._listen_later, address)
        except BaseException:
            await self.end()
            raise
        hub_log.log(self._level, "the admin side is at %s", " and ".join(self.bound))

    def _listen(self, address: str) -> bool:
        """Whether it could be had; where others of this hub may have it, no is no error."""
        try:
            self.bound += self._engine.listen(address).split(",")
        except ListenFailed as error:
            if not self._is_one_of_several or error.errno != EADDRINUSE:
                raise
            return False
        return True

    async def _listen_later(self, address: str) -> None:
        """Take the place of whoever has it, once that has ended."""
        while not self._listen(address):
            await anyio.sleep(LOOK_S)

    async def last(self) -> None:
        """Go on until this is cancelled, and end then."""
        try:
            await anyio.sleep_forever()
        finally:
            await self.end()

    async def end(self) -> None:
        """Answer nobody any more; cancelled or not, it returns when all is over."""
        with anyio.CancelScope(shield=True):
            await self._hub.stop()
        self._desk.let_go()

    # Requests

    def asking(self, event: Asking) -> None:
        """One has come, whole."""
        try:
            headers = dict(event.headers)
            path = urlsplit(event.target).path
            if (page := console_answer(path, headers)) is not None:
                self._engine.respond(event.connection, page.status, page.content_type, page.body, page.headers)
                return
            endpoint = self._endpoint(path, event.method)
            self._door.check(event.method, headers)
            if self._at_work >= AT_WORK_MAX:
                raise Problem("busy", f"{AT_WORK_MAX} requests are being worked on", (("Retry-After", "1"),))
        except Problem as problem:
            if problem.code == SLOWED:
                self._tasks.start_soon(self._refuse_later, event.connection, problem)
            else:
                self._refuse(event.connection, problem)
            return
        if endpoint is None:
            self._engine.respond(event.connection, 200, JSON, document(), NO_STORE)
            return
        self._at_work += 1
        self._tasks.start_soon(self._answer, event, endpoint, headers)

    def _endpoint(self, path: str, method: str) -> Operation | None:
        """What is asked; None is the document. Raises Problem."""
        known = self._table.get(path)
        methods = ["GET"] if known is None else list(known)
        asked = "GET" if method == "HEAD" else method
        if asked not in methods:
            allowed = ", ".join(methods)
            raise Problem("method_not_allowed", f"{path} takes {allowed}, not {method}", (("Allow", allowed),))
        return None if known is None else known[asked]

    async def _refuse_later(self, connection: int, problem: Problem) -> None:
        await self._door.slow_down()
        self._refuse(connection, problem)

    def _refuse(self, connection: int, problem: Problem) -> None:
        headers = (*NO_STORE, *problem.headers)
        self._engine.respond(connection, problem.status, CONTENT_TYPE, problem.body, headers)

    async def _answer(self, event: Asking, endpoint: Operation, headers: Mapping[str, str]) -> None:
        try:
            key = headers.get("idempotency-key") if endpoint.is_once else None
            if key is None:
                answer = await self._do(endpoint, taken_of(event, endpoint))
            else:
                answer = await self._do_once(endpoint, key, event.body)
            self._engine.respond(event.connection, 200, JSON, answer, NO_STORE)
        except BaseException as error:
            self._refuse(event.connection, self._problem_of(error, endpoint))
        finally:
            self._at_work -= 1

    async def _do(self, endpoint: Operation, taken: Any) -> bytes:
        return msgspec.json.encode(await getattr(self._rooms[endpoint.room], endpoint.call)(taken))

    def _problem_of(self, error: BaseException, endpoint: Operation) -> Problem:
        """What is said of it. Raises it where it ends the task."""
        if ends_task(error):
            raise error
        problem = problem_of(error)
        if problem is None:
            self._tasks.faults.note("admin", error, "%s could not be answered", endpoint.path)
            problem = Problem("internal", INTERNAL_ERROR)
        return problem

    # What may be repeated

    async def _do_once(self, endpoint: Operation, key: str, body: bytes) -> bytes:
        """Do it, or give the answer of the first time: by the worker that remembers, if it takes so much."""
        if not KEY.fullmatch(key):
            raise Problem("bad_request", "an Idempotency-Key has 1 to 255 characters of visible ASCII")
        desk = self._desk
        remembers = min(worker for worker in desk.workers if worker < NUMBERS)
        message = [key, endpoint.path, body]
        told = None
        if remembers != desk.number and len(body) <= PASSED_ON_MAX:
            told = await desk.ask(remembers, "once", message)
        answer, code, detail = told or await self._once_here(message)
        if code:
            raise Problem(code, detail)
        return bytes(answer)

    async def _once_here(self, message: list[Any]) -> list[Any]:
        """The answer, or a problem's code and detail."""
        key, path, body = message
        endpoint = self._table[path]["POST"]

        async def do() -> bytes:
            return await self._do(endpoint, body_of(body, endpoint))

        try:
            return [await self._once.answer(key, path, body, do), "", ""]
        except BaseException as error:
            problem = self._problem_of(error, endpoint)
            return [b"", problem.code, problem.detail]


def body_of(body: bytes, endpoint: Operation) -> Any:
    """What a body says. Raises Problem."""
    try:
        return msgspec.json.decode(body, type=endpoint.takes)
    except msgspec.ValidationError as error:
        raise Problem("invalid_value", error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem("bad_json", error) from error


def taken_of(event: Asking, endpoint: Operation) -> Any:
    """The query or the body. Raises Problem."""
    if endpoint.method == "POST":
        return body_of(event.body, endpoint)
    try:
        pairs = parse_qsl(urlsplit(event.target).query, keep_blank_values=True, errors="strict", max_num_fields=32)
        query = dict(pairs)
        if len(query) < len(pairs):
            raise Problem("bad_request", "a parameter of the query is there twice")
        return msgspec.convert(query, endpoint.takes, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("invalid_value", error) from error
    except ValueError as error:  # of the query: no UTF-8, or too many fields
        raise Problem("bad_request", "the query cannot be read") from error


def hub_of(make_hub: Callable[..., Any], config: AdminConfig) -> Any:
    """The side's own hub, with no path of its own but those of health."""
    hub = make_hub(**OPTIONS, origins=config.origins)
    for path in OF_ALL_HUBS:
        hub.remove_path(path)
    return hub


def origins_at(addresses: Sequence[str]) -> list[str]:
    """What a browser calls the pages of these addresses."""
    found = []
    for address in addresses:
        if not address.startswith("unix:"):
            host, _, port = address.rpartition(":")
            names = {host, "localhost", "127.0.0.1", "[::1]"}
            found += [f"http://{name}:{port}" for name in sorted(names)]
    return found
