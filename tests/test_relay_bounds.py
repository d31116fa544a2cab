"""Each field of a relay's settings has a range: what is beyond it is refused by name, value and bound, in a program and
in a file alike."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from time import process_time
from typing import Any, get_origin

import fanwire
import pytest
from fanwire.cli.config import load
from fanwire.cli.options import settings
from fanwire.config import kinds
from fanwire.config.kinds import Leaf, duration_text, size_text
from fanwire.config.reading import kinds_of, unwrapped
from fanwire.relay import CallShare, Everyone, Lanes, MessageShare, Private, QueryShare, RelayConfig
from fanwire.values import LIST_MAX, TRUTH, Seconds, Whole, told

PLACES: dict[type, tuple[str, dict[str, Any]]] = {
    RelayConfig: ("", {"path": "/live", "upstream": "http://127.0.0.1:1/live"}),
    CallShare: ("share[0].", {"subscribe": "Watch"}),
    QueryShare: ("share[0].", {"query": ["match"]}),
    MessageShare: ("share[0].", {"subscribe": "/watch"}),
    Everyone: ("everyone.", {}),
    Private: ("private.", {}),
    Lanes: ("lanes.", {}),
}
"""Where each table stands in a ``[[relay]]``, and what it needs."""
FIELDS = [(table, each.name) for table in PLACES for each in fields(table)]
FIELD_IDS = [f"{table.__name__}.{name}" for table, name in FIELDS]
NUMBERS: list[tuple[type, str, Seconds | Whole]] = [
    (table, name, mark.take)
    for table, name in FIELDS
    for mark in unwrapped(kinds_of(table)[name])[1]
    if isinstance(mark, Leaf) and isinstance(mark.take, Seconds | Whole)
]
NUMBER_IDS = [f"{table.__name__}.{name}" for table, name, _ in NUMBERS]
TEXTS: dict[str, tuple[str, int]] = {
    "RelayConfig.path": ("/a", 255),
    "RelayConfig.upstream": ("http://a/", 2_048),
    "RelayConfig.ca": ("a", 4_095),
    "RelayConfig.admit_ignore": ("a", 255),
    "RelayConfig.trusted_proxies": ("1", 255),
    "CallShare.subscribe": ("a", 255),
    "CallShare.unsubscribe": ("a", 255),
    "CallShare.snapshot": ("a", 255),
    "QueryShare.query": ("a", 255),
    "MessageShare.subscribe": ("/a", 255),
    "MessageShare.unsubscribe": ("/a", 255),
    "Everyone.targets": ("a", 255),
    "Everyone.welcome": ("a", 255),
    "Private.pooled": ("a", 255),
    "Private.drop": ("a", 255),
    "Lanes.token": ("a", 16_384),
    "Lanes.headers": ("a", 16_384),
    "Lanes.gap_target": ("a", 255),
}
"""Of each that is a text, or has some: how a good one begins, and how long it may be."""
LISTS = [
    name for name in TEXTS if get_origin(unwrapped(kinds_of(globals()[name.split(".")[0]])[name.split(".")[1]])[0])
]


def refused(table: type, name: str, value: Any) -> str:
    """What a program is told that gives `value`."""
    with pytest.raises((TypeError, ValueError)) as raised:
        table(**{**PLACES[table][1], name: value})
    assert type(raised.value) in (TypeError, ValueError)
    says = str(raised.value)
    assert says.startswith(f"{table.__name__}.{name}"), says
    assert " must " in says, says
    assert len(says) < 400
    return says


def told_of(folder: Path, table: type, name: str, written: str) -> str:
    """What ``fanwire check`` says of a file that has `written` there, from the setting's name on."""
    prefix, needed = PLACES[table]
    lines = [f"{key} = {json.dumps(value)}" for key, value in needed.items() if key != name]
    lines.append(f"{name} = {written}")
    relay = {"path": '"/live"', "upstream": '"http://127.0.0.1:1"', "protocol": '"websocket"'}
    if table in (RelayConfig, CallShare, Everyone, Private):
        del relay["protocol"]
    if prefix:
        header = "[[relay.share]]" if prefix == "share[0]." else f"[relay.{prefix.strip('.')}]"
        lines = [*(f"{key} = {value}" for key, value in relay.items()), header, *lines]
    file = folder / "fanwire.toml"
    file.write_text("[[relay]]\n" + "\n".join(lines), encoding="utf-8")
    with pytest.raises(ExceptionGroup) as raised:
        load(file, {})
    says = str(raised.value.exceptions[0]).partition(": ")[2]
    assert says.startswith(f"relay[0].{prefix}{name}"), says
    assert " must " in says, says
    assert len(says) < 400
    return says


