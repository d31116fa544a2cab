"""What users get wrong with settings: several things at once, names of variables, tables that are not there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fanwire.addresses import ORIGIN_FORM
from fanwire.cli.config import ServeConfig
from fanwire.cli.options import KNOWN, settings
from fanwire.errors import ConfigError

RELAY = '[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n'


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that errors say `fanwire.toml`, and no more."""
    monkeypatch.chdir(tmp_path)


def loaded(text: str, environment: dict[str, str] | None = None, **given: object) -> ServeConfig:
    """The settings of a file of this text."""
    Path("fanwire.toml").write_text(text)
    return settings(Path("fanwire.toml"), environment or {}, given)


def errors(text: str, environment: dict[str, str] | None = None, **given: object) -> list[str]:
    """What is wrong, without the file's name."""
    with pytest.raises(ExceptionGroup) as raised:
        loaded(text, environment, **given)
    return [str(error).removeprefix("fanwire.toml:") for error in raised.value.exceptions]


def test_origins_that_no_browser_sends_say_the_form() -> None:
    for origins, says in {
        "'a'": f'5: limits.origins is "a", must be {ORIGIN_FORM}; "a" is not',
        "['https://a', 'https://a/b']": f'5: limits.origins is a list, must be {ORIGIN_FORM}; "https://a/b" is not',
        "['https://a', '*']": "5: limits.origins is a list, must not have others beside '*', which lets all in",
        "[7]": "5: limits.origins is a list, must be a list of origins such as https://bets.example",
    }.items():
        assert errors(f"{RELAY}[limits]\norigins = {origins}") == [says]


def test_origins_and_addresses_mean_what_is_clear() -> None:
    clear = loaded(RELAY + "[listen]\naddress = 8000\n[limits]\norigins = ['https://A.example:443/']\n")
    assert clear.listen.address == "127.0.0.1:8000"
    assert dict(clear.limits)["origins"] == ("https://a.example",)
    listed = loaded(RELAY, {"FANWIRE_LIMITS__ORIGINS": "https://a, https://b/"}, listen="8000")
    assert listed.listen.address == "127.0.0.1:8000"
    assert dict(listed.limits)["origins"] == ("https://a", "https://b")


# What is wrong between fields is told beside what is wrong in them


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            RELAY + 'linger = "x"\n[relay.lanes]\nkeepalive = "9s"\nserver_timeout = "5s"\nmax = -1\n',
            ["relay[0].linger", "relay[0].lanes.server_timeout", "relay[0].lanes.max"],
        ),
        (
            RELAY + '[relay.lanes]\nkeepalive = "x"\nserver_timeout = "5s"\nbackoff_min = "2s"\nbackoff_max = "1s"\n',
            ["relay[0].lanes.keepalive", "relay[0].lanes.backoff_max"],
        ),
        (
            RELAY + 'linger = "x"\n' + RELAY + 'admit = "x"\n',
            ["relay[0].linger", "relay[1].path", "relay[1].admit"],
        ),
        (
            '[[channel]]\npattern = "a"\nhistory = -1\n[[channel]]\npattern = "a"\n',
            ["relay", "channel[0].history", "channel[1].pattern"],
        ),
        (
            RELAY + 'path_ = 1\nprotocol = "x"\n[[relay.share]]\nsubscribe = "A"\n[[relay.share]]\nsubscribe = "A"\n',
            ["relay[0].path_", "relay[0].protocol"],
        ),
        (
            RELAY + 'linger = "x"\n[[relay.share]]\nsubscribe = "A"\n[[relay.share]]\nsubscribe = "a"\nfresh = "x"\n',
            ["relay[0].linger", "relay[0].share[1].subscribe", "relay[0].share[1].fresh"],
        ),
    ],
)
def test_one_mistake_hides_no_other(text: str, told: list[str]) -> None:
    found = [re.sub(r"^\d+: ", "", error).split()[0] for error in errors(text)]
    assert found == told


# Variables


def test_each_option_is_a_variable_by_its_name() -> None:
    environment = {
        "FANWIRE_LISTEN": "0.0.0.0:9000",
        "FANWIRE_LOG_LEVEL": "debug",
        "FANWIRE_UPSTREAM": "http://a:1/chat, http://b:1/chat",
        "FANWIRE_SHARE": "Join/Leave,Watch",
        "FANWIRE_SNAPSHOT": "State",
    }
    config = settings(None, environment, {})
    (relay,) = config.relay
    assert (config.listen.address, config.log.level) == ("0.0.0.0:9000", "debug")
    assert (relay.path, relay.upstream) == ("/chat", ("http://a:1/chat", "http://b:1/chat"))
    assert [vars_of.subscribe for vars_of in relay.share] == ["Join", "Watch"]
    assert loaded(RELAY, {"FANWIRE_LISTEN": "127.0.0.1:9000"}, listen="127.0.0.1:9001").listen.address.endswith("9001")


