"""Where each key of a TOML text stands."""

import tomllib
from typing import Any

import pytest
from fanwire._engine import toml_lines
from fanwire.config.sources import dotted
from hypothesis import given
from hypothesis import strategies as st


def test_lines_of_what_spans_lines() -> None:
    text = 'a = [\n  "]", # [\n  { b = 1 }, { c = """\n]\n""" },\n]\n"x=[".y = {}\n'
    text += "[[t]]\n[[t]]\n[t.u.v]\nw = '''\n[n]'''\r\nz=1"
    assert {dotted(path): line for path, line in toml_lines(text).items()} == {
        "a": 1,
        "a[0]": 2,
        "a[1]": 3,
        "a[1].b": 3,
        "a[2]": 3,
        "a[2].c": 3,
        "x=[": 7,
        "x=[.y": 7,
        "t": 8,
        "t[0]": 8,
        "t[1]": 9,
        "t[1].u": 10,
        "t[1].u.v": 10,
        "t[1].u.v.w": 11,
        "t[1].u.v.z": 13,
    }


@given(
    st.lists(
        st.sampled_from(
            ["[a]", "[[l]]", "[l.s]", "[[l.m]]", "k = 1", "k.j = '''\n'''", 'v = ["#", [1,\n2]]', "# c", ""]
        )
    )
)
def test_every_key_of_a_valid_file_has_a_line(statements: list[str]) -> None:
    text = "\n".join(statements)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return

    def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return {path} | {each for key, child in children for each in paths(child, (*path, key))}

    assert paths(tree) - {()} == toml_lines(text).keys()


def test_what_is_no_toml_has_no_lines() -> None:
    for text in ("a = ", "a = 1\na = 2", "[" * 10_000):
        with pytest.raises(ValueError, match=r"\S"):
            toml_lines(text)
