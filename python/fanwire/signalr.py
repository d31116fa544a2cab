"""SignalR calls of one client: invocations, streams both ways, results that the client owes. ✗ bytes of any protocol.

As in ASP.NET Core: invocations of a client come one after another, or ``signalr_parallel_max`` at once; streams do not
count. The texts of errors are its own, letter by letter: clients match on them. What the application did not mean for
the client is only logged.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from fanwire._loop import ends_task, finish, raise_if_strayed
from fanwire.arguments import ANY, Decoder
from fanwire.errors import CallFailed, HubError
from fanwire.faults import Tasks
from fanwire.logs import hub_log
from fanwire.methods import TOLD, Method, Methods
from fanwire.texts import sendable

if TYPE_CHECKING:
    from fanwire._engine import Engine, HubMessage
    from fanwire.client import Client

CLOSED_WITH_ERROR = "Connection closed with an error."
"""What a client is told whose connection the hub ends by itself."""
UPLOAD_ITEMS_MAX = 10
"""Items of a client's stream that wait for the method; more are acknowledged as they are taken, so the client waits."""
EARLY_MAX = 256
"""Calls of a client that may wait for their turn while it owes an answer, so that the answer behind them is read."""
ITEMS_AHEAD = 32
"""Items of a method's stream that are sent before the client must have taken those before them."""


