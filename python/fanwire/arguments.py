"""What a call carries, read as the annotations of the method say. Not here: what is done with it.

Types are msgspec's: ``int``, ``str``, ``list[float]``, dataclasses, ``TypedDict``, ``datetime`` and so on, and models
of pydantic, which pydantic reads; without an annotation anything goes. JSON has base64 for ``bytes`` and ISO 8601 for
``datetime``, as .NET writes them; a ``timedelta`` may be ISO 8601 or .NET's ``TimeSpan``, a ``Decimal`` a number.
"""

import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from fanwire.timespans import Durations, lone_surrogate
from fanwire.wording import InvalidData

STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator)
"""Annotations of a parameter that takes what a client streams, and of a method that gives a stream."""
PLAIN_STREAMS = (Iterator, Generator, Iterable)
"""What a method may say that it returns, besides, to give a stream without awaiting."""


class Decoder:
    """Reads one value of a type, from JSON or MessagePack.

    Raises:
        TypeError: nothing can be read as such a type.
        NameError: the type holds a name that does not stand for anything yet.
    """

    __slots__ = ("_durations", "_json", "_msgpack", "name")

    def __init__(self, name: str, type_: Any) -> None:
        self.name = name
        type_ = Any if type_ is object else type_
        for unknown in custom_types(type_):
            if not is_pydantic(unknown):
                raise TypeError(f"nothing reads a {unknown.__module__}.{unknown.__qualname__}")
        self._durations = Durations(type_)
        self._json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type_, dec_hook=read_pydantic)
        self._msgpack: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(type_, dec_hook=read_pydantic)

    def decode(self, data: bytes | msgspec.Raw, is_json: bool) -> Any:
        """The value. Raises InvalidData with the name of what it is for, and what is wrong."""
        try:
            return self._decode(data, is_json)
        except (msgspec.DecodeError, RecursionError) as error:
            half = lone_surrogate(bytes(data)) if is_json else None
            why = f"a string has {half}, half of a surrogate pair" if half else error
            raise InvalidData(f"{self.name}: {why}") from error

    def _decode(self, data: bytes | msgspec.Raw, is_json: bool) -> Any:
        decoder = self._json if is_json else self._msgpack
        try:
            return decoder.decode(data)
        except msgspec.ValidationError:
            if not self._durations:
                raise
        return decoder.decode(self._durations.mend(data, is_json))


def custom_types(type_: Any) -> Iterator[Any]:
    """Those that msgspec does not read by itself, anywhere in a type."""
    waiting: list[msgspec.inspect.Type | msgspec.inspect.Field] = [msgspec.inspect.type_info(type_)]
    seen: set[int] = set()
    while waiting:
        info = waiting.pop()
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.CustomType):
            yield get_origin(info.cls) or info.cls
        for name in getattr(info, "__struct_fields__", ()):
            value = getattr(info, name)
            parts = value if isinstance(value, tuple) else (value,)
            waiting += [part for part in parts if isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field)]