def beyond(rule: Seconds | Whole) -> Iterator[tuple[Any, type[Exception]]]:
    """Values that are not in the range, and with what they are refused."""
    step = 1 if isinstance(rule, Whole) else 0.001
    for value in (rule.least - step, rule.most + step, 10**30, 10**5_000, -(10**5_000)):
        yield value, ValueError
    for number in (math.nan, math.inf, -math.inf):
        yield number, ValueError if isinstance(rule, Seconds) else TypeError
    for other in (True, False, "5", b"5", None, [5], {}, object(), 5j):
        yield other, TypeError
    if isinstance(rule, Whole):
        yield rule.least + 0.5, TypeError


@pytest.mark.parametrize(("table", "name", "rule"), NUMBERS, ids=NUMBER_IDS)
def test_a_number_beyond_its_range_is_refused_with_the_range(
    table: type, name: str, rule: Seconds | Whole, tmp_path: Path
) -> None:
    assert math.isfinite(rule.most)
    for value, kind in beyond(rule):
        says = refused(table, name, value)
        assert says == f"{table.__name__}.{name} must be {rule}, not {told(value)}"
        with pytest.raises(kind):
            table(**{**PLACES[table][1], name: value})
    is_bytes = isinstance(rule, Whole) and rule.kind == "bytes"
    text = size_text if is_bytes else duration_text if isinstance(rule, Seconds) else str
    must = f"must be {rule if text is str else f'{text(rule.least)} to {text(rule.most)}'}"
    unit = {size_text: "B", duration_text: "s", str: ""}[text]
    for amount in (rule.least - 1, math.floor(rule.most) + 1):
        written = (
            f'"{amount:g}{unit}"' if unit and abs(amount) < 10**6 else f'"{amount}{unit}"' if unit else f"{amount}"
        )
        says = told_of(tmp_path, table, name, written)
        assert f" is {written}, must " in says
        assert must in says or (amount < 0 and unit)  # no duration and no size begins with a minus
    for written in ("nan", "inf", "true", "1.5", "[5]", "2026-11-24", '"x"', "10" * 15, f"0x{'f' * 5_000}", "{}"):
        told_of(tmp_path, table, name, written)


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_has_a_length_and_no_signs_that_do_not_show(key: str, tmp_path: Path) -> None:
    table, name = globals()[key.split(".")[0]], key.split(".")[1]
    start, most = TEXTS[key]
    is_mapping = name == "headers"
    is_secret = is_mapping or name == "token"

    def given(text: Any) -> Any:
        return {"X-A": text} if is_mapping else [text] if key in LISTS else text

    too_long = start + "1" * (most + 1 - len(start))
    says = [refused(table, name, given(too_long))]
    if is_mapping:
        says.append(told_of(tmp_path, table, name, f'{{ X-A = "{too_long}" }}'))
    else:
        says.append(told_of(tmp_path, table, name, json.dumps(given(too_long))))
    for text in says:
        assert f"of {most:,} characters at most" in text or (key.endswith("path") and "not be over 255 bytes" in text)
        assert is_secret is (too_long[:40] not in text)
    for bad in (f"{start}\ud800", "", 5, True, math.nan, b"x", object(), ["x"], 10**5_000):
        refused(table, name, given(bad))
    if table is not MessageShare:  # a member may have any name
        for sign in "\0\n\x7f":
            refused(table, name, given(f"{start}{sign}"))
            if not is_mapping:
                told_of(tmp_path, table, name, json.dumps(given(f"{start}{sign}")).replace("\x7f", "\\u007f"))


@pytest.mark.parametrize("key", [*LISTS, "RelayConfig.share"])
def test_a_list_has_a_number_of_elements(key: str, tmp_path: Path) -> None:
    table, name = globals()[key.split(".")[0]], key.split(".")[1]
    must = f"must have {LIST_MAX:,} elements at most"
    if name == "headers":
        many: Any = {f"X-{index}": "a" for index in range(LIST_MAX + 1)}
        written = "{" + ", ".join(f'{header} = "a"' for header in many) + "}"
    elif name == "share":
        many = [CallShare(subscribe=f"A{index}") for index in range(LIST_MAX + 1)]
        written = "[" + ", ".join(f'{{ subscribe = "A{index}" }}' for index in range(LIST_MAX + 1)) + "]"
    else:
        many = [f"{TEXTS[key][0]}{index}" for index in range(LIST_MAX + 1)]
        written = json.dumps(many)
    shown = "" if name == "headers" else ", not one of 1,025"
    assert refused(table, name, many) == f"{table.__name__}.{name} {must}{shown}"
    assert f"{name} is one of 1,025, {must}" in told_of(tmp_path, table, name, written)
    if name != "headers":
        assert must in refused(table, name, iter(many))  # also of one that never ends, no more is read


