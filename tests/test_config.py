"""The settings of ``fanwire serve``: file, environment, options; errors, word for word."""

import ast
import inspect
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fanwire.addresses import ADDRESS_FORMS
from fanwire.cli import config as serve_config
from fanwire.cli.config import Drain, Listen, Log, ServeConfig, load
from fanwire.cli.options import options_of
from fanwire.config.kinds import Secret, duration_text, shown, size_text
from fanwire.config.sources import TOO_DEEP, Option, variable
from fanwire.errors import ConfigError
from fanwire.relay import config as relay_config
from fanwire.relay.config import CallShare, Everyone, Lanes, MessageShare, Private, QueryShare, RelayConfig

RELAY = '[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n'
SURFACE = """\
[listen]
address = "127.0.0.1:8000"

[[relay]]                                # a backend whose connections are aggregated
path = "/live"                           # what clients connect to
upstream = "http://127.0.0.1:5000/live"  # what they used to connect to; a list fails over
protocol = "signalr"                     # or "websocket"
linger = "30s"                           # how long a lane outlives its last client

[[relay.share]]                          # calls that mean 'watch': equal calls share a lane
subscribe = "Subscribe"
unsubscribe = "Unsubscribe"
snapshot = "Snapshot"                    # the target whose newest message a late joiner gets first

[relay.everyone]                         # what the hub sends to all its clients (Clients.All)
targets = ["Announcement"]               # taken from the broadcast lane only, once for each client

[relay.private]                          # all other calls: a connection of the client's own
idle = "60s"
pooled = ["GetFixtures"]                 # methods that may go over a few shared connections instead
drop = ["Accept-Language"]               # request headers that are not passed on, as all others are
"""
SERVICE = """
[[service]]                              # the backend dials in: AddSignalR().AddAzureSignalR("Endpoint=…")
access_key = { env = "FANWIRE_ACCESS_KEY" }
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that errors say `fanwire.toml`, and no more."""
    monkeypatch.chdir(tmp_path)


def loaded(text: str, environment: dict[str, str] | None = None, **given: Any) -> ServeConfig:
    """The settings of a file of this text."""
    Path("fanwire.toml").write_text(text)
    return load(Path("fanwire.toml"), environment or {}, options_of(given))


