"""A WebSocket of an ASGI server, whose messages go to the engine and come from it. Compression stays the server's."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from fanwire._engine import may_be_received
from fanwire._loop import background_tasks
from fanwire.asgi.heads import ResponseHead, upgrade_head
from fanwire.asgi.pair import Pair
from fanwire.asgi.requests import EngineGone, Receive, Scope, Send, read_head
from fanwire.frames import BINARY, CLOSE, NO_CODE, PING, PONG, TEXT, Framed, Frames, close_frame, close_of, frame
from fanwire.wording import cut_reason

DENIAL = "websocket.http.response"
"""The extension of a server that can answer a handshake with a response."""
MESSAGES_A_TURN = 32
"""Sent to one client before the others of the event loop have their turn, some milliseconds."""
BROKEN_OFF = 1011
"""What a client is told where the engine ended the connection without a word: an error of the server's."""


async def serve_websocket(pair: Pair, scope: Scope, receive: Receive, send: Send) -> None:
    """Open it and pass messages both ways, until one side ends it.

    What the server cannot send yet is not read from the engine, for which it is a client that lags; what the
    engine does not read yet is not taken from the server.

    Raises:
        BadRequest: the handshake cannot be written; nothing was answered.
        EngineGone: the engine ended; nothing was answered.
    """
    if (await receive())["type"] != "websocket.connect":
        return
    head = upgrade_head(scope)
    async with background_tasks() as tasks:
        relayed = _Relayed(pair, send, tasks.start_soon)
        await relayed.write(head)
        tasks.start_soon(relayed.pass_in, receive)
        try:
            answer, rest = await read_head(pair)
        except EngineGone:
            if relayed.is_left:
                return
            raise
        if answer.status == 101:
            relayed.is_open = True
            accepted = {"subprotocol": answer.subprotocol, "headers": answer.headers}
            await relayed.send({"type": "websocket.accept", **accepted})
            await relayed.pass_out(rest)
        else:
            await _deny(pair, scope, relayed.send, answer, rest)


async def refuse(scope: Scope, send: Any, status: int, text: str) -> None:
    """Answer a handshake with this status, if the server can, else by a close, which is 403."""
    if DENIAL in (scope.get("extensions") or {}):
        body = text.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await send({"type": f"{DENIAL}.start", "status": status, "headers": headers})
        await send({"type": f"{DENIAL}.body", "body": body})
    else:
        await send(_close(1013 if status >= 500 else 1008, text))


async def _deny(pair: Pair, scope: Scope, send: Any, answer: ResponseHead, body: bytes) -> None:
    while data := await pair.receive():
        body += data  # an answer of the engine's, which is bounded
    if DENIAL in (scope.get("extensions") or {}):
        await send({"type": f"{DENIAL}.start", "status": answer.status, "headers": answer.headers})
        await send({"type": f"{DENIAL}.body", "body": body})
    else:
        await refuse({}, send, answer.status, body.decode(errors="replace"))


def _close(code: int, reason: str) -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": cut_reason(reason)}


class _Relayed:
    """Both directions of one WebSocket. One task writes at a time, so that frames stay whole; a pong never waits."""

    def __init__(self, pair: Pair, send: Send, start_soon: Callable[..., object]) -> None:
        self._pair = pair
        self._send = send
        self._start_soon = start_soon
        # The engine speaks frames from now on.
        self.is_open = False
        # The client has left: nothing is sent to it any more.
        self.is_left = False
        # Who has it writes; what answers the engine's newest ping goes behind that.
        self._turn = anyio.Semaphore(1, fast_acquire=True)
        self._pong = b""

    async def write(self, data: bytes) -> None:
        """Send to the engine; where that has ended, reading tells."""
        await self._turn.acquire()
        await self._go_on(data)

    async def _go_on(self, data: bytes) -> None:
        try:
            await self._pair.send(data)
            while self._pong:
                pong, self._pong = self._pong, b""
                await self._pair.send(pong)
        except OSError:
            return
        finally:
            self._turn.release()

    def _answer(self, ping: bytes) -> None:
        """Answer a ping without waiting: who reads from the engine must go on, or both would wait for each other."""
        pong = frame(PONG, ping)
        try:
            self._turn.acquire_nowait()
        except anyio.WouldBlock:
            self._pong = pong
            return
        sent = len(pong)
        with suppress(OSError):
            sent = self._pair.send_now(pong)
        if sent < len(pong):
            self._start_soon(self._go_on, pong[sent:])
        else:
            self._turn.release()

    async def pass_in(self, receive: Receive) -> None:
        """What comes from the client, until it leaves."""
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                break
            text = message.get("text")
            whole = frame(BINARY, message["bytes"]) if text is None else frame(TEXT, text.encode())
            await self.write(whole)
        self.is_left = True
        code, reason = message.get("code") or NO_CODE, message.get("reason")
        # uvicorn has 1005 for a connection that was lost, too, and then no reason, not even an empty one.
        is_closed = (code != NO_CODE and may_be_received(code)) or (code == NO_CODE and reason is not None)
        if self.is_open and is_closed:
            await self.write(close_frame(code, reason or ""))
        else:
            self._pair.break_off()

    async def send(self, message: dict[str, Any]) -> None:
        """Send to the client, unless it has left."""
        if self.is_left:
            return
        try:
            await self._send(message)
        except OSError:  # it has left; `receive` says how
            self.is_left = True
        except RuntimeError:  # servers say so of what is sent behind the end; whether it was, we know ourselves
            if not self.is_left:
                raise

    async def pass_out(self, data: bytes) -> None:
        """What comes from the engine, until it ends the connection, beginning with these bytes."""
        frames = Frames()
        while True:
            for count, message in enumerate(frames.take(data), 1):
                if count % MESSAGES_A_TURN == 0:
                    await checkpoint()  # a server's `send` need not wait, and 64 KiB may be very many
                if message.opcode == CLOSE:
                    await self.send(_close(*close_of(message.payload)))
                    await self.write(frame(CLOSE, message.payload))
                    return
                await self._take(message)
            data = await self._pair.receive()
            if not data:
                await self.send(_close(BROKEN_OFF, ""))
                return

    async def _take(self, message: Framed) -> None:
        if message.opcode == TEXT:
            await self.send({"type": "websocket.send", "text": message.payload.decode()})
        elif message.opcode == BINARY:
            await self.send({"type": "websocket.send", "bytes": message.payload})
        elif message.opcode == PING and not self.is_left:
            self._answer(message.payload)
