"""Which modules of a crate name which: enough of Rust's paths to find circles, from the text alone.

A module's file counts with all that stands in it but its tests; `mod` and what is declared by it are no use. A path is
followed as far as its segments are modules: what a facade exports again counts as a use of the facade.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

Module: TypeAlias = tuple[str, ...]
LEFT_OUT = re.compile(r"//[^\n]*|pub\(in [^)]*\)")
TESTS = re.compile(r"#\[cfg\((?:all\()?test\b.*", re.DOTALL)
USE = re.compile(r"\buse\s+([^;]+);")


def modules_of(source: Path) -> dict[Module, Path]:
    """Every module of the crate whose `src` that is, with its file; the crate itself is the empty tuple."""
    found = {}
    for path in source.rglob("*.rs"):
        parts = path.relative_to(source).with_suffix("").parts
        found[parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts] = path
    return found


def uses_of(source: Path) -> dict[Module, set[Module]]:
    """By module, the others that it names."""
    modules = modules_of(source)
    return {module: set(_named(module, path, modules)) - {module} for module, path in modules.items()}


def _named(module: Module, path: Path, modules: dict[Module, Path]) -> Iterator[Module]:
    text = TESTS.sub("", LEFT_OUT.sub("", path.read_text(encoding="utf-8")))
    body = USE.sub("", text)
    children = {one[-1] for one in modules if len(one) == len(module) + 1 and one[:-1] == module}
    heads = "|".join(("crate", "super", "self", *sorted(children)))
    paths = [one for use in USE.findall(text) for one in _spread(use)]
    paths += [found.split("::") for found in re.findall(rf"(?<![\w:])(?:{heads})(?:::\w+)+", body)]
    for first, *rest in paths:
        at = module
        if first == "crate":
            at = ()
        elif first == "super":
            at = module[:-1]
            while rest and rest[0] == "super":
                at, rest = at[:-1], rest[1:]
        elif first in children:
            at = (*module, first)
        elif first != "self":
            continue
        for segment in rest:
            if (*at, segment) not in modules:
                break
            at = (*at, segment)
        yield at


def _spread(use: str) -> list[list[str]]:
    """The paths of one `use`, its braces taken apart."""
    before, brace, inside = use.partition("{")
    head = [part.strip() for part in before.split("::") if part.strip()]
    if not brace:
        return [[part.partition(" as ")[0].strip() for part in head]]
    parts, depth = [""], 0
    for letter in inside.rpartition("}")[0]:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [head + rest for part in parts if part.strip() for rest in _spread(part)]


def circles(uses: dict[Module, set[Module]]) -> list[set[Module]]:
    """Modules that reach one another, in groups (strongly connected components of more than one)."""
    reach = {one: set(others) for one, others in uses.items()}
    for middle in reach:
        for one in reach:
            if middle in reach[one]:
                reach[one] |= reach[middle]
    groups = {frozenset({one, *(two for two in reach[one] if one in reach[two])}) for one in reach if one in reach[one]}
    return [set(group) for group in groups if len(group) > 1]