def test_what_is_wrong_in_such_a_variable_is_told_by_its_name() -> None:
    told = errors(RELAY, {"FANWIRE_LOG_LEVEL": "loud", "FANWIRE_LISTEN": "x"})
    assert [error.split()[0] for error in told] == ["FANWIRE_LISTEN", "FANWIRE_LOG_LEVEL"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FANWIRE_LISTEN_ADDRESS", "FANWIRE_LISTEN__ADDRESS"),
        ("FANWIRE_RELAY_0_PATH", "FANWIRE_RELAY__0__PATH"),
        ("FANWIRE_LIMITS_PING_INTERVAL", "FANWIRE_LIMITS__PING_INTERVAL"),
    ],
)
def test_a_variable_with_the_wrong_underscores_is_an_error(name: str, meant: str) -> None:
    assert f"{name} is unknown; {meant} is meant, with two underscores" in errors(RELAY, {name: "1"})


def test_variables_of_others_are_left_alone() -> None:
    """Such as those that Kubernetes sets for a service named fanwire."""
    environment = {"FANWIRE_SERVICE_HOST": "10.0.0.1", "FANWIRE_PORT": "tcp://10.0.0.1:80", "FANWIRE_PORT_80_TCP": "x"}
    assert loaded(RELAY, environment) == loaded(RELAY)


# Tables and pipes


@pytest.mark.parametrize(("table", "word"), [("tls", "docs/proxy.md")])
def test_a_table_that_others_have_is_told_where_to_look(table: str, word: str) -> None:
    (told,) = errors(f"{RELAY}[{table}]\n")
    assert table in told
    assert word in told


def test_a_backbone_is_named_by_file_option_or_variable_and_never_shown() -> None:
    table = '[backbone]\nurl = "redis://:secret@h"\nprefix = "p"\non_down = "local"\n'
    found = loaded(RELAY + table).backbone
    assert found.url is not None and found.url.reveal() == "redis://:secret@h" and "secret" not in repr(found)
    assert (found.prefix, found.on_down) == ("p", "local")
    for environment, given in (({"FANWIRE_BACKBONE__URL": "valkey://h"}, {}), ({}, {"backbone": "valkey://h"})):
        url = loaded(RELAY, environment, **given).backbone.url
        assert url is not None and url.reveal() == "valkey://h"
    for wrong, says in {
        'url = "http://:secret@h"': "backbone.url",
        "url = 7": "backbone.url",
        'prefix = "a{b"': "backbone.prefix",
        'on_down = "wait"': 'backbone.on_down is "wait", must be "buffer", "fail" or "local"',
    }.items():
        (told,) = errors(f"{RELAY}[backbone]\n{wrong}\n")
        assert says in told and "secret" not in told


def test_a_reader_that_stops_reading_ends_check_without_a_word() -> None:
    Path("fanwire.toml").write_text(RELAY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "fanwire", "check", "fanwire.toml"]
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, env=environment, timeout=100, check=False
        )
    finally:
        os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 141


ODD = [
    "nan",
    "-inf",
    "-1",
    "1e400",
    "1.5",
    "true",
    '""',
    '"\\u0000"',
    '"٣s"',
    f'"{"9" * 5_000}s"',
    f"0x{'f' * 5_000}",
    "2026-11-24",
    "[[5]]",
    "{ a = {} }",
    '{ env = "ODD" }',
]
"""Values that few keys or none take."""


@pytest.mark.parametrize("odd", ODD, ids=[odd[:12] for odd in ODD])
def test_whatever_stands_at_each_key_is_told_in_one_line(odd: str) -> None:
    tables: dict[str, list[str]] = {}
    for first, *rest in KNOWN:
        keys = [str(part) for part in rest if not isinstance(part, int)]
        header = f"[[{first}]]" if first in ("relay", "channel") else f"[{first}]"
        if keys:
            tables.setdefault(header, []).append(f"{'.'.join(keys)} = {odd}")
    text = "\n".join("\n".join((header, *lines)) for header, lines in tables.items())
    with pytest.raises(ExceptionGroup) as raised:
        loaded(text, {"ODD": "٣" * 5_000})
    told = {error.key: str(error) for error in raised.value.exceptions if isinstance(error, ConfigError)}
    assert len(told) > len(KNOWN) / 2
    for line in map(str, raised.value.exceptions):
        assert "\n" not in line
        assert len(line) < 500, line
