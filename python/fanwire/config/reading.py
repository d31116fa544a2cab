"""Reads a tree of settings as frozen dataclasses; every mistake is found, and told where it stands.

A field's annotation says what it takes: a kind (``fanwire.config.kinds``), a dataclass (a table), ``tuple[X, ...]``
(a list), ``Mapping[K, X]`` (a table of names), ``Literal[...]``. A dataclass may have ``faults()``, which gives
what is wrong between fields, as (path, message), and ``LATER``: keys not known yet, with a word on each.

A field that cannot be read holds ``UNREAD`` while ``faults()`` looks for more: whatever looks at it ends the check that
did, and ``apart`` keeps the other checks going. So one mistake hides none that has nothing to do with it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fanwire.config.kinds import ONE_OR_MORE, Leaf, Limits, NotGiven, Text, choice, shown
from fanwire.config.sources import Path, Sources, variable
from fanwire.errors import ConfigError
from fanwire.values import LIST_MAX, Mistake, check_count

T = TypeVar("T")


class NotRead(Exception):
    """A check looked at a field that could not be read."""


class Unread:
    """Stands for a field that could not be read."""

    def _look(self, *_: object) -> Any:
        raise NotRead

    __getattr__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _look
    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __hash__ = __str__ = __format__ = _look


UNREAD: Any = Unread()


def apart(*checks: Iterator[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """What each of `checks` finds; one that looks at a field that could not be read ends there, and only that one."""
    for check in checks:
        with suppress(NotRead):
            yield from check


@dataclass(frozen=True, slots=True)
class Chosen:
    """Of a list of tables: which dataclass one is, by what stands in it and in the table around."""

    choose: Callable[[dict[str, Any], dict[str, Any]], type]


def read(cls: type[T], sources: Sources) -> T:
    """The settings as `cls`, a dataclass.

    Raises:
        ExceptionGroup: of ConfigError, all that is wrong: in the file by line, then in the environment and the options.
    """
    reader = _Reader(sources, list(sources.faults))
    value = reader.read_table(cls, sources.tree, ())
    if reader.errors:
        errors = sorted(reader.errors, key=lambda error: error.line or 10**9)
        where = f"{sources.file}: " if sources.file else ""
        raise ExceptionGroup(f"{where}{len(errors)} error{'s' * (len(errors) > 1)}", errors)
    assert isinstance(value, cls)
    return value


@dataclass
class _Reader:
    sources: Sources
    errors: list[ConfigError] = field(default_factory=list)

    def read_table(self, cls: type, value: Any, path: Path) -> Any:
        """A dataclass; what is wrong in it is ``UNREAD``."""
        if not isinstance(value, dict):
            return self.wrong(path, value, "must be a table")
        kinds = kinds_of(cls)
        later: Mapping[str, str] = getattr(cls, "LATER", {})
        self.unknown(value.keys() - kinds.keys(), list(kinds), path, later)
        found: dict[str, Any] = {}
        for each in fields(cls):
            at = (*path, each.name)
            if each.name in value:
                found[each.name] = self.read_value(kinds[each.name], value[each.name], at, value)
            elif each.default is MISSING and each.default_factory is MISSING:
                found[each.name] = self.missing(kinds[each.name], at)
        made = _made(cls, found)
        for below, message in apart(made.faults()) if hasattr(made, "faults") else ():
            self.errors.append(self.sources.error((*path, *below), message))
        return made if later.keys().isdisjoint(value) else UNREAD  # it may be meant to be another kind of table

    def read_value(self, kind: Any, value: Any, path: Path, around: dict[str, Any]) -> Any:
        """Whatever the kind asks for; ``UNREAD`` if it is wrong."""
        leaf = leaf_at(kind)
        if leaf is not None:
            return self.read_leaf(leaf, value, path)
        kind, marks = unwrapped(kind)
        for mark in marks:
            if isinstance(mark, Limits):
                return self.read_limits(mark, value, path)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            return self.read_table(kind, value, path)
        if get_origin(kind) is tuple:
            chosen = next((mark for mark in marks if isinstance(mark, Chosen)), None)
            return self.read_list(get_args(kind)[0], value, path, around, chosen, is_one_allowed=ONE_OR_MORE in marks)
        key, each = get_args(kind)
        return self.read_names(key, each, value, path)

    def read_list(
        self, kind: Any, value: Any, path: Path, around: dict[str, Any], chosen: Chosen | None, *, is_one_allowed: bool
    ) -> Any:
        """A tuple."""
        if isinstance(value, Text):
            value = [Text(part.strip()) for part in value.split(",") if part.strip()]
        elif is_one_allowed and not isinstance(value, list):
            return (self.read_value(kind, value, path, around),)
        is_of_tables = is_dataclass(kind) or chosen is not None
        if not isinstance(value, list):
            origin = self.sources.origin(path)
            if isinstance(value, dict) and is_of_tables and origin and origin.line is None:
                example = variable((*path, 0, *origin.path[len(path) :]))
                return self.wrong(path, value, f"must say which of the list, as in {example}", is_shown=False)
            return self.wrong(path, value, f"must be a list{' of tables' * is_of_tables}")
        if is_one_allowed and not value:
            return self.wrong(path, value, "must not be empty", is_shown=False)
        try:
            check_count(value, () if is_dataclass(kind) else value)  # of relays and channels the engine has bounds
        except Mistake as mistake:
            return self.wrong(path, value, str(mistake), told=mistake.told)
        found = []
        for index, each in enumerate(value):
            one = chosen.choose(self.seen(each) if isinstance(each, dict) else {}, around) if chosen else kind
            found.append(self.read_value(one, each, (*path, index), around))
        return tuple(found)

    def seen(self, table: dict[str, Any]) -> dict[str, Any]:
        """A table with what the variables hold that it names, and that its lists name."""

        def plain(value: Any) -> Any:
            name = _variable_in(value)
            return value if name is None else self.sources.environment.get(name)

        return {
            key: [plain(each) for each in value[:LIST_MAX]] if isinstance(value, list) else plain(value)
            for key, value in table.items()
        }

    def read_names(self, key: Any, kind: Any, value: Any, path: Path) -> Any:
        """A dict of what the file's author names."""
        if not isinstance(value, dict):
            return self.wrong(path, value, "must be a table")
        try:
            check_count(value, value)
        except Mistake as mistake:
            return self.wrong(path, value, str(mistake), told=mistake.told)
        for name in value:
            self.read_value(key, name, (*path, name), value)
        return {name: self.read_value(kind, each, (*path, name), value) for name, each in value.items()}

    def read_limits(self, limits: Limits, value: Any, path: Path) -> Any:
        """A dict of what is given."""
        if not isinstance(value, dict):
            return self.wrong(path, value, "must be a table")
        self.unknown(value.keys() - limits.kinds.keys(), list(limits.kinds), path, limits.elsewhere)
        return {
            name: self.read_value(limits.kinds[name], each, (*path, name), value)
            for name, each in value.items()
            if name in limits.kinds
        }

    def read_leaf(self, leaf: Leaf, value: Any, path: Path) -> Any:
        """One value, of the environment if it is ``{ env = "NAME" }``."""
        is_shown = not leaf.is_secret
        if isinstance(value, NotGiven):
            return self.wrong(path, value, value, is_shown=False)
        name = _variable_in(value)
        if name is not None:
            if name not in self.sources.environment:
                return self.wrong(
                    path, value, f"names the environment variable {name}, which is not set", is_shown=False
                )
            value, is_shown = Text(self.sources.environment[name]), False
        try:
            return leaf.read(value)
        except Mistake as mistake:
            return self.wrong(path, value, str(mistake), is_shown=is_shown, told=mistake.told)

    def wrong(self, path: Path, value: Any, message: str, *, is_shown: bool = True, told: str = "") -> Any:
        """Take down that a value is wrong."""
        message = f"is {told or shown(value)}, {message}" if is_shown else message
        self.errors.append(self.sources.error(path, message))
        return UNREAD

    def missing(self, kind: Any, path: Path) -> Any:
        """Take down that a value is missing, and what it must be: what is said of a value of no kind at all."""
        plain, _ = unwrapped(kind)
        leaf = leaf_at(get_args(plain)[0] if get_origin(plain) is tuple else kind)
        try:
            assert leaf
            leaf.read(None)
        except Mistake as mistake:
            self.errors.append(self.sources.error(path, f"is missing, {mistake}"))
        return UNREAD

    def unknown(self, names: Any, known: list[str], path: Path, later: Mapping[str, str]) -> None:
        """Take down keys that there are not."""
        for name in names:
            message = later.get(name)
            if message is None:
                message = "is unknown"
                origin = self.sources.origin((*path, name))
                for nearest in get_close_matches(name, known, 1):
                    if origin and origin.line is None:
                        nearest = variable((*path, nearest, *origin.path[len(path) + 1 :]))
                    message += f"; the nearest known one is {nearest}"
            self.errors.append(self.sources.error((*path, name), message))