def is_pydantic(type_: Any) -> bool:
    """Whether it is a model of pydantic; where pydantic was never imported there are none."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)


def read_pydantic(type_: Any, value: Any) -> Any:
    """The model out of what stands for it. Raises ValueError with all that is wrong, on one line."""
    try:
        return type_.model_validate(value)
    except sys.modules["pydantic"].ValidationError as error:
        wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors())
        raise ValueError("; ".join(wrong)) from error


BINDING_FAILED = (
    "Error binding arguments. Make sure that the types of the provided values match the types of the hub method being"
    " invoked."
)
"""What the reference says of arguments of a wrong type; here it also says which."""
ITEMS = Decoder("arguments", list[msgspec.Raw])
ANY = Decoder("value", Any)


class Signature:
    """The parameters of a method behind its client.

    Raises:
        TypeError: an annotation that nothing can be read as; it names the parameter.
        NameError: an annotation that holds a name which does not stand for anything yet; it names the parameter.
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
        hints = _hints(name, function, parameters)
        place = 0
        for parameter in parameters:
            hint = hints.get(parameter.name, Any)
            what = f"argument {parameter.name!r}"
            try:
                if parameter.kind is parameter.VAR_POSITIONAL:
                    self._rest = Decoder(what, hint)
                elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    if _is_stream(hint):
                        items = get_args(hint)
                        self.streams.append((place, Decoder(f"item of {parameter.name!r}", items[0] if items else Any)))
                    else:
                        self._parameters.append(Decoder(what, hint))
                        self._defaults.append(parameter.default)
                        if parameter.default is parameter.empty:
                            self._required = len(self._parameters)
                    place += 1
            except NameError as error:  # in a field of a dataclass, say
                raise NameError(f"method {name!r}: {what} cannot be of type {hint}: {error}") from error
            except TypeError as error:
                raise TypeError(f"method {name!r}: {what} cannot be of type {hint}: {error}") from error

    def decode(self, body: bytes, is_json: bool) -> list[Any]:
        """The arguments in their order, streams left out. Raises InvalidData that says which one is wrong."""
        items = ITEMS.decode(body, is_json)
        count = len(items)
        if count < self._required:
            raise InvalidData(f"missing a required {self._parameters[count].name}", self._counted(count))
        if count > len(self._parameters) and self._rest is None:
            detail = f"too many arguments: {count}, at most {len(self._parameters)} are taken"
            raise InvalidData(detail, self._counted(count))
        decoders = self._parameters
        try:
            arguments = [decoder.decode(item, is_json) for decoder, item in zip(decoders, items, strict=False)]
            if self.streams:
                arguments += self._defaults[count:]  # so that streams have their places behind those that are left out
            if self._rest is not None:
                arguments += [self._rest.decode(item, is_json) for item in items[len(decoders) :]]
        except InvalidData as error:
            raise InvalidData(str(error), f"{BINDING_FAILED} {error}") from error.__cause__
        return arguments

    def _counted(self, count: int) -> str:
        """What is wrong with that many arguments."""
        most = len(self._parameters)
        expected = f"{most}" if most == self._required else f"{self._required} to {most}"
        return f"Invocation provides {count} argument(s) but target expects {expected}."


def _is_stream(hint: Any) -> bool:
    return get_origin(hint) in STREAMS or hint in STREAMS


def check_parameters(
    what: str, function: Callable[..., Any], given: tuple[str, ...], *, takes_more: bool = False
) -> None:
    """Raises TypeError, which names the parameter, unless `function` can be called with so many arguments.

    Args:
        what: what it is registered as.
        given: names of what it is called with, in order.
        takes_more: whether it may be called with more.
    """
    if not callable(function):
        raise TypeError(f"{what} must be a function, not {type(function).__name__}")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions do not tell theirs
        return
    call = f"{what} is called as {getattr(function, '__name__', 'function')}({', '.join(given)}{', …' * takes_more})"
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    has_rest = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(places) < len(given) and not has_rest:
        raise TypeError(f"{call}, but it takes no {given[len(places)]!r}")
    surplus = [] if takes_more else places[len(given) :]
    surplus += [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    for one in surplus:
        if one.default is one.empty:
            raise TypeError(f"{call}, but its parameter {one.name!r} gets nothing and has no default")


def gives_stream(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether what a call of it returns is a stream of items, and whether a plain iterator gives them.

    That is a generator, async or not, or a ``def`` whose annotation says that it returns one or an iterator; an
    ``async def`` may return an async one.
    """
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    for one in (function, target):
        if inspect.isasyncgenfunction(one) or inspect.isgeneratorfunction(one):
            return True, inspect.isgeneratorfunction(one)
    try:
        returned = get_type_hints(inspect.unwrap(target)).get("return")
    except Exception:  # an annotation that names nothing, or an object that has none: no stream, then
        return False, False
    kind = get_origin(returned) or returned
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(target):
        return kind in STREAMS, False
    return kind in STREAMS or kind in PLAIN_STREAMS, kind in PLAIN_STREAMS


def _hints(method: str, function: Callable[..., Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    target = inspect.unwrap(target)
    try:
        return get_type_hints(target, include_extras=True)
    except Exception:  # perhaps only the client's, or what is returned: one by one, then
        return dict(_hints_one_by_one(method, target, {parameter.name for parameter in parameters}))


def _hints_one_by_one(method: str, function: Any, wanted: set[str]) -> Iterator[tuple[str, Any]]:
    names = getattr(function, "__globals__", {})
    for name, annotation in getattr(function, "__annotations__", {}).items():
        if name not in wanted:
            continue
        one = SimpleNamespace(__annotations__={name: annotation})
        try:
            yield from get_type_hints(one, globalns=names, include_extras=True).items()
        except NameError as error:
            raise NameError(f"method {method!r}: argument {name!r} is annotated {annotation!r}, but {error}") from error
        except Exception as error:
            raise TypeError(f"method {method!r}: argument {name!r} is annotated {annotation!r}: {error}") from error
