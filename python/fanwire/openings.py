"""Who may connect to the application: each opening is put to its callbacks. Not here: what clients do then."""

from collections import OrderedDict

import anyio

from fanwire._engine import Filter, Opening
from fanwire._loop import ends_task, finish, outlive_cancellation
from fanwire.auth import EDGES, Refused, Request, identity_of, is_negotiate
from fanwire.callbacks import Callbacks
from fanwire.client import Client, Link
from fanwire.errors import FanwireError, LimitReached, Told
from fanwire.faults import Faults, Tasks
from fanwire.logs import hub_log, name_of
from fanwire.presence import Roster
from fanwire.wording import INTERNAL_ERROR

NOT_CHOSEN = (
    "a client offered subprotocols and none was chosen, so a browser fails with 1006: name those that you take in "
    "Hub(subprotocols=[...]), or have authenticate set request.subprotocol (this is said once)"
)


class Openings:
    """Those of one serving. A sync callback is called here and now; an async one in one of `openers_max` tasks."""

    def __init__(
        self,
        link: Link,
        callbacks: Callbacks,
        tasks: Tasks,
        clients: dict[int, Client],
        openers_max: int,
    ) -> None:
        self._link = link
        self._engine = link.require()
        self._faults: Faults = link.faults
        self._endings = link.endings
        self._callbacks = callbacks
        self._tasks = tasks
        self._clients = clients
        # Those that wait for their turn, in their order, and what cancels those that a task is at work on.
        self._waiting: OrderedDict[int, tuple[Client, Opening]] = OrderedDict()
        self._at_work: dict[int, anyio.CancelScope] = {}
        # How many tasks there are.
        self._openers = 0
        self._openers_max = openers_max
        self.roster = Roster()
        """Those who were let in."""
        self._keeps_requests = callbacks.use_requests
        self._has_told_of_subprotocols = False
        asked = (callbacks.authenticate, callbacks.authorize)
        self._may_wait = any(callback is not None and callback.is_async for callback in asked)

    def take(self, event: Opening) -> None:
        """Somebody asks to connect."""
        client = self._clients[event.connection] = Client(event.connection, self._link)
        if not self._may_wait:
            finish(self._open(client, event))
            return
        self._waiting[event.connection] = (client, event)
        if self._openers < self._openers_max:
            self._openers += 1
            self._tasks.start_soon(self._work_off)

    @property
    def count(self) -> int:
        """How many wait or are at work."""
        return len(self._waiting) + len(self._at_work)

    def gone(self, connection: int) -> None:
        """Who asked has left: nobody is at work for it any more."""
        if self._waiting.pop(connection, None) is None:
            scope = self._at_work.get(connection)
            if scope is not None:
                hub_log.debug("client %s left before it was answered", name_of(connection))
                scope.cancel()

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                _, (client, event) = self._waiting.popitem(last=False)
                scope = self._at_work[event.connection] = anyio.CancelScope()
                await self._work_on(client, event, scope)
                await outlive_cancellation()  # which is not the next one's
        finally:
            self._openers -= 1

    async def _work_on(self, client: Client, event: Opening, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await self._open(client, event, scope)
        finally:
            del self._at_work[event.connection]

    async def _open(self, client: Client, event: Opening, scope: anyio.CancelScope | None = None) -> None:
        engine = self._engine
        request = Request(event)
        asked: tuple[str, object] = ("the hub", event.protocol)  # who is asked now: what raises next is theirs
        try:
            if self._keeps_requests:
                client._request = request
            known = self._callbacks.subprotocols
            if request.subprotocol is None and known:
                request.subprotocol = next((name for name in request.subprotocols if name in known), None)
            if self._callbacks.authenticate is not None:
                asked = ("authenticate", self._callbacks.authenticate)
                client._identity = identity_of(await self._callbacks.authenticate(request))
            if self._callbacks.authorize is not None:
                asked = ("authorize", self._callbacks.authorize)
            filters: list[Filter | None] = []
            for channel in event.channels:
                is_allowed, filter = await self._callbacks.may_watch(client, channel, event.filter)
                if not is_allowed:
                    raise Refused(not_authorized([channel]), status=403)
                filters.append(filter)
            identity = client.identity
            user = None if identity is None else identity.id
            headers, subprotocol = list(request.response_headers), request.subprotocol
            if request.only_asks:
                self._answer(event, headers, filters)
                return
            engine.accept(event.connection, event.channels, user, headers, subprotocol, filters)
            if subprotocol is None and set(request.subprotocols).difference(EDGES):
                self._tell_of_subprotocols()
            if is_negotiate(event):  # its transport is asked about, too
                self._clients.pop(client.id, None)
            else:
                self.roster.add(client)
        except Told as told:
            self._endings.refuse(event.connection, told.status, told, list(request.response_headers))
        except LimitReached as error:
            self._endings.refuse(event.connection, 503, error)
        except FanwireError as error:  # a channel that cannot be
            self._endings.refuse(event.connection, 400, error)
        except BaseException as error:
            if ends_task(error):
                raise
            if scope is not None and scope.cancel_called:
                hub_log.debug("what was asked about client %s, which left, raised", client, exc_info=error)
                return
            self._faults.note("opening", error, "%s %s, on the opening of client %s, raised", *asked, client)
            self._endings.refuse(event.connection, 500, INTERNAL_ERROR)

    def _answer(self, event: Opening, headers: list[tuple[str, str]], filters: list[Filter | None]) -> None:
        """An edge asks whether the client may watch: nobody is connected. An edge gives it no filter of ours."""
        if any(filter != event.filter for filter in filters):
            raise Refused(
                "authorize gives this client a filter, which an edge does not have: ask the hub itself", status=403
            )
        self._clients.pop(event.connection, None)
        self._engine.respond(event.connection, 204, "text/plain", b"", headers)

    def _tell_of_subprotocols(self) -> None:
        if not self._has_told_of_subprotocols:
            self._has_told_of_subprotocols = True
            hub_log.warning("%s", NOT_CHOSEN)  # not what was offered: it may be a token


def not_authorized(channels: list[str]) -> str:
    """The refusal that names what may not be watched."""
    return f"not authorized for channel{'s'[: len(channels) > 1]} {', '.join(map(repr, channels))}"
