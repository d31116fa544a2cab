"""One table of settings, in Rust: what is made of it is as it says, and each row says what a reader needs."""

import inspect
import pickle
import re
from dataclasses import fields
from typing import Any

import fanwire
import pytest
from fanwire import options
from fanwire._engine import ChannelRule, Settings, may_be_sent, number_text
from fanwire.cli import options as cli_options
from fanwire.cli.config import OPTIONS, ServeConfig
from fanwire.cli.serve import serve
from fanwire.config import reading
from fanwire.config.kinds import duration_text
from fanwire.values import TABLE, Seconds, Whole, rows_of
from support import settings_page


def test_the_page_and_the_type_of_options_are_made_of_the_table() -> None:
    """Where this fails: ``python tests/support/settings_page.py``."""
    page = settings_page.PAGE.read_text(encoding="utf-8")
    assert settings_page.page(page) == page
    written = settings_page.OPTIONS.read_text(encoding="utf-8")
    assert re.sub(r"\n+", "\n", written) == re.sub(r"\n+", "\n", settings_page.options())
    assert settings_page.STAND_IN.read_text(encoding="utf-8") == settings_page.stand_in()


def test_each_row_says_its_unit_and_its_worst_cost() -> None:
    units = {"seconds": "second", "bytes": "byte", "truth": "whether", "choice": "name", "permissions": "permissions"}
    for row in TABLE.values():
        assert units.get(row.kind, "") in row.meaning, row.name
        assert row.meaning
        assert row.cost
        assert "\n" not in row.meaning + row.cost + row.limits + row.usual, row.name
        assert "|" not in row.meaning + row.cost + row.limits + row.usual, row.name


def test_each_field_of_a_file_s_tables_says_what_it_may_cost() -> None:
    tables = [table for section in settings_page.SECTIONS.values() for table in section.values()]
    for table in tables:
        said = settings_page.words(table)
        assert said.keys() == {each.name for each in fields(table)}
        for name, (meaning, cost) in said.items():
            assert meaning.endswith(".") and cost.endswith("."), name
            assert "|" not in meaning + cost, name
    for row in reading.rows_of(ServeConfig):
        if row.leaf is not None and row.path[0] not in ("limits", "channel"):
            assert row.leaf.span, row.path
            assert row.default_text, row.path


def test_the_engine_takes_each_of_its_rows_and_no_other_name() -> None:
    for name, row in rows_of("engine").items():
        assert Settings(**{name: row.default}), name
    for name, row in rows_of("channel").items():
        if not name.startswith("presence"):
            assert ChannelRule("odds:*", **{name: row.default}), name
    with pytest.raises(ValueError, match=r"origins must be .* or None, not 'https://a'"):
        Settings(origins="https://a")  # a list is taken: no wrong value is let go in silence
    for make in (lambda: Settings(shard=1), lambda: ChannelRule("odds:*", shard=1)):
        with pytest.raises(ValueError, match='there is no setting "shard"'):
            make()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ping_interval", 0, "ping_interval must be a number of seconds, 0.1 to 86,400, not 0"),
        ("ping_interval", True, "ping_interval must be a number of seconds, 0.1 to 86,400, not True"),
        ("shards", 65, "shards must be a whole number, 1 to 64, not 65"),
        ("shards", True, "shards must be a whole number, 1 to 64, not True"),
        ("head_bytes_max", 1, "head_bytes_max must be a whole number of bytes, 256 to 1,048,576, not 1"),
        ("poller", "kqueue", "poller must be 'epoll', 'uring' or None, not 'kqueue'"),
        ("pin_shards", 1, "pin_shards must be True or False, not 1"),
        ("signalr_keepalive", 0.01, "signalr_keepalive must be a number of seconds, 0.1 to 86,400, not 0.01"),
    ],
)
def test_the_engine_words_a_bad_value_as_python_does(name: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Settings(**{name: value})
    if name in options.RULES:
        with pytest.raises((TypeError, ValueError), match=re.escape(says)):
            options.check_options({name: value})


def test_a_number_is_told_in_one_way() -> None:
    assert (
        str(Seconds(0.001, 86_400)) == number_text("seconds", 0.001, 86_400) == "a number of seconds, 0.001 to 86,400"
    )
    assert str(Seconds(0, float("inf"))) == "a number of seconds, 0 or more"
    assert str(Whole(0, 0o777, "permissions")) == "permissions, 0o0 to 0o777"
    assert str(Whole(1, 2**40, "bytes")) == "a whole number of bytes, 1 to 1,099,511,627,776"


def test_a_position_is_made_of_numbers() -> None:
    for given in ((True, 1), (1, False)):
        with pytest.raises(TypeError, match=r"epoch and offset must be whole numbers, not (True|False)"):
            fanwire.Position(*given)
    assert fanwire.Position(2, 1) == pickle.loads(pickle.dumps(fanwire.Position(2, 1)))


def test_a_code_that_clients_alone_send_is_refused_at_once() -> None:
    """1010 is the client's (RFC 6455 §7.4.1): the engine would refuse it when serving ends."""
    assert [code for code in range(990, 1020) if may_be_sent(code)] == [
        *range(1000, 1004),
        *range(1007, 1010),
        *range(1011, 1015),
    ]
    with pytest.raises(ValueError, match=r"drain_code must be a close code, .* 1011 to 1014 .*, not 1010"):
        options.check_options({"drain_code": 1010})


def test_the_help_of_serve_tells_the_defaults_that_there_are() -> None:
    config = cli_options.settings(None, {}, {"upstream": ["http://a/live"]})
    told = 0
    for name, parameter in inspect.signature(serve, eval_str=True).parameters.items():
        help = next((each.help for each in getattr(parameter.annotation, "__metadata__", ()) if name != "file"), "")
        said = re.search(r"\(default: ([^)]*)\)", help or "")
        if said is None or name in ("path", "poller"):  # the upstream's, and what the kernel has
            continue
        meant: Any = config
        for part in cli_options.PATHS[name]:
            meant = meant[part] if isinstance(part, int) else getattr(meant, part)
        shown = duration_text(meant) if isinstance(meant, float) else "none" if meant is None else str(meant)
        assert said[1] == shown, name
        told += 1
    assert told == 11
    assert "0s to 24h (default: 30s)" in cli_options.help_of("linger")
    assert "signalr or websocket (default: signalr)" in cli_options.help_of("protocol")


def test_the_page_names_the_options_that_a_file_has_elsewhere() -> None:
    page = settings_page.PAGE.read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `limits.…` |"))
    assert set(re.findall(r"`(\w+)`", row)) == options.RULES.keys() - OPTIONS.kinds.keys()
