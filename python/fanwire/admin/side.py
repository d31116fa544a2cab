"""The admin side of one serving: a hub of its own, with a listener and a thread of its own, whose requests are answered
about the hub that is watched. Not here: what each endpoint does.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
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
from fanwire.admin.desk import Desk, MadeWith
from fanwire.admin.door import WRONG_S, AdminDoor
from fanwire.admin.live import Live
from fanwire.admin.openapi import document
from fanwire.admin.overview import Overview
from fanwire.admin.problems import CONTENT_TYPE, Problem, problem_of
from fanwire.admin.settings import SettingsRoom
from fanwire.admin.table import ENDPOINTS, OPENAPI, Operation
from fanwire.attaching import Attaching
from fanwire.faults import Tasks
from fanwire.logs import hub_log
from fanwire.owner import Owner
from fanwire.serving import Life
from fanwire.wording import INTERNAL_ERROR

JSON = "application/json"
BODY_BYTES_MAX = 16 << 20
"""Of a request: a thousand publications, or one large one."""
AT_WORK_MAX = 64
"""Requests that are worked on at once; who comes then is told so."""
OF_ALL_HUBS = ("/", "/ws", "/events", "/metrics")
"""Paths that every hub begins with, and that the admin side has not."""
OPTIONS: Mapping[str, Any] = {
    "signalr_paths": (),
    "unix_mode": 0o600,
    "body_bytes_max": BODY_BYTES_MAX,
    "drain_timeout": 1.0,
    "handshake_timeout": 15.0,
}
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
        self._at_work = 0
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
            for address in self._addresses:
                self.bound += life.engine.listen(address).split(",")
            number = life.pump.add_owner(self)
            origins = self._door.origins = [*self._config.origins, *origins_at(self.bound)]
            for path in (*self._table, OPENAPI):
                self._engine.add_route(Route(path, "request", number, asks=["bodies"], origins=origins))
            self._live.begin(self._tasks, origins)
        except BaseException:
            await self.end()
            raise
        hub_log.log(self._level, "the admin side is at %s", " and ".join(self.bound))

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
            endpoint = self._endpoint(path, event.method)
            self._door.check(event.method, headers)
            if self._at_work >= AT_WORK_MAX:
                raise Problem("busy", f"{AT_WORK_MAX} requests are being worked on", (("Retry-After", "1"),))
        except Problem as problem:
            if problem.code == "wrong_token":
                self._door.waiting += 1
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
        try:
            await anyio.sleep(WRONG_S)
        finally:
            self._door.waiting -= 1
        self._refuse(connection, problem)

    def _refuse(self, connection: int, problem: Problem) -> None:
        headers = (*NO_STORE, *problem.headers)
        self._engine.respond(connection, problem.status, CONTENT_TYPE, problem.body, headers)

    async def _answer(self, event: Asking, endpoint: Operation, headers: Mapping[str, str]) -> None:
        try:
            taken = taken_of(event, endpoint)
            answer = await getattr(self._rooms[endpoint.room], endpoint.call)(taken)
            self._engine.respond(event.connection, 200, JSON, msgspec.json.encode(answer), NO_STORE)
        except BaseException as error:
            if ends_task(error):
                raise
            problem = problem_of(error)
            if problem is None:
                self._tasks.faults.note("admin", error, "%s could not be answered", endpoint.path)
                problem = Problem("internal", INTERNAL_ERROR)
            self._refuse(event.connection, problem)
        finally:
            self._at_work -= 1


def taken_of(event: Asking, endpoint: Operation) -> Any:
    """The query or the body. Raises Problem."""
    try:
        if endpoint.method == "POST":
            return msgspec.json.decode(event.body, type=endpoint.takes)
        pairs = parse_qsl(urlsplit(event.target).query, keep_blank_values=True, errors="strict", max_num_fields=32)
        query = dict(pairs)
        if len(query) < len(pairs):
            raise Problem("bad_request", "a parameter of the query is there twice")
        return msgspec.convert(query, endpoint.takes, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("invalid_value", error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem("bad_json", error) from error
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
