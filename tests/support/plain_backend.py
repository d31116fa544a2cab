"""A plain WebSocket backend (``websockets``, in threads): a feed of matches, and what it saw of those who connect."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from socket import SHUT_RDWR
from ssl import SSLContext
from threading import Lock, Thread
from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol


@dataclass(eq=False)
class Visit:
    """One connection that the backend has or had."""

    connection: ServerConnection
    query: str
    headers: Headers
    subprotocol: str | None
    matches: set[str] = field(default_factory=set)
    received: list[str | bytes] = field(default_factory=list)
    code: int | None = None
    """With which it ended."""


class PlainBackend:
    """``?match=…`` and ``{"watch": …}`` watch; ``close CODE`` closes; ``"who"`` is answered; all else is echoed."""

    def __init__(self, *, greets: bool = False) -> None:
        self._greets = greets
        self._lock = Lock()
        self._server: Server | None = None
        self.address = ""
        self.visits: list[Visit] = []
        self.hangs_up_at: tuple[str, int] | None = None
        """A message, and the close code with which it is answered."""

    @property
    def now(self) -> list[Visit]:
        """Those who are connected."""
        with self._lock:
            return [visit for visit in self.visits if visit.code is None]

    def publish(self, match: str, *messages: str | bytes) -> None:
        """Send to all who watch, in order."""
        for message in messages:
            for visit in self.now:
                if match in visit.matches:
                    visit.connection.send(message)

    @contextmanager
    def serving(self, address: str = "127.0.0.1:0", tls: SSLContext | None = None) -> Iterator[str]:
        """Serve while the context lasts; gives the address."""
        host, _, port = address.rpartition(":")
        with serve(
            self._handle,
            host,
            int(port),
            ssl=tls,
            subprotocols=[Subprotocol("odds.v1"), Subprotocol("odds.v2")],
            select_subprotocol=lambda _, offered: next((one for one in offered if one.startswith("odds.")), None),
            process_request=_check,
            process_response=_set_cookies,
        ) as server:
            self.address = "{}:{}".format(*server.socket.getsockname())
            self._server = server
            thread = Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self.address
            finally:
                self.hang_up()
                server.shutdown()
                thread.join()

    def hang_up(self) -> None:
        """Break all connections, without a close."""
        for visit in self.now:
            with suppress(OSError):  # it has just ended by itself
                visit.connection.socket.shutdown(SHUT_RDWR)

    def _handle(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        query = request.path.partition("?")[2]
        visit = Visit(connection, query, request.headers, connection.subprotocol)
        visit.matches.update(parse_qs(query).get("match", []))
        if self._greets:
            for match in sorted(visit.matches):
                connection.send(f"welcome to {match}")
        with self._lock:
            self.visits.append(visit)
        try:
            for message in connection:
                self._take(visit, message)
        except ConnectionClosed:
            pass
        finally:
            visit.code = connection.close_code or 1006

    def _take(self, visit: Visit, message: str | bytes) -> None:
        visit.received.append(message)
        if self.hangs_up_at is not None and message == self.hangs_up_at[0]:
            visit.connection.close(self.hangs_up_at[1])
            return
        document = {}
        if isinstance(message, str) and message.startswith("{"):
            with suppress(ValueError):
                document = json.loads(message)
        if "watch" in document:
            visit.matches.add(str(document["watch"]))
        elif "unwatch" in document:
            visit.matches.discard(str(document["unwatch"]))
        elif message == "who":
            visit.connection.send(visit.query)
        elif isinstance(message, str) and message.startswith("close "):
            visit.connection.close(int(message[6:]), "as you wish")
        else:
            visit.connection.send(message)


def _check(connection: ServerConnection, request: Request) -> Response | None:
    if request.headers.get("Authorization") == "Bearer mallory" or "token=mallory" in request.path:
        return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n")
    if "match=none" in request.path:
        return connection.respond(HTTPStatus.NOT_FOUND, "no such match\n")
    return None


def _set_cookies(connection: ServerConnection, request: Request, response: Response) -> None:
    query = parse_qs(request.path.partition("?")[2])
    for cookie in (*("x" * int(count) for count in query.get("sets_long", ())), *query.get("sets", ())):
        response.headers["Set-Cookie"] = cookie
