"""Calls from clients: ``{"call": "PlaceBet", "args": […], "id": 1}``. ✗ bytes of any protocol but this one reply."""

import inspect
import json
from typing import Any

from fanwire._engine import Call, encode_json
from fanwire._loop import Callback
from fanwire.client import Client
from fanwire.errors import CallFailed, EncodeError, PayloadTooBig, Refused
from fanwire.logs import hub_log

INTERNAL_ERROR = "internal error"
"""All that a client learns of an exception that the application did not mean for it."""


class Method:
    """A function that clients may call by a name."""

    __slots__ = ("callback", "name", "signature")

    def __init__(self, name: str, callback: Callback) -> None:
        self.name = name
        self.callback = callback
        try:
            self.signature: inspect.Signature | None = inspect.signature(callback.function)
        except ValueError:  # some built-in functions do not tell theirs
            self.signature = None

    async def answer(self, client: Client, call: Call) -> None:
        """Call the function and send what came of it. Raises nothing but cancellation."""
        try:
            arguments = parse_arguments(call.arguments)
            if self.signature is not None:
                self.signature.bind(client, *arguments)
        except (TypeError, ValueError) as error:
            reply_error(client, call.id, f"method {self.name!r}: {error}")
            return
        try:
            result = await self.callback(client, *arguments)
        except (CallFailed, Refused) as error:
            reply_error(client, call.id, str(error))
        except Exception:
            hub_log.exception("method %r, called by client %d, raised", self.name, client.id)
            reply_error(client, call.id, INTERNAL_ERROR)
        else:
            self._reply(client, call.id, result)

    def _reply(self, client: Client, id: str | None, result: object) -> None:
        if id is None:
            return
        try:
            reply_result(client, id, result)
        except (EncodeError, PayloadTooBig, TypeError, ValueError):
            hub_log.exception("what method %r returned cannot be sent", self.name)
            reply_error(client, id, INTERNAL_ERROR)


def parse_arguments(text: str) -> list[Any]:
    """The ``args`` of a call. Raises ValueError when they are not a JSON array."""
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("args is not JSON") from error
    if not isinstance(arguments, list):
        raise ValueError("args must be an array")
    return arguments


def reply_result(client: Client, id: str, result: object) -> None:
    """Answer the message whose ``id``, as JSON text, is `id`. Raises what ``encode_json`` and ``Client.send`` raise."""
    client.send(f'{{"id":{id},"result":{encode_json(result).decode()}}}')


def reply_error(client: Client, id: str | None, text: str) -> None:
    """Answer a call with an error; one without an id gets none."""
    if id is not None:
        tell_error(client, id, text)


def tell_error(client: Client, id: str | None, text: str) -> None:
    """Send ``{"error": text}``, with the ``id`` of what it answers where there is one. Raises nothing."""
    answered = "" if id is None else f'"id":{id},'
    try:
        client.send(f'{{{answered}"error":{encode_json(text).decode()}}}')
    except (EncodeError, PayloadTooBig):
        hub_log.exception("client %d could not be told of an error", client.id)
