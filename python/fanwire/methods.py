"""Methods that clients may call, hubs beside the main one, and calls of the raw protocol.

Such a call reads ``{"call": "PlaceBet", "args": […], "id": 1}``.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Concatenate, TypeVar, overload

from anyio.lowlevel import checkpoint

from fanwire._engine import Call
from fanwire._loop import Callback
from fanwire.arguments import Signature, check_parameters, gives_stream
from fanwire.client import Client
from fanwire.errors import EncodeError, PayloadTooBig, Told
from fanwire.values import told

UNSENDABLE = (EncodeError, PayloadTooBig, TypeError, ValueError)
"""Raised where a result or an item has no form, or one that is too big."""


class Method:
    """A function that clients may call by a name.

    Raises:
        TypeError: it is no function, or its annotations are such that nothing can be read as they say.
    """

    __slots__ = ("_function", "callback", "is_stream", "name", "signature")

    signature: Signature
    """How arguments are read. Set when it is made, or by ``settle``."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._function = function
        check_parameters(f"method {name!r}", function, ("client",), takes_more=True)
        self.is_stream, is_plain = gives_stream(function)
        """Whether it gives a stream: a generator, async or not, or a function that says that it returns one."""
        self.callback = Callback(awaited(function) if is_plain else function)
        with suppress(NameError):  # a name that is defined below, perhaps
            self.signature = Signature(name, function)

    def settle(self) -> None:
        """Read the annotations that could not be read before. Raises TypeError for one that still cannot be."""
        if not hasattr(self, "signature"):
            try:
                self.signature = Signature(self.name, self._function)
            except NameError as error:
                raise TypeError(f"{error}; it must be there when the program runs, or be Any") from error

    async def answer(self, client: Client, call: Call) -> None:
        """Call the function and send what came of it. Raises nothing but cancellation."""
        try:
            if self.is_stream or self.signature.streams:
                raise ValueError("streams are for clients of SignalR")
            arguments = self.signature.decode(call.arguments.encode(), True)
        except ValueError as error:
            reply_error(client, call.id, f"method {self.name!r}: {error}")
            return
        try:
            result = await self.callback(client, *arguments)
        except Exception as error:
            if not isinstance(error, Told):
                client._note("method", error, "method %r, called by client %s, raised", self.name, client)
            reply_error(client, call.id, client._link.wording.raw(error))
        else:
            self._reply(client, call.id, result)

    def _reply(self, client: Client, id: str | None, result: object) -> None:
        if id is None:
            return
        try:
            reply_result(client, id, result)
        except UNSENDABLE as error:
            self.note_unsendable(client, error, "what method %r returned to client %s cannot be sent")
            reply_error(client, id, client._link.wording.raw(error))

    def note_unsendable(self, client: Client, error: Exception, text: str) -> None:
        """Note that what it gave has no form, as `text` says of it and the client.

        A client may be able to cause that at will, where a method gives back what it got: a warning of each method is
        written in a while, and the others are counted.
        """
        client._link.faults.note("method.result", error, text, self.name, client, of=self.name)


def awaited(function: Callable[..., Iterable[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """A generator as an async one. It runs in the loop, which has a turn between two items."""

    async def stream(*arguments: Any) -> AsyncIterator[Any]:
        items = iter(function(*arguments))
        try:
            for item in items:
                yield item
                await checkpoint()
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    return stream


class Methods:
    """The methods of one hub, by name; SignalR compares names without regard to case."""

    __slots__ = ("_by_folded", "_by_name", "_is_served")

    def __init__(self, *, is_served: bool = False) -> None:
        # Its clients may call at once.
        self._is_served = is_served
        self._by_name: dict[str, Method] = {}
        self._by_folded: dict[str, Method] = {}

    def add(self, method: Method) -> None:
        """Register it. Raises ValueError for a name that is taken, and what ``settle`` raises if clients are there."""
        if self._is_served:
            method.settle()
        folded = method.name.casefold()
        if folded in self._by_folded:
            raise ValueError(f"method {method.name!r} is registered already")
        self._by_name[method.name] = self._by_folded[folded] = method

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def __iter__(self) -> Iterator[Method]:
        return iter(self._by_name.values())

    def settle(self) -> None:
        """Before they are called: see ``Method.settle``."""
        for method in self._by_name.values():
            method.settle()

    def get(self, name: str) -> Method | None:
        """The method of exactly this name."""
        return self._by_name.get(name)

    def find(self, name: str) -> Method | None:
        """The method of this name in any case."""
        return self._by_name.get(name) or self._by_folded.get(name.casefold())


def reply_result(client: Client, id: str, result: object) -> None:
    """Answer the message whose ``id``, as JSON text, is `id`. Raises what ``Client.send`` raises."""
    client._reply_result(id, result)


def reply_error(client: Client, id: str | None, text: object) -> None:
    """Answer a call with an error; one without an id gets none. Raises nothing."""
    if id is not None:
        tell_error(client, id, text)


def tell_error(client: Client, id: str | None, text: object) -> None:
    """Send ``{"error": text}``, with the ``id`` of what it answers where there is one. Raises nothing."""
    client._link.endings.tell_error(client.id, id, text)


M = TypeVar("M", bound=Callable[Concatenate[Client, ...], Any])
"""A method: its client, and what it is called with."""


class Endpoint:
    """A SignalR hub of its own: a path, and the methods that its clients may call. ``Hub.endpoint`` makes it."""

    def __init__(self, path: str, methods: Methods, may_register: Callable[[str], None]) -> None:
        self.path: str = path
        """Where clients connect; ``/negotiate`` is below it."""
        self._methods = methods
        self._may_register = may_register

    @overload
    def method(self, name: M) -> M: ...
    @overload
    def method(self, name: str) -> Callable[[M], M]: ...
    def method(self, name: Any) -> Any:
        """Let clients of this path call the function; see ``Hub.method``."""
        if not isinstance(name, str):
            if not callable(name):
                raise TypeError(f"method takes a function, or the name to register it by, a str, not {told(name)}")
            if not hasattr(name, "__name__"):
                raise TypeError(f"{name!r} has no name of its own: register it with method('Name')")
            return self.method(name.__name__)(name)
        if not name:
            raise ValueError("name must be a str that is not empty: clients call the method by it")

        def register(function: M) -> M:
            self._may_register(f"method {name!r}")
            self._methods.add(Method(name, function))
            return function

        return register
