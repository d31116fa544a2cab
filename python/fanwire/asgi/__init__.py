"""A hub inside an ASGI application, on the application's own port: ``app.mount("/live", hub.asgi())``.

Each connection of the server's gets a socket whose other end the engine serves as one that it had accepted, so that
all of it is the same: protocols, callbacks, order and bounds. The price is what the server does with each message.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from fanwire._engine import Engine
from fanwire.asgi.handing import hand_over
from fanwire.asgi.heads import BadRequest, client_of
from fanwire.asgi.pair import Pair
from fanwire.asgi.requests import EngineGone, Receive, Scope, Send, answer_text, serve_request
from fanwire.asgi.websockets import refuse, serve_websocket
from fanwire.client import Link
from fanwire.errors import EngineMissing, HubStopped
from fanwire.logs import hub_log

__all__ = ["Mounted"]

NOT_SERVING = "the hub does not serve now"
BEGINS_WITHIN_S = 5.0
"""How long a request waits for a start or a stop of the hub that somebody else has under way."""
LOOK_AGAIN_S = 0.005


class Startable(Protocol):
    """A ``Hub``."""

    _link: Link
    _forked: str

    def _let_go_of_closed(self) -> None:
        """End what serves where its loop was closed."""

    async def start(self) -> object:
        """Begin to serve without an address."""

    async def stop(self) -> None:
        """End it."""


class Mounted:
    """An ASGI application that is a hub. ``Hub.asgi`` makes it.

    A request finds it served: where the hub does not serve yet, the first one begins it. It ends with ``hub.stop()``,
    with ``hub.lifespan``, or with the event loop. As the whole application of a server, it takes the server's lifespan.
    """

    def __init__(self, hub: Startable) -> None:
        self._hub = hub
        # Of the serving that a request has begun here.
        self._begun: Link | None = None

    def __repr__(self) -> str:
        return f"<ASGI application of {self._hub!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of an ASGI server (asgiref, specs/www.rst), or its lifespan.

        Raises:
            TypeError: the scope is of another kind.
            What ``Hub.start`` raises, of the first request.
        """
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send, serve_request, _answer)
            case "websocket":
                await self._serve(scope, receive, send, serve_websocket, refuse)
            case "lifespan":
                await self._live(receive, send)
            case other:
                raise TypeError(f"an ASGI scope must be of type http, websocket or lifespan, not {other!r}")

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        serve: Callable[[Pair, Scope, Receive, Send], Awaitable[None]],
        answer: Callable[[Scope, Send, int, str], Awaitable[None]],
    ) -> None:
        try:
            engine = await self._engine()
            # What a request has begun nobody ends with the server: there it is the server that closes.
            is_ended = self._begun is not self._hub._link
            if scope["type"] == "websocket" and is_ended and hand_over(engine, scope, receive, send):
                return
            pair = Pair(engine, client_of(scope))
        except (EngineMissing, HubStopped, OSError) as error:
            if not isinstance(error, HubStopped):  # no descriptors are left, or no engine is there
                text = "requests to the mounted hub are refused: %s"
                self._hub._link.faults.tell(hub_log, logging.ERROR, "asgi.refused", text, error, most=1)
            await receive()
            await answer(scope, send, 503, str(error) if isinstance(error, EngineMissing) else NOT_SERVING)
            return
        with pair:
            try:
                await serve(pair, scope, receive, send)
            except BadRequest as error:
                await answer(scope, send, 400, str(error))
            except EngineGone:
                await answer(scope, send, 503, NOT_SERVING)

    async def _engine(self) -> Engine:
        """What serves; begun, if need be. Raises HubStopped where that does not come about in time."""
        self._hub._let_go_of_closed()
        with anyio.move_on_after(BEGINS_WITHIN_S):
            while (engine := self._hub._link.engine) is None:
                try:
                    await self._hub.start()
                    self._begun = self._hub._link
                except RuntimeError as error:  # others begin or end it just now
                    if self._hub._forked or isinstance(error, EngineMissing):
                        raise
                    await anyio.sleep(LOOK_AGAIN_S)
            return engine
        raise HubStopped(NOT_SERVING)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._hub.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            with anyio.CancelScope(shield=True):
                await self._hub.stop()
        await send({"type": "lifespan.shutdown.complete"})


async def _answer(scope: Scope, send: Send, status: int, text: str) -> None:
    await answer_text(send, status, text)