def test_each_field_is_a_number_a_text_or_one_of_a_few() -> None:
    """A field that comes new is gone through above, or stands here."""
    others = {"protocol", "ready", "admit", "on_gap", "machines"}
    tables = {"share", "everyone", "private", "lanes"}
    truths = {
        each.name
        for table in PLACES
        for each in fields(table)
        if any(isinstance(mark, Leaf) and mark.take == TRUTH for mark in unwrapped(kinds_of(table)[each.name])[1])
    }
    assert truths == {"negotiate", "eager"}
    known = {f"{table.__name__}.{name}" for table, name, _ in NUMBERS} | TEXTS.keys()
    rest = {name for table, name in FIELDS if f"{table.__name__}.{name}" not in known}
    assert rest == others | tables | truths
    for table, name in FIELDS:
        if name in rest:
            for value in (5, -1, math.nan, b"x", "x", "\0", 10**5_000, object(), None, [5]):
                refused(table, name, value)
            if name not in truths:
                refused(table, name, True)


@pytest.mark.parametrize(
    "path",
    [
        "/\0",
        "/a b",
        "/a\n",
        "/\x85",
        "/a\\b",
        "/a/../b",
        "/%2e",
        "/%77s",
        "/a//b",
        "/{room}",
        "/a{",
        "live",
        "/live/",
        "/",
        "/metrics",
    ],
)
@pytest.mark.parametrize("protocol", ["signalr", "websocket"])
def test_a_relay_s_path_is_what_the_engine_takes(path: str, protocol: Any) -> None:
    with pytest.raises(ValueError, match=r"RelayConfig\.path must "):
        RelayConfig(path=path, upstream="http://a", protocol=protocol)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must"):
        fanwire.Hub(signalr_paths=[path])


def test_a_hub_s_own_path_is_nobody_else_s_whatever_the_case(hub: fanwire.Hub) -> None:
    with pytest.raises(ValueError, match="must be none of the hub's own paths, whatever the case, not '/WS'"):
        hub.endpoint("/WS")
    hub.path("/WS")  # of these case matters


def test_a_file_of_certificates_is_read_no_further_than_one_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "BUNDLE_BYTES_MAX", 1 << 16)
    with pytest.raises(ValueError, match=r"RelayConfig\.ca must be a file of 64KiB at most or None, not '/dev/zero'"):
        RelayConfig(path="/live", upstream="https://a", ca="/dev/zero")  # type: ignore[arg-type]


def test_a_pipe_is_no_file_of_certificates(tmp_path: Path) -> None:
    """That nobody writes to: it would never be open."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"RelayConfig\.ca must be a file of 16MiB at most or None"):
        RelayConfig(path="/live", upstream="https://a", ca=str(tmp_path / "pipe"))  # type: ignore[arg-type]


def test_a_file_of_settings_is_a_regular_one_of_no_more_than_so_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.config.sources.FILE_BYTES_MAX", 1 << 10)
    file, pipe = tmp_path / "fanwire.toml", tmp_path / "pipe"
    os.mkfifo(pipe)
    relay = '[[relay]]\npath = "/live"\nupstream = "https://a"\n'
    file.write_bytes(b"\xef\xbb\xbf" + relay.encode())
    assert settings(file, {}, {}).relay[0].path == "/live", "behind a mark of the byte order"
    file.write_text("#" * 2_000)
    for one, says in ((file, "of 2,000 bytes"), (pipe, "no regular file")):
        with pytest.raises(ExceptionGroup) as failed:
            settings(one, {}, {})
        assert str(failed.value.exceptions[0]) == f"{one}: is {says}, must be a file of 1KiB at most"


@pytest.mark.parametrize(
    "text",
    [
        f"{'a.' * 200_000}a = 1",
        f"[{'a.' * 200_000}a]",
        f"a = {{{'a.' * 200_000}a = 1}}",
        f"a = {'[' * 200_000}",
        "[[relay]]\n" * 1_500,
        "[[channel]]\n" * 3_000,
    ],
)
def test_a_file_takes_no_longer_to_read_than_it_is_long(tmp_path: Path, text: str) -> None:
    """Both were quadratic: a key of so many parts took 40 s, so many tables ten."""
    file = tmp_path / "fanwire.toml"
    file.write_text(text)
    began = process_time()
    with pytest.raises(ExceptionGroup):
        settings(file, {}, {})
    assert process_time() - began < 4


def test_relays_and_keys_that_nobody_would_write_are_told_in_short(tmp_path: Path) -> None:
    file = tmp_path / "fanwire.toml"
    file.write_text('"k\\u001b]0;x" = 1\n' + '[[relay]]\npath = "/live"\nupstream = "https://a"\n' * 256)
    with pytest.raises(ExceptionGroup) as failed:
        settings(file, {}, {})
    lines = [str(error) for error in failed.value.exceptions]
    assert lines[0] == f"{file}:1: k ]0;x is unknown"
    assert any(one.endswith("relay has 256 tables, must have 255 at most") for one in lines)