class Upload:
    """What a client streams to a method: an async iterator, once."""

    __slots__ = ("_acknowledge", "_arrived", "_decoder", "_error", "_is_json", "_is_over", "_items", "_owed")

    def __init__(self, decoder: Decoder, is_json: bool, acknowledge: Callable[[], None]) -> None:
        self._decoder = decoder
        self._is_json = is_json
        self._acknowledge = acknowledge
        self._items: deque[bytes] = deque()
        self._owed = 0
        self._is_over = False
        self._error: Exception | None = None
        self._arrived: anyio.Event | None = None

    def push(self, item: bytes) -> None:
        """An item came."""
        self._items.append(item)
        if self._is_over or len(self._items) <= UPLOAD_ITEMS_MAX:
            self._acknowledge()
        else:
            self._owed += 1
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; with `error`, because of that."""
        self._is_over = True
        self._error = error
        self._wake()

    def abandon(self) -> None:
        """The method is done: what still comes is dropped."""
        self._is_over = True
        self._items.clear()
        while self._owed:
            self._owed -= 1
            self._acknowledge()

    def _wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            if self._is_over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()
        item = self._items.popleft()
        if self._owed:
            self._owed -= 1
            self._acknowledge()
        try:
            return self._decoder.decode(item, self._is_json)
        except ValueError as error:
            raise HubError("Failed to bind Stream message.") from error


class Answer:
    """What a client owes to ``Client.invoke``."""

    __slots__ = ("came", "error", "result")

    def __init__(self) -> None:
        self.came = anyio.Event()
        self.result: Any = None
        self.error: Exception | None = None


class Calls:
    """The calls of one client, both ways. Lives in the event loop's thread."""

    __slots__ = (
        "_acknowledge",
        "_answers",
        "_asked",
        "_client",
        "_drained",
        "_early",
        "_endings",
        "_engine",
        "_is_json",
        "_methods",
        "_parallel_max",
        "_running",
        "_streams",
        "_tasks",
        "_uploads",
        "_uploads_of",
        "_waiting",
    )

    def __init__(
        self,
        client: "Client",
        engine: "Engine",
        tasks: Tasks,
        methods: Methods,
        parallel_max: int,
        is_json: bool,
        acknowledge: Callable[[], None],
    ) -> None:
        self._client = client
        self._endings = client._link.endings
        self._engine = engine
        self._tasks = tasks
        self._methods = methods
        self._parallel_max = parallel_max
        self._is_json = is_json
        self._acknowledge = acknowledge
        self._running = 0
        # How many of those that wait, from the first on, are acknowledged though they are not dealt with.
        self._early = 0
        self._waiting: deque[HubMessage] = deque()
        self._streams: dict[str, anyio.CancelScope] = {}
        # By stream, whose items come now; and by call, from its coming on until it has ended.
        self._uploads: dict[str, Upload] = {}
        self._uploads_of: dict[int, list[Upload]] = {}
        self._answers: dict[str, Answer] = {}
        self._asked = 0
        self._drained: anyio.Event | None = None

    # What comes

    def take(self, event: "HubMessage") -> None:
        """Deal with a message, or have it dealt with in its turn; each is acknowledged once."""
        match event.kind:
            case "invocation":
                self._expect_uploads(event)
                self._waiting.append(event)
                self._go_on()
                self._read_on()
                return
            case "stream":
                self._expect_uploads(event)
                scope = None
                if event.id not in self._streams:  # here and now: what cancels it may come next
                    scope = self._streams[event.id] = anyio.CancelScope()
                self._tasks.start_soon(self._guarded, self._stream, event, scope)
            case "item":
                upload = self._uploads.get(event.id)
                if upload is not None:
                    upload.push(event.body)
                    return
            case "cancel":
                scope = self._streams.get(event.id)
                if scope is not None:
                    scope.cancel()
            case _:
                self._completed(event)
        self._acknowledge()

    def drained(self) -> None:
        """The socket has taken all that was sent."""
        if self._drained is not None:
            self._drained.set()

    def end(self, gone: Exception) -> None:
        """The client is gone, or the hub stops: streams stop, and nothing waits for it any more."""
        self._waiting.clear()
        for scope in self._streams.values():
            scope.cancel()
        for upload in self._uploads.values():
            upload.end(gone)
        for answer in self._answers.values():
            answer.error = gone
            answer.came.set()
        self.drained()

    def _completed(self, event: "HubMessage") -> None:
        error = event.body.decode() if event.kind == "error" else None
        upload = self._uploads.get(event.id)  # it stays until its method is done: that may not have begun
        if upload is not None:
            upload.end(None if error is None else HubError(error))
            return
        answer = self._answers.pop(event.id, None)
        if answer is None:
            return
        if error is not None:
            answer.error = CallFailed(error)
        elif event.kind == "result":
            try:
                answer.result = ANY.decode(event.body, self._is_json)
            except ValueError as cannot:
                answer.error = CallFailed(f"the result cannot be read: {cannot}")
        answer.came.set()

    # Invocations

    def _go_on(self) -> None:
        while self._waiting and self._running < self._parallel_max:
            event = self._waiting.popleft()
            is_acknowledged = self._early > 0
            self._early -= is_acknowledged
            method = self._methods.find(event.target)
            if method is None or not (method.callback.is_async or method.is_stream):
                finish(self._guarded(self._answer, event, method))
                if not is_acknowledged:
                    self._acknowledge()
            else:
                self._running += 1
                self._tasks.start_soon(self._run, event, method, is_acknowledged)

    def _read_on(self) -> None:
        """While the client owes an answer, calls that wait for their turn must not keep it from being read."""
        while self._answers and self._early < min(len(self._waiting), EARLY_MAX):
            self._early += 1
            self._acknowledge()

    async def _guarded(self, deal_with: Callable[..., Awaitable[None]], event: "HubMessage", *arguments: Any) -> None:
        """Raises nothing but cancellation: the hub outlives any call, and the call is answered."""
        try:
            await deal_with(event, *arguments)
        except BaseException as error:  # such as arguments that a type of the application chokes on
            if ends_task(error):
                raise
            self._client._note("signalr", error, "a call of client %d could not be dealt with", self._client.id)
            self._fail(event, unexpected_error(event.target))

    async def _run(self, event: "HubMessage", method: Method, is_acknowledged: bool) -> None:
        try:
            await self._guarded(self._answer, event, method)
        finally:
            self._running -= 1
            if not is_acknowledged:
                self._acknowledge()
            self._go_on()

    async def _answer(self, event: "HubMessage", method: Method | None) -> None:
        target = event.target
        if method is None:
            self._fail(event, failed_to_invoke(target), HubError("Method does not exist."))
            return
        arguments = self._arguments(event, method)
        if arguments is None:
            return
        if method.is_stream:
            name = method.name
            self._fail(
                event, f"The client attempted to invoke the streaming '{name}' method with a non-streaming invocation."
            )
            return
        try:
            result = await method.callback(self._client, *arguments)
        except Exception as error:
            self._log_unless_told(error, method)
            self._fail(event, unexpected_error(method.name), error)
        else:
            if event.id:
                self._complete(event.id, result, method)
        finally:
            self._abandon_uploads(event)

    def _complete(self, id: str, result: object, method: Method) -> None:
        try:
            self._engine.complete(self._client.id, id, result)
        except Exception as error:
            self._client._note("method.result", error, "what method %r returned cannot be sent", method.name)
            self._endings.fail_call(self._client.id, id, unexpected_error(method.name))

    def _arguments(self, event: "HubMessage", method: Method) -> list[Any] | None:
        """The arguments, uploads in their places; None when the client has been told what is wrong."""
        signature = method.signature
        try:
            arguments = signature.decode(event.body, self._is_json)
        except ValueError as error:
            hub_log.info("client %d called %r with wrong arguments: %s", self._client.id, method.name, error)
            self._fail(event, failed_to_invoke(method.name))
            return None
        if len(event.stream_ids) != len(signature.streams):
            hub_log.info(
                "client %d called %r with %d streams, it takes %d",
                self._client.id,
                method.name,
                len(event.stream_ids),
                len(signature.streams),
            )
            count, expected = len(event.stream_ids), len(signature.streams)
            wrong = HubError(f"Client sent {count} stream(s), Hub method expects {expected}.")
            self._fail(event, unexpected_error(method.name), wrong)
            return None
        for upload, (place, _) in zip(self._uploads_of.get(id(event), ()), signature.streams, strict=True):
            arguments.insert(place, upload)
        return arguments

    def _fail(self, event: "HubMessage", text: str, error: Exception | None = None) -> None:
        self._abandon_uploads(event)
        if event.id:
            told = f"{text} HubException: {sendable(error)}" if isinstance(error, TOLD) else text
            self._endings.fail_call(self._client.id, event.id, told)

    def _log_unless_told(self, error: Exception, method: Method) -> None:
        if not isinstance(error, TOLD):
            self._client._note("method", error, "method %r, called by client %d, raised", method.name, self._client.id)

    # Streams

    async def _stream(self, event: "HubMessage", scope: anyio.CancelScope | None) -> None:
        try:
            await self._stream_within(event, scope)
        finally:
            if scope is not None:
                del self._streams[event.id]

    async def _stream_within(self, event: "HubMessage", scope: anyio.CancelScope | None) -> None:
        """`scope` is what cancels it; None where its id is in use."""
        target = event.target
        method = self._methods.find(target)
        if method is None:
            self._fail(event, failed_to_invoke(target), HubError("Method does not exist."))
            return
        if not method.is_stream:
            name = method.name
            self._fail(
                event, f"The client attempted to invoke the non-streaming '{name}' method with a streaming invocation."
            )
            return
        if scope is None:
            self._fail(event, f"Invocation ID '{event.id}' is already in use.")
            return
        arguments = self._arguments(event, method)
        if arguments is None:
            return
        try:
            with scope:
                if not scope.cancel_called:  # else the client has gone, or thought better of it
                    await self._send_items(event.id, method.callback.function(self._client, *arguments))
            self._engine.complete_void(self._client.id, event.id)
        except Exception as error:
            self._log_unless_told(error, method)
            self._fail(event, "An error occurred on the server while streaming results.", error)
        finally:
            self._abandon_uploads(event)

    async def _send_items(self, id: str, items: Any) -> None:
        ahead = 0
        try:
            async for item in items:
                self._engine.stream_item(self._client.id, id, item)
                ahead += 1
                if ahead == ITEMS_AHEAD:
                    ahead = 0
                    await self._room()
        except BaseException as error:
            raise_if_strayed(error)
            raise
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()

    async def _room(self) -> None:
        """Wait until the client has taken what was sent, or is gone."""
        if self._drained is None or self._drained.is_set():
            self._drained = anyio.Event()
            self._engine.ask_drained(self._client.id)
        await self._drained.wait()

    # Uploads

    def _expect_uploads(self, event: "HubMessage") -> None:
        """Items may come before the method has begun, even before it is its turn."""
        if not event.stream_ids:
            return
        method = self._methods.find(event.target)
        decoders = [decoder for _, decoder in method.signature.streams] if method else []
        uploads = self._uploads_of[id(event)] = []
        for index, stream in enumerate(event.stream_ids):
            decoder = decoders[index] if index < len(decoders) else ANY
            uploads.append(Upload(decoder, self._is_json, self._acknowledge))
            before = self._uploads.get(stream)
            if before is not None:
                before.end(HubError(f"The stream '{stream}' was begun again by a later call."))
            self._uploads[stream] = uploads[-1]

    def _abandon_uploads(self, event: "HubMessage") -> None:
        uploads = self._uploads_of.pop(id(event), ())
        for stream, upload in zip(event.stream_ids, uploads, strict=True) if uploads else ():
            upload.abandon()
            if self._uploads.get(stream) is upload:  # else a later call has taken the id
                del self._uploads[stream]

    # Calls to the client

    async def ask(self, target: str, arguments: tuple[Any, ...]) -> Any:
        """Call the client and wait for what it answers; see ``Client.invoke``."""
        self._asked += 1
        id = f"s{self._asked}"
        answer = self._answers[id] = Answer()
        try:
            self._engine.invoke(self._client.id, target, arguments, id)
            self._read_on()
            await answer.came.wait()
        finally:
            self._answers.pop(id, None)
        if answer.error is not None:
            raise answer.error
        return answer.result


def failed_to_invoke(target: str) -> str:
    """What is answered to an invocation that cannot be made."""
    return f"Failed to invoke '{target}' due to an error on the server."


def unexpected_error(target: str) -> str:
    """What is answered when a method raised."""
    return f"An unexpected error occurred invoking '{target}' on the server."
