"""pysignalr, driven by the commands of ``signalr-origin client``. It has WebSockets only, and no way to cancel."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from commands import ANSWER_WITHIN_S, Stage, options, run
from pysignalr.client import SignalRClient
from pysignalr.messages import CompletionMessage
from pysignalr.protocol.json import JSONProtocol
from pysignalr.protocol.messagepack import MessagepackProtocol


class Driven:
    """The client on an event loop in a thread of its own."""

    def __init__(self, stage: Stage, url: str, is_binary: bool, token: str | None) -> None:
        self._stage = stage
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        # Its access_token_factory is asked only once the WebSocket is open: too late for the request that opens it.
        headers = {"Authorization": f"Bearer {token}"} if token else None
        protocol = MessagepackProtocol() if is_binary else JSONProtocol()
        self._client = SignalRClient(url, protocol, headers, retry_count=1)
        self._client.on_error(self._ignore)
        self._running: asyncio.Task[None] | None = None

    @staticmethod
    async def _ignore(message: CompletionMessage) -> None:
        """A global error handler is demanded; the call's own callback gets the same message."""

    def _await(self, work: Awaitable[Any]) -> Any:
        async def done() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(ANSWER_WITHIN_S)

    def start(self) -> None:
        async def begin() -> None:
            opened = asyncio.Event()

            async def note() -> None:
                opened.set()

            self._client.on_open(note)
            self._running = asyncio.create_task(self._run())
            waiting = asyncio.create_task(opened.wait())
            await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if self._running.done():
                self._running.result()

        self._await(begin())
        self._stage.say("started")

    async def _run(self) -> None:
        error = None
        try:
            await self._client.run()
        except asyncio.CancelledError:
            pass
        except Exception as raised:
            error = str(raised)
            raise
        finally:
            self._stage.say("closed", error=error)

    def stop(self) -> None:
        async def end() -> None:
            assert self._running is not None
            self._running.cancel()
            await asyncio.wait({self._running})

        self._await(end())

    def on(self, target: str) -> None:
        async def handle(args: list[Any]) -> None:
            self._stage.say("message", target=target, args=args)

        self._client.on(target, handle)

    def answer(self, target: str, value: str | None) -> None:
        async def handle(args: list[Any]) -> str:
            self._stage.say("asked", target=target, args=args)
            if value is None:
                raise ValueError("the client has no answer")
            return value

        self._client.on(target, handle)

    def invoke(self, id: str, method: str, args: list[Any]) -> Callable[[], None]:
        answered = threading.Event()

        async def completed(message: Any) -> None:
            if message.error is None:
                self._stage.say("result", id=id, value=message.result)
            else:
                self._stage.say("error", id=id, message=message.error)
            answered.set()

        self._await(self._client.send(method, args, completed))
        return lambda: None if answered.wait(ANSWER_WITHIN_S) else self._stage.say("failed", op="invoke", id=id)

    def stream(self, id: str, method: str, args: list[Any]) -> None:
        async def item(value: Any) -> None:
            self._stage.say("item", id=id, value=value)

        async def end(message: Any) -> None:
            self._stage.say("end", id=id)

        async def failed(message: CompletionMessage) -> None:
            self._stage.say("error", id=id, message=message.error)

        self._await(self._client.stream(method, args, item, end, failed))


if __name__ == "__main__":
    given_options = options()
    wants_binary = given_options.get("protocol") == "messagepack"
    said = Stage()
    driven = Driven(said, given_options["url"], wants_binary, given_options.get("token"))
    is_good = run(driven, said, wants_binary)
    sys.stdout.flush()
    os._exit(0 if is_good else 1)
