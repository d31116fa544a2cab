"""A hub that runs, as commands of the shell ask it: at its admin side, by its local socket or as they are told."""

import os
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from fanwire.addresses import address_of
from fanwire.admin.local import local_sockets
from fanwire.wording import printable

ADMIN, TOKEN = "FANWIRE_ADMIN", "FANWIRE_ADMIN__TOKEN"
"""Variables: where the admin side is, and its token."""
TIMEOUT_S = 30.0
PAGE = 500
NOBODY = (
    "no hub of yours has an admin side here: `fanwire serve` has one, and a program with Hub(admin=…); "
    f"--admin or {ADMIN} says where another one is"
)


class NotAnswered(Exception):
    """It cannot be asked, or has said no, in words for the user; `code` is the problem's, empty where there is none."""

    def __init__(self, why: object, code: str = "") -> None:
        super().__init__(why)
        self.code: str = code


class _Local(HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open it."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Instance:
    """One of them.

    Args:
        where: its address, ``unix:PATH``, ``http://HOST:PORT``, or the number of its process; None: the only one.
        timeout_s: so long an answer may take, in seconds.

    Raises:
        NotAnswered: there is none, or there are several.
    """

    def __init__(
        self, where: str | None, environment: Mapping[str, str] = os.environ, timeout_s: float = TIMEOUT_S
    ) -> None:
        where = where or environment.get(ADMIN) or None
        self.address: str = _found(environment) if where is None else _named(where, environment)
        """Where it is asked."""
        self._token = environment.get(TOKEN, "")
        self._timeout_s = timeout_s

    def get(self, path: str, /, **query: Any) -> dict[str, Any]:
        """What it answers; parameters that are None are left out."""
        given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
        asked = urlencode({name: value for name, value in given.items() if value is not None})
        return self._answer("GET", f"{path}?{asked}" if asked else path)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have it do something."""
        return self._answer("POST", path, msgspec.json.encode(body))

    def rows(self, path: str, key: str, most: int, /, **query: Any) -> Iterator[dict[str, Any]]:
        """The rows of a list, page by page, `most` at most; 0 is all of them."""
        after, count = None, 0
        while True:
            limit = min(PAGE, most - count) if most else PAGE
            page = self.get(path, limit=limit, after=after, **query)
            yield from page[key]
            count += len(page[key])
            after = page["next"]
            if after is None or (most and count >= most):
                return

    def events(self, *channels: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Events of ``/api/live`` as they come: the name and the data. The first is empty, when it has begun."""
        asked = urlencode([("channel", channel) for channel in channels])
        connection = self._connection(None)
        try:
            response = self._asked(connection, "GET", f"/api/live?{asked}", None)
            yield "", {}
            event = ""
            for line in response:
                name, _, value = line.rstrip(b"\n").partition(b":")
                if name == b"event":
                    event = value.strip().decode()
                elif name == b"data":
                    yield event, msgspec.json.decode(value)
        finally:
            connection.close()

    def _connection(self, timeout: float | None) -> HTTPConnection:
        if self.address.startswith("unix:"):
            return _Local(self.address.removeprefix("unix:"), timeout)
        return HTTPConnection(self.address, timeout=timeout)

    def _answer(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        connection = self._connection(self._timeout_s)
        try:
            answer: dict[str, Any] = msgspec.json.decode(self._asked(connection, method, path, body).read())
            return answer
        except (msgspec.DecodeError, HTTPException, OSError) as error:
            raise NotAnswered(f"{self.address} does not answer as an admin side: {error}") from error
        finally:
            connection.close()

    def _asked(self, connection: HTTPConnection, method: str, path: str, body: bytes | None) -> HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        except OSError as error:
            raise NotAnswered(f"{self.address}: {error.strerror or error}") from error
        if response.status != 200:
            raise _refusal(response, has_token=bool(self._token))
        return response


def _refusal(response: HTTPResponse, *, has_token: bool) -> NotAnswered:
    raw = response.read(65_536)
    try:
        told: Any = msgspec.json.decode(raw)
        detail, code = str(told["detail"]), str(told["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        detail, code = raw.decode(errors="replace").strip() or f"{response.status} {response.reason}", ""
    if response.status == 401 and not has_token:
        detail = f"it wants its token, in the variable {TOKEN}"
    return NotAnswered(printable(detail), code)


def _found(environment: Mapping[str, str]) -> str:
    found = list(local_sockets(environment))
    if not found:
        raise NotAnswered(NOBODY)
    if len(found) > 1:
        several = ", ".join(str(process) for process, _ in found)
        raise NotAnswered(f"several hubs run: say which with --admin PROCESS, of {several}")
    return f"unix:{found[0][1]}"


def _named(where: str, environment: Mapping[str, str]) -> str:
    if where.isdecimal():
        for process, path in local_sockets(environment):
            if process == int(where):
                return f"unix:{path}"
    if where.startswith("http://"):
        where = urlsplit(where).netloc
    try:
        return address_of(where)
    except ValueError as error:
        raise NotAnswered(str(error)) from error
