"""What a call carries, read as the annotations of the method say. ✗ what is done with it.

Types are msgspec's: ``int``, ``str``, ``list[float]``, dataclasses, ``TypedDict``, ``datetime`` and so on; without an
annotation anything goes. JSON has base64 for ``bytes`` and ISO 8601 for ``datetime``, as .NET writes them.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from fanwire.logs import hub_log

STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator)
"""Annotations of a parameter that takes what a client streams."""


class Decoder:
    """Reads one value of a type, from JSON or MessagePack."""

    __slots__ = ("_json", "_msgpack", "name")

    def __init__(self, name: str, type_: Any) -> None:
        self.name = name
        self._json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type_)
        self._msgpack: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(type_)

    def decode(self, data: bytes | msgspec.Raw, is_json: bool) -> Any:
        """The value. Raises ValueError with the name of what it is for, and what is wrong."""
        try:
            return self._json.decode(data) if is_json else self._msgpack.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"{self.name}: {error}") from error


ITEMS = Decoder("arguments", list[msgspec.Raw])
ANY = Decoder("value", Any)


class Signature:
    """The parameters of a method behind its client.

    Raises:
        TypeError: an annotation that nothing can be read as.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._parameters: list[Decoder] = []
        self._defaults: list[Any] = []
        self._required = 0
        self._rest: Decoder | None = None
        self.streams: list[tuple[int, Decoder]] = []
        """Of each parameter that takes a stream: its place, and what reads the stream's items."""
        try:
            parameters = list(inspect.signature(function).parameters.values())[1:]
        except ValueError:  # some built-in functions do not tell theirs
            self._rest = ANY
            return
        hints = _hints(name, function)
        place = 0
        for parameter in parameters:
            hint = hints.get(parameter.name, Any)
            what = f"argument {parameter.name!r}"
            try:
                if parameter.kind is parameter.VAR_POSITIONAL:
                    self._rest = Decoder(what, hint)
                elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    if get_origin(hint) in STREAMS or hint in STREAMS:
                        items = get_args(hint)
                        self.streams.append((place, Decoder(f"item of {parameter.name!r}", items[0] if items else Any)))
                    else:
                        self._parameters.append(Decoder(what, hint))
                        self._defaults.append(parameter.default)
                        if parameter.default is parameter.empty:
                            self._required = len(self._parameters)
                    place += 1
            except TypeError as error:
                raise TypeError(f"method {name!r}: {what} cannot be of type {hint}: {error}") from error

    def decode(self, body: bytes, is_json: bool) -> list[Any]:
        """The arguments in their order, streams left out. Raises ValueError that says which one is wrong."""
        items = ITEMS.decode(body, is_json)
        count = len(items)
        if count < self._required:
            raise ValueError(f"missing a required {self._parameters[count].name}")
        if count > len(self._parameters) and self._rest is None:
            raise ValueError(f"too many arguments: {count}, at most {len(self._parameters)} are taken")
        decoders = self._parameters
        arguments = [decoder.decode(item, is_json) for decoder, item in zip(decoders, items, strict=False)]
        if self.streams:
            arguments += self._defaults[count:]  # so that streams have their places behind those that are left out
        if self._rest is not None:
            arguments += [self._rest.decode(item, is_json) for item in items[len(decoders) :]]
        return arguments


def _hints(method: str, function: Callable[..., Any]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    try:
        return get_type_hints(inspect.unwrap(target), include_extras=True)
    except (NameError, TypeError, AttributeError):  # a name that only the type checker knows: one by one, then
        return dict(_hints_one_by_one(method, inspect.unwrap(target)))


def _hints_one_by_one(method: str, function: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(function, "__globals__", {})
    parameters = list(inspect.signature(function).parameters)
    for name, annotation in getattr(function, "__annotations__", {}).items():
        one = SimpleNamespace(__annotations__={name: annotation})
        try:
            yield from get_type_hints(one, globalns=names, include_extras=True).items()
        except (NameError, TypeError, AttributeError) as error:
            if name in parameters[1:] and name != "self":
                hub_log.warning("method %r: argument %r is not checked: its annotation: %s", method, name, error)
