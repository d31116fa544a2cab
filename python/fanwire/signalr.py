"""SignalR calls of one client: invocations, streams both ways, results that the client owes.

As in ASP.NET Core: invocations of a client come one after another, or ``signalr_parallel_max`` at once; streams do not
count. The texts of errors are its own, letter by letter: clients match on them. What the application did not mean for
the client is only logged.

What a client leaves waiting is bounded: streams and questions by number, and everything by the bytes of its budget. An
invocation over a bound is not acknowledged; what cannot wait is answered with an error that names the bound. All of it
is given back when the client goes, but for the method that is at work: that is done to its end, as there.
"""

import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import anyio

from fanwire._loop import ends_task, finish, is_cancelled, raise_if_strayed
from fanwire.arguments import ANY
from fanwire.budget import ENTRY_BYTES, TASK_BYTES, Budgets, weigh
from fanwire.errors import CallFailed, HubError, LimitReached, Told, anew
from fanwire.faults import Tasks
from fanwire.logs import hub_log
from fanwire.methods import UNSENDABLE, Method, Methods
from fanwire.uploads import UPLOAD_BYTES, Upload
from fanwire.wording import (
    STREAMING_FAILED,
    Wording,
    failed_to_invoke,
    not_a_stream,
    not_invoked,
    unexpected_error,
)

if TYPE_CHECKING:
    from fanwire._engine import Engine, HubMessage
    from fanwire.client import Client

EARLY_MAX = 256
"""Calls of a client that may wait for their turn while it owes an answer, so that the answer behind them is read."""
ITEMS_AHEAD = 32
"""Items of a method's stream that are sent before the client must have taken those before them."""
BYTES_AHEAD = 64 << 10
"""Bytes of all streams to a client that are sent before it must have taken those before them."""
QUESTION_BYTES = 2048
"""What a question costs that the client has yet to answer, beside the task that asks. An estimate with room."""
SMALL_BODY_BYTES = 512
"""Arguments up to here are charged by a rule, larger ones by what they have become."""
GROWTH = 25
"""How many times its bytes a small body may cost once it is read: an empty list is 56 bytes for 3."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """What the calls of all clients of one serving have in common."""

    engine: "Engine"
    tasks: Tasks
    budgets: Budgets
    wording: Wording
    own: Mapping[str, Any]
    """The hub's own options; see ``options.OWN``."""
    closing: set["Stream"]
    """Those that are over, and whose method has yet to let go."""


class ClientResult:
    """A client result, as SignalR calls it: what the client owes to ``Client.invoke``."""

    __slots__ = ("came", "error", "result")

    def __init__(self) -> None:
        self.came = anyio.Event()
        self.result: Any = None
        self.error: Exception | None = None


class Invocation:
    """A call that is at work or waits for its turn."""

    __slots__ = ("charged", "event", "is_acknowledged", "method", "uploads")

    def __init__(self, event: "HubMessage", method: Method | None, uploads: list[tuple[str, Upload]]) -> None:
        self.event = event
        self.method = method
        self.uploads = uploads
        self.is_acknowledged = False
        """Whether it is acknowledged though it is not dealt with."""
        self.charged = 0


class Stream:
    """A stream of a method's items; here from its invocation on until it has ended."""

    __slots__ = ("arguments", "charged", "id", "method", "scope", "uploads")

    def __init__(
        self, id: str, method: Method, arguments: list[Any], charged: int, uploads: list[tuple[str, Upload]]
    ) -> None:
        self.id = id
        self.method = method
        self.arguments = arguments
        self.charged = charged
        self.uploads = uploads
        self.scope = anyio.CancelScope()
        """What cancels it; here and now, since its cancellation may come in the same read."""


class Unsendable(Exception):
    """An item of a stream has no form; why is its cause."""