def _variable_in(value: Any) -> str | None:
    """The variable that ``{ env = "NAME" }`` names; None for any other value."""
    is_named = isinstance(value, dict) and value.keys() == {"env"} and isinstance(value["env"], str)
    return value["env"] if is_named else None


def _made(cls: type, found: Mapping[str, Any]) -> Any:
    """The dataclass with these fields; it does not check them itself, as it does for a program: all has been told."""
    made: Any = object.__new__(cls)
    for each in fields(cls):
        value = each.default_factory() if each.default_factory is not MISSING else each.default
        object.__setattr__(made, each.name, found.get(each.name, value))
    return made


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of a file. What it means, and what it may cost, is the docstring of its field."""

    path: Path
    kind: Any
    default: Any

    @property
    def leaf(self) -> Leaf | None:
        """How it is read, which knows its range; None for a list or a table."""
        return leaf_at(self.kind)

    @property
    def default_text(self) -> str:
        """Its default as a file has it."""
        if self.default is MISSING:
            return "required"
        return "none" if not self.leaf or self.default is None else self.leaf.written(self.default)


def rows_of(cls: Any, path: Path = ()) -> Iterator[Row]:
    """The settings that `cls` may hold; of lists of tables those of the first."""
    for each in fields(cls):
        kind, marks = unwrapped(kinds_of(cls)[each.name])
        at: Path = (*path, each.name)
        if get_origin(kind) is tuple and is_dataclass(unwrapped(get_args(kind)[0])[0]):
            kind, at = unwrapped(get_args(kind)[0])[0], (*at, 0)
        if is_dataclass(kind):
            yield from rows_of(kind, at)
            continue
        yield Row(at, kinds_of(cls)[each.name], () if callable(each.default_factory) else each.default)
        for mark in marks:
            if isinstance(mark, Limits):
                yield from (Row((*at, limit), one, MISSING) for limit, one in mark.kinds.items())


def leaf_at(kind: Any) -> Leaf | None:
    """How a value of this kind is read; None for tables and lists."""
    plain, marks = unwrapped(kind)
    literal = choice(get_args(plain)) if get_origin(plain) is Literal else None
    return next((mark for mark in marks if isinstance(mark, Leaf)), literal)


@cache
def kinds_of(cls: type) -> dict[str, Any]:
    """The annotation of each field; a class that inherits some says in ``KINDS`` how those are read."""
    hints = get_type_hints(cls, include_extras=True)
    hints |= {name: Annotated[Any, leaf] for name, leaf in getattr(cls, "KINDS", {}).items()}
    return {each.name: hints[each.name] for each in fields(cls)}


def unwrapped(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """The kind without ``Annotated`` and ``| None``, and the marks that it has."""
    marks: tuple[Any, ...] = ()
    while True:
        if get_origin(kind) is Annotated:
            kind, marks = kind.__origin__, marks + kind.__metadata__
        elif get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
            kind = next(each for each in get_args(kind) if each is not NoneType)
        else:
            return kind, marks