def errors(text: str | None, environment: dict[str, str] | None = None, **given: Any) -> list[str]:
    """What is wrong with such a file; without one, with the rest."""
    with pytest.raises(ExceptionGroup) as raised:
        loaded(text, environment, **given) if text is not None else load(None, environment or {}, options_of(given))
    assert all(isinstance(error, ConfigError) for error in raised.value.exceptions)
    return [str(error) for error in raised.value.exceptions]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``fanwire`` to its end."""
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    run = [sys.executable, "-m", "fanwire", *arguments]
    return subprocess.run(run, capture_output=True, text=True, env=inherited, timeout=100, check=False)


# What is accepted


def test_the_example_of_the_surface_is_accepted() -> None:
    config = loaded(SURFACE)
    (relay,) = config.relay
    assert config.listen.address == "127.0.0.1:8000"
    assert (relay.path, relay.upstream, relay.protocol) == ("/live", ("http://127.0.0.1:5000/live",), "signalr")
    assert (relay.linger, relay.private.idle) == (30.0, 60.0)
    assert relay.share == (CallShare(subscribe="Subscribe", unsubscribe="Unsubscribe", snapshot="Snapshot"),)
    assert relay.everyone.targets == ("Announcement",)
    assert (relay.private.pooled, relay.private.drop) == (("GetFixtures",), ("Accept-Language",))


def test_the_page_of_settings_names_every_key_and_its_example_is_accepted() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert loaded(example, {"BACKEND_TOKEN": "t"}).relay[0].lanes.token == Secret("t")
    tables = {"": RelayConfig, "everyone.": Everyone, "private.": Private, "lanes.": Lanes}
    tables |= {"listen.": Listen, "drain.": Drain, "log.": Log}
    keys = {f"{table}{each.name}" for table, cls in tables.items() for each in fields(cls)}
    keys -= {"everyone", "private", "lanes", "share"}
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_its_service_table_is_for_a_later_version() -> None:
    assert errors(SURFACE + SERVICE) == [
        "fanwire.toml:23: service is not known yet: service mode, where the backend dials in, comes in a later version"
    ]


def test_the_defaults() -> None:
    config = loaded(RELAY)
    relay = config.relay[0]
    assert (config.listen.shards, dict(config.limits), config.log.level) == (1, {}, "info")
    assert (config.drain.timeout, config.drain.spread, config.drain.code) == (3.0, 4.0, 1000)
    assert (relay.negotiate, relay.admit, relay.admit_for, relay.share) == (True, "negotiate", 60.0, ())
    assert (relay.private.rate, relay.private.pool_size, relay.private.per_relay_max) == (200, 4, 10_000)
    assert (relay.lanes.max, relay.lanes.per_client_max, relay.lanes.subscribe_rate) == (10_000, 100, 50)
    assert (relay.lanes.keepalive, relay.lanes.server_timeout, relay.lanes.connect_timeout) == (15.0, 30.0, 15.0)
    assert (relay.lanes.backoff_min, relay.lanes.backoff_max, relay.lanes.snapshot_bytes_max) == (0.2, 1.5, 65_536)
    assert (relay.lanes.on_gap, relay.lanes.gap_target, relay.lanes.token) == ("nothing", "fanwire:gap", None)


def test_upstreams_that_fail_over() -> None:
    two = RELAY.replace('"http://127.0.0.1:5000/live"', '["http://a/live", "wss://b/live"]')
    assert loaded(two).relay[0].upstream == ("http://a/live", "wss://b/live")


def test_shares_of_a_websocket_backend() -> None:
    shares = '[[relay.share]]\nquery = ["match"]\n[[relay.share]]\nsubscribe = "/watch"\nunsubscribe = "/unwatch"\n'
    assert loaded(f'{RELAY}protocol = "websocket"\n{shares}').relay[0].share == (
        QueryShare(query=("match",)),
        MessageShare(subscribe="/watch", unsubscribe="/unwatch"),
    )


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("30s", 30.0), ("2m", 120.0), ("1.5h", 5400.0), ("1d", 86400.0), ("0s", 0.0)],
)
def test_durations(written: str, seconds: float) -> None:
    assert loaded(f'{RELAY}linger = "{written}"').relay[0].linger == seconds


@pytest.mark.parametrize(
    ("written", "count"), [("100B", 100), ("16KiB", 16_384), ("1MB", 1_000_000), ("1.5KiB", 1_536), ("2GiB", 2**31)]
)
def test_sizes(written: str, count: int) -> None:
    assert loaded(f'{RELAY}lanes.snapshot_bytes_max = "{written}"').relay[0].lanes.snapshot_bytes_max == count


def test_limits_are_the_options_of_the_hub_with_units_or_without() -> None:
    limits = 'head_bytes_max = "32KiB"\nmessage_bytes_max = 1024\nping_interval = "1m"\nping_timeout = 5\norigins = ["https://a"]'
    assert loaded(f"{RELAY}[limits]\n{limits}\npin_shards = true\nbacklog = 10").limits == {
        "head_bytes_max": 32_768,
        "message_bytes_max": 1024,
        "ping_interval": 60.0,
        "ping_timeout": 5.0,
        "origins": ("https://a",),
        "pin_shards": True,
        "backlog": 10,
    }


# Secrets


def test_values_of_the_environment() -> None:
    file = RELAY + 'lanes.token = { env = "TOKEN" }\nlanes.headers.X-Api-Key = { env = "KEY" }\nlinger.env = "LINGER"'
    relay = loaded(file, {"TOKEN": "abc", "KEY": "def", "LINGER": "1m"}).relay[0]
    assert relay.lanes.token == Secret("abc")
    assert relay.lanes.headers == {"X-Api-Key": Secret("def")}
    assert relay.lanes.headers["X-Api-Key"].reveal() == "def"
    assert relay.linger == 60
    assert errors(file, {"TOKEN": "abc", "KEY": "def"}) == [
        "fanwire.toml:6: relay[0].linger names the environment variable LINGER, which is not set"
    ]


def test_secrets_are_not_shown() -> None:
    bad = f'{RELAY}lanes.token = "hush\\n"\nlanes.headers.X = "hush\\t"\nlinger = {{ env = "LINGER" }}'
    url = '[[relay]]\npath = "/b"\nupstream = ["http://me:hush@a/", "gopher://a/?token=hush"]\n'
    told = errors(bad + "\n" + url, {"LINGER": "hush"})
    assert told == [
        'fanwire.toml:4: relay[0].lanes.token must be a string of visible ASCII, or { env = "NAME" }',
        'fanwire.toml:5: relay[0].lanes.headers.X must be a string of visible ASCII, or { env = "NAME" }',
        "fanwire.toml:6: relay[0].linger must be a duration such as 30s",
        'fanwire.toml:9: relay[1].upstream[0] is "http://…@a/", '
        "must not hold a user or a password: they belong into a header of the lanes",
        'fanwire.toml:9: relay[1].upstream[1] is "gopher://a/?…", '
        "must be an http, https, ws or wss URL such as http://127.0.0.1:5000/live",
    ]
    good = loaded(f'{RELAY}lanes.token = "hush"\nlanes.headers.X = "hush"')
    assert good.relay[0].lanes.token == Secret("hush")
    assert "hush" not in repr(good)


# What is refused

DURATION = "must be a duration such as 30s"
PATH = "must be none of the hub's own paths"
WRONG = [
    ('linger = "30 parsecs"', 'relay[0].linger is "30 parsecs", must be a duration such as 30s'),
    ("linger = 30", "relay[0].linger is 30, must have a unit, such as 30s"),
    ('linger = "30"', 'relay[0].linger is "30", must have a unit, such as 30s'),
    ('linger = "2d"', 'relay[0].linger is "2d", must be 0s to 24h'),
    ('linger = "-1s"', f'relay[0].linger is "-1s", {DURATION}'),
    ("linger = true", f"relay[0].linger is true, {DURATION}"),
    ("linger = 2026-11-24", f"relay[0].linger is 2026-11-24, {DURATION}"),
    ("linger = ['1s']", f"relay[0].linger is a list, {DURATION}"),
    ('lanes.keepalive = "1ms"', 'relay[0].lanes.keepalive is "1ms", must be 100ms to 24h'),
    ("lanes.snapshot_bytes_max = 9", "relay[0].lanes.snapshot_bytes_max is 9, must have a unit, such as 9B"),
    ('lanes.snapshot_bytes_max = "9s"', 'relay[0].lanes.snapshot_bytes_max is "9s", must be a size such as 16KiB'),
    ('lanes.snapshot_bytes_max = "0.5B"', 'relay[0].lanes.snapshot_bytes_max is "0.5B", must come to whole bytes'),
    ('lanes.snapshot_bytes_max = "2TiB"', 'relay[0].lanes.snapshot_bytes_max is "2TiB", must be 0B to 1TiB'),
    ("lanes.max = 0", "relay[0].lanes.max is 0, must be a whole number, 1 to 2,147,483,647"),
    ("lanes.max = 1.5", "relay[0].lanes.max is 1.5, must be a whole number, 1 to 2,147,483,647"),
    ("lanes.max = '5'", 'relay[0].lanes.max is "5", must be a whole number, 1 to 2,147,483,647'),
    ("lanes.max = 3000000000", "relay[0].lanes.max is 3000000000, must be a whole number, 1 to 2,147,483,647"),
    ('negotiate = "yes"', 'relay[0].negotiate is "yes", must be true or false'),
    ('protocol = "grpc"', 'relay[0].protocol is "grpc", must be "signalr" or "websocket"'),
    ('lanes.on_gap = "cry"', 'relay[0].lanes.on_gap is "cry", must be "nothing", "message" or "close"'),
    ("lanes = 5", "relay[0].lanes is 5, must be a table"),
    ("lanes.headers = 5", "relay[0].lanes.headers is 5, must be a table"),
    (
        'lanes.headers.Host = "a"',
        'relay[0].lanes.headers.Host is "Host", must not be a header that belongs to the connection itself',
    ),
    ("share = 5", "relay[0].share is 5, must be a list of tables"),
    ("share = [5]", "relay[0].share[0] is 5, must be a table"),
    (
        "share = [{}]",
        "relay[0].share[0].subscribe is missing, must be a name, not empty and without control characters",
    ),
    ('everyone.targets = "A"', 'relay[0].everyone.targets is "A", must be a list'),
    (
        'everyone.targets = [""]',
        'relay[0].everyone.targets[0] is "", must be a name, not empty and without control characters',
    ),
    (
        'private.drop = ["ä"]',
        'relay[0].private.drop[0] is "ä", must be a header\'s name, such as Accept-Language',
    ),
    ('liner = "1s"', "relay[0].liner is unknown; the nearest known one is linger"),
    ("lanes.maxx = 1", "relay[0].lanes.maxx is unknown; the nearest known one is max"),
    ("zzzzz = 1", "relay[0].zzzzz is unknown"),
    ('lanes.backoff_max = "100ms"', "relay[0].lanes.backoff_max must not be less than backoff_min"),
    (
        'lanes.keepalive = "30s"',
        "relay[0].lanes.server_timeout must be more than keepalive, or a quiet backend is taken for a lost one",
    ),
    (
        'protocol = "websocket"\nprivate.pooled = ["A"]',
        'relay[0].private.pooled belongs to protocol = "signalr"',
    ),
    (
        'share = [{ subscribe = "A" }, { subscribe = "A" }]',
        'relay[0].share[1].subscribe is "A", which is share[0].subscribe already',
    ),
    (
        'private.pooled = ["A"]\nshare = [{ subscribe = "A" }]',
        'relay[0].private.pooled[0] is "A", which is share[0].subscribe already',
    ),
    (
        'share = [{ subscribe = "Watch", unsubscribe = "WATCH" }]',
        'relay[0].share[0].unsubscribe is "WATCH", which is share[0].subscribe already',
    ),
    ('private.pooled = ["Get", "gET"]', 'relay[0].private.pooled[1] is "gET", which is private.pooled[0] already'),
    (
        'everyone.targets = ["All"]\nshare = [{ subscribe = "A", snapshot = "All" }]',
        'relay[0].share[0].snapshot is "All", which is in everyone.targets: lanes drop it',
    ),
    (
        'everyone.welcome = ["Hi"]\nshare = [{ subscribe = "A", snapshot = "Hi" }]',
        'relay[0].share[0].snapshot is "Hi", which is in everyone.welcome: lanes drop it',
    ),
    (
        'protocol = "websocket"\nshare = [{ query = [] }, { subscribe = "/a" }, { query = ["m"] }]',
        "relay[0].share[2].query comes behind share[0], which has all connections already",
    ),
    (
        'protocol = "websocket"\nshare = [{ subscribe = "watch" }]',
        'relay[0].share[0].subscribe is "watch", must be a JSON pointer such as /watch (RFC 6901)',
    ),
]


@pytest.mark.parametrize(("line", "error"), WRONG, ids=[line.splitlines()[-1] for line, _ in WRONG])
def test_what_is_wrong_in_a_relay_is_told(line: str, error: str) -> None:
    (told,) = errors(RELAY + line)
    place, _, told = told.partition(": ")
    assert told == error
    assert place in ("fanwire.toml:4", "fanwire.toml:5", "fanwire.toml:1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "relay is missing: name a backend, with [[relay]] in a file or --upstream URL"),
        ("relay = 5", "fanwire.toml:1: relay is 5, must be a list of tables"),
        ('[[relay]]\nupstream = "http://a"', "fanwire.toml:1: relay[0].path is missing, must be a path such as /live"),
        (
            '[[relay]]\npath = "/a"',
            "fanwire.toml:1: relay[0].upstream is missing, "
            "must be an http, https, ws or wss URL such as http://127.0.0.1:5000/live",
        ),
        ('[[relay]]\npath = "/a"\nupstream = []', "fanwire.toml:3: relay[0].upstream must not be empty"),
        (
            '[[relay]]\npath = "a"\nupstream = "ws://a"',
            'fanwire.toml:2: relay[0].path is "a", must be a path such as /live',
        ),
        ('[[relay]]\npath = "/ws"\nupstream = "ws://a"', f'fanwire.toml:2: relay[0].path is "/ws", {PATH}'),
        (RELAY + RELAY, 'fanwire.toml:5: relay[1].path is "/live", which is relay[0]\'s already'),
        (
            RELAY + RELAY.replace("/live", "/LIVE"),
            'fanwire.toml:5: relay[1].path is "/LIVE", which is relay[0]\'s already',
        ),
        (
            RELAY + RELAY.replace("/live", "/Live/Negotiate") + 'protocol = "websocket"',
            'fanwire.toml:5: relay[1].path is "/Live/Negotiate", which is relay[0]\'s already',
        ),
        (RELAY + "[listen]\nadress = ''", "fanwire.toml:5: listen.adress is unknown; the nearest known one is address"),
        (
            RELAY + "[listen]\naddress = 'a'",
            f'fanwire.toml:5: listen.address is "a", must be {ADDRESS_FORMS}',
        ),
        (RELAY + "[listen]\nshards = 65", "fanwire.toml:5: listen.shards is 65, must be a whole number, 1 to 64"),
        (
            RELAY + "[limits]\nping_interval = 0.01",
            "fanwire.toml:5: limits.ping_interval is 0.01, must be 100ms to 24h",
        ),
        (
            RELAY + "[limits]\nhead_bytes_max = '1TiB'",
            'fanwire.toml:5: limits.head_bytes_max is "1TiB", must be 256B to 1MiB',
        ),
        (
            RELAY + "[limits]\nopenings_max = 0",
            "fanwire.toml:5: limits.openings_max is 0, must be a whole number, 1 to 2,147,483,647",
        ),
        (
            RELAY + "[limits]\npoller = 'kqueue'",
            'fanwire.toml:5: limits.poller is "kqueue", must be "epoll" or "uring"',
        ),
        (
            RELAY + "[limits]\ndrain_timeout = 1",
            "fanwire.toml:5: limits.drain_timeout is written as timeout under [drain]",
        ),
        (
            RELAY + "[drain]\ncode = 1006",
            "fanwire.toml:5: drain.code is 1006, must be a close code, 1000 to 1003, 1007 to 1009, 1011 to 1014 or "
            "3000 to 4999 (RFC 6455 §7.4)",
        ),
        (RELAY + "a = 1\na = 2", "fanwire.toml:5: is no TOML: Cannot overwrite a value"),
        (f"a = {'[' * 3_000}", f"fanwire.toml:1: {TOO_DEEP}"),
        (f"\n{'a.' * 81}a = 1", f"fanwire.toml:2: {TOO_DEEP}"),
        (f"[{'a.' * 81}a]\n\n", f"fanwire.toml:1: {TOO_DEEP}"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(text: str, error: str) -> None:
    assert errors(text) == [error]


def test_all_errors_are_told_in_the_order_of_lines() -> None:
    file = f"{RELAY}lanes.max = 0\nliner = 1\n[listen]\nshards = 0\n[[relay]]\npath = 5\n"
    assert [error.split(" is ")[0] for error in errors(file, {"FANWIRE_LOG__LEVEL": "loud"}, linger="x")] == [
        "fanwire.toml:4: relay[0].lanes.max",
        "fanwire.toml:5: relay[0].liner",
        "fanwire.toml:7: listen.shards",
        "fanwire.toml:8: relay[1].upstream",
        "fanwire.toml:9: relay[1].path",
        "--linger",
        "FANWIRE_LOG__LEVEL",
    ]


# Precedence


def test_an_option_comes_before_the_environment_and_that_before_the_file() -> None:
    file = f'[listen]\naddress = "a:1"\nshards = 2\n{RELAY}linger = "1s"\n[drain]\ncode = 1001'
    environment = {"FANWIRE_LISTEN__ADDRESS": "b:2", "FANWIRE_LISTEN__SHARDS": "3", "FANWIRE_RELAY__0__LINGER": "2s"}
    config = loaded(file, environment, listen="c:3")
    assert (config.listen.address, config.listen.shards) == ("c:3", 3)
    assert (config.relay[0].linger, config.drain.code) == (2.0, 1001)


def test_everything_may_be_a_variable() -> None:
    config = load(
        None,
        {
            "FANWIRE_RELAY__0__PATH": "/a",
            "FANWIRE_RELAY__0__UPSTREAM": "http://a, http://b",
            "FANWIRE_RELAY__0__NEGOTIATE": "false",
            "FANWIRE_RELAY__0__SHARE__0__SUBSCRIBE": "S",
            "FANWIRE_RELAY__0__EVERYONE__TARGETS__0": "T",
            "FANWIRE_RELAY__0__LANES__TOKEN__ENV": "TOKEN",
            "FANWIRE_RELAY__0__LANES__HEADERS__X_API_KEY": "k",
            "FANWIRE_LIMITS__PING_INTERVAL": "5",
            "FANWIRE_POLLER": "epoll",
            "FANWIRE_ACCESS_KEY": "no setting",
            "TOKEN": "t",
        },
    )
    relay = config.relay[0]
    assert (relay.path, relay.upstream, relay.negotiate) == ("/a", ("http://a", "http://b"), False)
    assert (relay.share, relay.everyone.targets) == ((CallShare(subscribe="S"),), ("T",))
    assert (relay.lanes.token, relay.lanes.headers) == (Secret("t"), {"x-api-key": Secret("k")})
    assert config.limits == {"ping_interval": 5.0}


def test_a_variable_replaces_the_header_of_the_file_whatever_its_case() -> None:
    file = f'{RELAY}lanes.headers.X-Api-Key = "file"'
    config = loaded(file, {"FANWIRE_RELAY__0__LANES__HEADERS__X_API_KEY": "environment"})
    assert config.relay[0].lanes.headers == {"X-Api-Key": Secret("environment")}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("FANWIRE_LISTEN__ADRESS", "a:1", "is unknown; the nearest known one is FANWIRE_LISTEN__ADDRESS"),
        ("FANWIRE_LISTN__ADDRESS", "a:1", "is unknown; the nearest known one is FANWIRE_LISTEN__ADDRESS"),
        ("FANWIRE_LISTEN__SHARDS", "two", 'is "two", must be a whole number, 1 to 64'),
        ("FANWIRE_RELAY__0__LINGER", "30", 'is "30", must have a unit, such as 30s'),
        ("FANWIRE_RELAY__0__LANES__TOKEN", "\n", 'must be a string of visible ASCII, or { env = "NAME" }'),
        ("FANWIRE_RELAY__2__PATH", "/a", "is number 2 of a list that has 1; they count from 0"),
        ("FANWIRE_RELAY__PATH", "/a", "must say which of the list, as in FANWIRE_RELAY__0__PATH"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told(name: str, value: str, error: str) -> None:
    assert errors(RELAY, {name: value}) == [f"{name} {error}"]


def test_options_alone_make_a_relay() -> None:
    given = {"upstream": ["http://a:1/live/"], "share": ["A/B", "C"], "snapshot": "S", "everyone": ["E"]}
    (relay,) = load(None, {}, options_of(given)).relay
    assert (relay.path, relay.everyone.targets) == ("/live", ("E",))
    assert relay.share == (
        CallShare(subscribe="A", unsubscribe="B", snapshot="S"),
        CallShare(subscribe="C", snapshot="S"),
    )
    assert loaded(RELAY, upstream=["http://b/other"]).relay[0].path == "/live"


def test_what_is_wrong_in_an_option_is_told() -> None:
    told = errors(RELAY, upstream=["x"], share=["/B"], listen="a")
    assert told == [
        f'--listen is "a", must be {ADDRESS_FORMS}',
        '--upstream is "x", must be an http, https, ws or wss URL such as http://127.0.0.1:5000/live',
        '--share is "", must be a name, not empty and without control characters',
    ]
    for url in ("http://a", "a"):
        says = (
            "--path is missing: a path such as /live, or a URL of the upstream that has one: http://127.0.0.1:5000/live"
        )
        assert says in errors(None, upstream=[url])


# The parts


def test_the_texts_of_values() -> None:
    assert [duration_text(each) for each in (0, 0.2, 1.5, 30, 90, 120, 7200)] == [
        "0s",
        "200ms",
        "1.5s",
        "30s",
        "90s",
        "2m",
        "2h",
    ]
    assert [size_text(each) for each in (0, 100, 1536, 65_536, 2**30)] == ["0B", "100B", "1536B", "64KiB", "1GiB"]
    assert shown("a\n" + "b" * 100) == '"a\\n' + "b" * 62 + '…"'
    assert variable(("relay", 0, "lanes", "max")) == "FANWIRE_RELAY__0__LANES__MAX"


@pytest.mark.parametrize("module", [relay_config, serve_config])
def test_every_setting_has_a_word_on_it(module: Any) -> None:
    silent = []
    for table in ast.parse(inspect.getsource(module)).body:
        if isinstance(table, ast.ClassDef):
            for field, word in zip(table.body, [*table.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and not isinstance(word, ast.Expr):
                    silent.append(f"{table.name}.{ast.unparse(field.target)}")
    tables = ("LATER", "listen", "backbone", "drain", "log")
    assert silent == [f"ServeConfig.{name}" for name in tables] * (module is serve_config)


# The commands


def test_check_says_what_would_be_served() -> None:
    Path("fanwire.toml").write_text(SURFACE)
    done = command("check", "fanwire.toml")
    *told, machine = done.stdout.splitlines()
    assert machine.startswith("  ") and "descriptors" in machine  # tests/test_machine.py
    assert told == [
        "fanwire.toml: ok",
        "  listens on 127.0.0.1:8000 with 1 shard",
        "  /live → http://127.0.0.1:5000/live (signalr)",
        "    shares Subscribe, ended by Unsubscribe; the newest Snapshot comes first",
        "    gives everyone Announcement",
        "    keeps a lane 30s after its last client",
    ]
    assert done.returncode == 0


def test_check_tells_all_errors_and_exits_with_1() -> None:
    Path("fanwire.toml").write_text(RELAY + "lanes.max = 0\nliner = 1")
    done = command("check", "fanwire.toml")
    assert done.stderr.splitlines() == [
        "fanwire.toml:4: relay[0].lanes.max is 0, must be a whole number, 1 to 2,147,483,647",
        "fanwire.toml:5: relay[0].liner is unknown; the nearest known one is linger",
    ]
    assert (done.returncode, done.stdout) == (1, "")


def test_a_file_that_cannot_be_read_exits_with_2() -> None:
    Path("latin.toml").write_bytes(b'a = "\xe4"')
    for name, why in (("none.toml", "No such file or directory"), ("latin.toml", "is not UTF-8")):
        for subcommand in ("check", "serve"):
            done = command(subcommand, name)
            assert (done.stderr, done.returncode) == (f"{name}: {why}\n", 2)


def test_help_shows_each_option_with_its_variable() -> None:
    done = command("serve", "--help", COLUMNS="120")
    for option, name in (("--listen", "FANWIRE_LISTEN__ADDRESS"), ("--upstream", "FANWIRE_RELAY__0__UPSTREAM")):
        assert option in done.stdout
        assert name in done.stdout


@pytest.mark.slow
def test_serve_relays_until_sigterm() -> None:
    run = [
        sys.executable,
        "-m",
        "fanwire",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "http://a/live?token=hush",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        lines = [line for line in (process.stderr.readline() for _ in range(3)) if "limit of open files" not in line]
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out == ""
    assert lines[0].endswith('level=info logger=fanwire.hub message="relaying /live → http://a/live?… (signalr)"\n')
    assert 'message="serving on 127.0.0.1:' in lines[1]
    assert " with " in lines[1]
    assert "draining" in rest
    assert process.returncode == 0


def test_an_option_that_is_a_fallback_gives_way() -> None:
    fallback = Option("--upstream", ("relay", 0, "path"), "/b", is_fallback=True)
    Path("fanwire.toml").write_text(RELAY)
    assert load(Path("fanwire.toml"), {}, [fallback]).relay[0].path == "/live"