class Calls:
    """The calls of one client, both ways. Lives in the event loop's thread."""

    __slots__ = (
        "_acknowledge",
        "_asked",
        "_budget",
        "_bytes_ahead",
        "_client",
        "_context",
        "_drained",
        "_early",
        "_is_json",
        "_is_over",
        "_methods",
        "_results",
        "_running",
        "_streams",
        "_uploads",
        "_waiting",
    )

    def __init__(
        self, client: "Client", context: CallContext, methods: Methods, is_json: bool, acknowledge: Callable[[], None]
    ) -> None:
        self._client = client
        self._context = context
        self._methods = methods
        self._is_json = is_json
        self._acknowledge = acknowledge
        self._budget = context.budgets.open()
        # The client is gone, or the hub stops.
        self._is_over = False
        self._running = 0
        # How many of those that wait, from the first on, are acknowledged though they are not dealt with.
        self._early = 0
        self._waiting: deque[Invocation] = deque()
        self._streams: dict[str, Stream] = {}
        # By stream, whose items come now: until its call has ended.
        self._uploads: dict[str, Upload] = {}
        self._results: dict[str, ClientResult] = {}
        self._asked = 0
        # Of items that were sent since the socket had taken all.
        self._bytes_ahead = 0
        self._drained: anyio.Event | None = None

    # What comes

    def take(self, event: "HubMessage") -> None:
        """Deal with a message, or have it dealt with in its turn; each is acknowledged once."""
        match event.kind:
            case "invocation":
                self._waiting.append(self._expect(event))
                self._go_on()
                self._read_on()
                return
            case "stream":
                self._begin_stream(event)
            case "item":
                upload = self._uploads.get(event.id)
                if upload is not None:
                    upload.push(event.body)
                    return
            case "cancel":
                stream = self._streams.get(event.id)
                if stream is not None:
                    stream.scope.cancel()
            case _:
                self._completed(event)
        self._acknowledge()

    def drained(self) -> None:
        """The socket has taken all that was sent."""
        self._bytes_ahead = 0
        if self._drained is not None:
            self._drained.set()

    def end(self, gone: Exception) -> None:
        """The client is gone, or the hub stops: streams stop, and nothing waits for it any more."""
        self._is_over = True
        self._early = 0
        while self._waiting:
            self._forget(self._waiting.popleft())
        for stream in self._streams.values():
            stream.scope.cancel()
        for upload in self._uploads.values():
            upload.lose(gone)
        for owed in self._results.values():
            owed.error = anew(gone)
            owed.came.set()
        self.drained()

    @property
    def bytes(self) -> int:
        """What waits for the client now, by its budget."""
        return self._budget.bytes

    def _completed(self, event: "HubMessage") -> None:
        error = event.body.decode() if event.kind == "error" else None
        upload = self._uploads.get(event.id)  # it stays until its method is done: that may not have begun
        if upload is not None:
            upload.end(None if error is None else HubError(error))
            return
        owed = self._results.pop(event.id, None)
        if owed is None:
            return
        if error is not None:
            owed.error = CallFailed(error)
        elif event.kind == "result":
            try:
                owed.result = ANY.decode(event.body, self._is_json)
            except ValueError as cannot:
                owed.error = CallFailed(f"the result cannot be read: {cannot}")
        owed.came.set()

    # Invocations

    def _expect(self, event: "HubMessage") -> Invocation:
        method = self._methods.find(event.target)
        return Invocation(event, method, self._expect_uploads(event, method))

    def _go_on(self) -> None:
        while self._waiting and self._running < self._context.own["signalr_parallel_max"]:
            call = self._waiting.popleft()
            self._early -= call.is_acknowledged
            method = call.method
            if method is None or not (method.callback.is_async or method.is_stream):
                finish(self._guarded(call))
                self._close(call)
            else:
                self._running += 1
                self._context.tasks.start_soon(self._run, call, method)

    def _read_on(self) -> None:
        """While the client owes an answer, calls that wait for their turn must not keep it from being read."""
        while self._results and self._early < len(self._waiting):
            call = self._waiting[self._early]
            cost = cost_of(call.event) + UPLOAD_BYTES * len(call.uploads)
            try:
                if self._early >= EARLY_MAX:
                    raise self._budget.refuse("calls that wait while an answer is owed", EARLY_MAX + 1, EARLY_MAX)
                self._budget.require(cost)
            except LimitReached as error:
                del self._waiting[self._early]
                self._fail_unless_void(call.event.id, failed_to_invoke(call.event.target), HubError(str(error)))
                self._close(call)
            else:
                call.charged = cost
                call.is_acknowledged = True
                self._early += 1
                self._acknowledge()

    async def _guarded(self, call: Invocation) -> None:
        """Raises nothing but cancellation: the hub outlives any call, and the call is answered."""
        try:
            await self._answer(call)
        except BaseException as error:  # such as arguments that a type of the application chokes on
            if ends_task(error):
                raise
            self._failed(call.event.id, call.event.target, error)

    def _failed(self, id: str, target: str, error: BaseException) -> None:
        """What is raised beside the application's method."""
        self._client._note("signalr", error, "a call of client %s could not be dealt with", self._client)
        self._fail_unless_void(id, unexpected_error(target), error)

    async def _run(self, call: Invocation, method: Method) -> None:
        try:
            await self._guarded(call)
        finally:
            self._running -= 1
            self._close(call)
            self._go_on()

    def _close(self, call: Invocation) -> None:
        """It is dealt with."""
        self._forget(call)
        if not call.is_acknowledged:
            self._acknowledge()

    def _forget(self, call: Invocation) -> None:
        self._abandon_uploads(call.uploads)
        self._budget.release(call.charged)
        call.charged = 0

    async def _answer(self, call: Invocation) -> None:
        event, method = call.event, call.method
        if method is None:
            self._fail_unless_void(event.id, failed_to_invoke(event.target), HubError("Method does not exist."))
            return
        arguments = self._arguments(event, method)
        if arguments is None:
            return
        with_uploads(arguments, call.uploads, method)
        if method.is_stream:
            self._fail_unless_void(event.id, not_invoked(method.name, is_stream=True))
            return
        try:
            result = await method.callback(self._client, *arguments)
        except Exception as error:
            self._log_unless_told(error, method)
            self._fail_unless_void(event.id, unexpected_error(method.name), error)
        else:
            if event.id:
                self._complete(event.id, result, method)

    def _complete(self, id: str, result: object, method: Method) -> None:
        engine, client = self._context.engine, self._client.id
        try:
            engine.complete(client, id, result)
        except Exception as error:
            method.note_unsendable(self._client, error, "what method %r returned to client %s cannot be sent")
            self._fail_unless_void(id, unexpected_error(method.name), error)

    def _tell(self, method: Method, text: str, *arguments: object) -> None:
        """Tell the log of a call that was refused: one line of a method in a while, as clients call without end."""
        faults = self._client._link.faults
        refused = f"refused calls of {method.name!r}"
        faults.tell(hub_log, logging.INFO, refused, text, self._client, method.name, *arguments, most=1)

    def _arguments(self, event: "HubMessage", method: Method) -> list[Any] | None:
        """The arguments, uploads left out; None when the client has been told what is wrong."""
        signature = method.signature
        try:
            arguments = signature.decode(event.body, self._is_json)
        except ValueError as error:
            self._tell(method, "client %s called %r with wrong arguments: %s", error)
            self._fail_unless_void(event.id, failed_to_invoke(method.name), error)
            return None
        count, expected = len(event.stream_ids), len(signature.streams)
        if count != expected:
            self._tell(method, "client %s called %r with %d streams, it takes %d", count, expected)
            wrong = HubError(f"Client sent {count} stream(s), Hub method expects {expected}.")
            self._fail_unless_void(event.id, unexpected_error(method.name), wrong)
            return None
        return arguments

    def _fail_unless_void(self, id: str, text: str, error: BaseException | None = None) -> None:
        """Answer with an error, if an answer is wanted."""
        if id:
            told = text if error is None else self._context.wording.of(text, error)
            self._client._link.endings.fail_call(self._client.id, id, told)

    def _log_unless_told(self, error: BaseException, method: Method) -> None:
        if not isinstance(error, Told):
            self._client._note("method", error, "method %r, called by client %s, raised", method.name, self._client)

    # Streams

    def _begin_stream(self, event: "HubMessage") -> None:
        try:
            stream = self._open_stream(event)
        except BaseException as error:  # as of an invocation
            if ends_task(error):
                raise
            self._failed(event.id, event.target, error)
        else:
            if stream is not None:
                self._context.tasks.start_soon(self._run_stream, stream)

    def _open_stream(self, event: "HubMessage") -> Stream | None:
        """The stream, with its place taken; None when the client has been told what is wrong."""
        id, method = event.id, self._methods.find(event.target)
        if method is None:
            self._fail_unless_void(id, failed_to_invoke(event.target), HubError("Method does not exist."))
            return None
        if not method.is_stream:
            self._fail_unless_void(id, not_invoked(method.name, is_stream=False))
            return None
        if id in self._streams:
            self._fail_unless_void(id, f"Invocation ID '{id}' is already in use.")
            return None
        try:
            cost = self._charge_stream(event, method)
        except LimitReached as error:
            self._tell(method, "client %s wanted a stream of %r too many: %s", error)
            self._fail_unless_void(id, failed_to_invoke(method.name), HubError(str(error)))
            return None
        try:
            arguments = self._arguments(event, method)
        except BaseException:
            self._budget.release(cost)
            raise
        if arguments is None:
            self._budget.release(cost)
            return None
        stream = self._streams[id] = Stream(id, method, arguments, cost, self._expect_uploads(event, method))
        with_uploads(arguments, stream.uploads, method)
        return stream

    def _charge_stream(self, event: "HubMessage", method: Method) -> int:
        """Charge what it will cost, while it goes on, beside what its method itself keeps. Raises LimitReached."""
        most = self._context.own["signalr_streams_max"]
        if len(self._streams) >= most:
            raise self._budget.refuse("signalr_streams_max", len(self._streams) + 1, most)
        cost = TASK_BYTES + cost_of(event) + UPLOAD_BYTES * len(method.signature.streams)
        if len(event.body) <= SMALL_BODY_BYTES:
            cost += (GROWTH - 1) * len(event.body)
        elif self._budget.left >= cost:  # else it is over the bound however it is read
            with suppress(ValueError):  # then its arguments cannot be read, and it will not begin
                cost += weigh(ANY.decode(event.body, self._is_json), self._budget.left)
        self._budget.require(cost)
        return cost

    async def _run_stream(self, stream: Stream) -> None:
        try:
            await self._stream(stream)
        finally:
            self._abandon_uploads(stream.uploads)
            self._budget.release(stream.charged)
            del self._streams[stream.id]

    async def _stream(self, stream: Stream) -> None:
        if self._is_over:
            return
        engine, client, name = self._context.engine, self._client.id, stream.method.name
        text = unexpected_error(name)
        close: Callable[[], Awaitable[object]] | None = None
        try:
            try:
                # Cancelled already or not, it runs to its first await: as there, where what comes is dealt with one by
                # one.
                with stream.scope:
                    items = await self._items(stream)
                    if not isinstance(items, AsyncIterable):
                        what, told = f"what {name!r} returned", (name, type(items).__name__)
                        faults = self._client._link.faults
                        faults.tell(hub_log, logging.ERROR, what, "method %r, a stream, returned %s", *told, most=1)
                        self._fail_unless_void(stream.id, not_a_stream(name))
                        return
                    text = STREAMING_FAILED
                    close = getattr(items, "aclose", None)
                    await self._send_items(stream.id, items)
            finally:
                if close is not None:
                    await self._close_items(stream, close)
            engine.complete_void(client, stream.id)
        except Unsendable as unsendable:
            why = cast(Exception, unsendable.__cause__)
            stream.method.note_unsendable(self._client, why, "an item that stream %r gave client %s cannot be sent")
            self._fail_unless_void(stream.id, text, why)
        except Exception as error:
            self._log_unless_told(error, stream.method)
            self._fail_unless_void(stream.id, text, error)

    async def _items(self, stream: Stream) -> Any:
        """What the method gives; it may be a coroutine that gives the stream."""
        arguments, stream.arguments = stream.arguments, []
        try:
            items = stream.method.callback.function(self._client, *arguments)
            return await items if isinstance(items, Awaitable) else items
        except BaseException as error:
            raise_if_strayed(error)
            raise

    async def _send_items(self, id: str, items: Any) -> None:
        ahead = 0
        iterator = aiter(items)
        try:
            while True:
                if ahead == ITEMS_AHEAD or self._bytes_ahead >= BYTES_AHEAD:  # before there is an item to keep
                    ahead = 0
                    await self._room()
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    break
                if self._bytes_ahead >= BYTES_AHEAD:  # other streams have filled it meanwhile
                    await self._room()
                try:
                    self._bytes_ahead += self._context.engine.stream_item(self._client.id, id, item)
                except UNSENDABLE as error:
                    raise Unsendable from error
                ahead += 1
        except BaseException as error:
            raise_if_strayed(error)
            raise

    async def _close_items(self, stream: Stream, close: Callable[[], Awaitable[object]]) -> None:
        """Have the application's code let go; the end of the client or of the stream does not cut that off.

        The end of serving waits for it as for other callbacks, and then does.
        """
        self._context.closing.add(stream)
        try:
            await close()
        except BaseException as error:
            raise_if_strayed(error)
            if is_cancelled():
                text = "stream %r of client %s was still being closed when time was up: it is cancelled"
                hub_log.warning(text, stream.method.name, self._client)
            raise
        finally:
            self._context.closing.discard(stream)

    async def _room(self) -> None:
        """Wait until the client has taken what was sent, or is gone."""
        await anyio.lowlevel.checkpoint_if_cancelled()  # what never waits itself is stopped here
        is_first = True
        while is_first or self._bytes_ahead >= BYTES_AHEAD:  # other streams may have filled it again
            is_first = False
            if self._drained is None or self._drained.is_set():
                self._drained = anyio.Event()
                self._context.engine.ask_drained(self._client.id)
            await self._drained.wait()

    # Uploads

    def _expect_uploads(self, event: "HubMessage", method: Method | None) -> list[tuple[str, Upload]]:
        """Items may come before the method has begun, even before it is its turn. A wrong number of them is none."""
        decoders = method.signature.streams if method is not None else ()
        if not decoders or len(event.stream_ids) != len(decoders):
            return []
        uploads = []
        for id, (_, decoder) in zip(event.stream_ids, decoders, strict=True):
            upload = Upload(decoder, self._is_json, self._acknowledge, self._budget, self._context.wording)
            before = self._uploads.get(id)
            if before is not None:
                before.end(HubError(f"The stream '{id}' was begun again by a later call."))
            self._uploads[id] = upload
            uploads.append((id, upload))
        return uploads

    def _abandon_uploads(self, uploads: list[tuple[str, Upload]]) -> None:
        for id, upload in uploads:
            upload.abandon()
            if self._uploads.get(id) is upload:  # else a later call has taken the id
                del self._uploads[id]

    # Calls to the client

    async def ask(self, target: str, arguments: tuple[Any, ...]) -> Any:
        """Call the client and wait for what it answers; see ``Client.invoke``."""
        most = self._context.own["signalr_questions_max"]
        if len(self._results) >= most:
            raise self._budget.refuse("signalr_questions_max", len(self._results) + 1, most)
        self._budget.require(QUESTION_BYTES)
        self._asked += 1
        id = f"s{self._asked}"
        owed = self._results[id] = ClientResult()
        try:
            self._context.engine.invoke(self._client.id, target, arguments, id)
            self._read_on()
            await owed.came.wait()
        finally:
            self._results.pop(id, None)
            self._budget.release(QUESTION_BYTES)
        if owed.error is not None:
            raise owed.error
        return owed.result


def with_uploads(arguments: list[Any], uploads: list[tuple[str, Upload]], method: Method) -> None:
    """Put the uploads into their places among the other arguments."""
    for (_, upload), (place, _) in zip(uploads, method.signature.streams, strict=True):
        arguments.insert(place, upload)


def cost_of(event: "HubMessage") -> int:
    """What a message costs while it waits: its bytes, and its strings once in Rust and once in Python."""
    return ENTRY_BYTES + len(event.body) + 5 * (len(event.id) + len(event.target) + sum(map(len, event.stream_ids)))
