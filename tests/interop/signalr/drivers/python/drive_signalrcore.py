"""signalrcore, driven by the commands of ``signalr-origin client``. It has no cancel and can't answer the server."""

import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

from commands import ANSWER_WITHIN_S, Stage, options, run
from signalrcore.hub_connection_builder import HubConnectionBuilder  # type: ignore[import-untyped]
from signalrcore.types import HttpTransportType, HubProtocolEncoding  # type: ignore[import-untyped]

TRANSPORTS = {
    "websockets": HttpTransportType.web_sockets,
    "sse": HttpTransportType.server_sent_events,
    "longpolling": HttpTransportType.long_polling,
}


class Driven:
    """The client; its callbacks run in a thread of its own."""

    def __init__(self, stage: Stage, options: dict[str, str]) -> None:
        self._stage = stage
        settings: dict[str, Any] = {"transport": TRANSPORTS[options.get("transport", "websockets")]}
        if token := options.get("token"):
            settings["access_token_factory"] = lambda: token
        if "skip-negotiation" in options:
            settings["skip_negotiation"] = True
        builder = HubConnectionBuilder().with_url(options["url"], options=settings)
        builder.configure_logging(logging.CRITICAL)
        is_binary = options.get("protocol") == "messagepack"
        builder.with_hub_protocol(HubProtocolEncoding.binary if is_binary else HubProtocolEncoding.text)
        if "reconnect" in options:
            builder.with_automatic_reconnect({"type": "raw", "reconnect_interval": 0.2})
        self._hub = builder.build()
        self._hub.on_reconnect(lambda: stage.say("reconnected"))
        self._errors: dict[str, Callable[[str], None]] = {}
        self._beginning = threading.Lock()  # what a stream brings may come before the library has handed it over
        self._is_stopping = False
        self._hub.on_error(self._failed)
        self._hub.on_close(self._on_close)

    def _failed(self, message: Any) -> None:
        with self._beginning:
            failed = self._errors.pop(message.invocation_id, None)
        if failed:
            failed(message.error)

    def _on_close(self) -> None:
        if not self._is_stopping:
            self._stage.say("closed", error=None)

    def start(self) -> None:
        opened = threading.Event()
        self._hub.on_open(opened.set)
        self._hub.start()
        if not opened.wait(ANSWER_WITHIN_S):
            raise TimeoutError("it never opened")
        self._stage.say("started")

    def stop(self) -> None:
        """The library's `stop` returns with the hub's next ping, up to 15 s later: that is not waited for, nor told."""
        self._is_stopping = True
        threading.Thread(target=self._hub.stop, daemon=True).start()

    def on(self, target: str) -> None:
        self._hub.on(target, lambda args: self._stage.say("message", target=target, args=args))

    def answer(self, target: str, value: str | None) -> None:
        raise NotImplementedError("signalrcore takes no answer from a handler")

    def invoke(self, id: str, method: str, args: list[Any]) -> Callable[[], None]:
        answered = threading.Event()

        def completed(message: Any) -> None:
            self._stage.say("result", id=id, value=message.result)
            answered.set()

        def failed(text: str) -> None:
            self._stage.say("error", id=id, message=text)
            answered.set()

        invocation = str(uuid.uuid4())
        self._errors[invocation] = failed
        self._hub.invoke(method, args, completed, invocation)
        return lambda: None if answered.wait(ANSWER_WITHIN_S) else self._stage.say("failed", op="invoke", id=id)

    def stream(self, id: str, method: str, args: list[Any]) -> None:
        def item(value: Any) -> None:
            self._stage.say("item", id=id, value=value)

        def end(message: Any) -> None:
            self._stage.say("end", id=id)

        def failed(text: str) -> None:
            self._stage.say("error", id=id, message=text)

        with self._beginning:
            stream = self._hub.stream(method, args)
            stream.subscribe({"next": item, "complete": end, "error": failed})
            self._errors[stream.invocation_id] = failed


if __name__ == "__main__":
    given_options = options()
    said = Stage()
    driven = Driven(said, given_options)
    is_good = run(driven, said, given_options.get("protocol") == "messagepack")
    sys.stdout.flush()
    os._exit(0 if is_good else 1)
