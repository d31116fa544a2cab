"""What a ``[[relay]]`` may not say: names, paths and shares that would never be reached; see also ``test_config``."""

from pathlib import Path

import fanwire
import pytest
from fanwire.cli.config import ServeConfig, load
from fanwire.relay.config import CallShare, Everyone, MessageShare, QueryShare, RelayConfig

RELAY = '[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n'
PLAIN = RELAY + 'protocol = "websocket"\n'
EXCLUDES = "and query exclude each other: each has a [[relay.share]] of its own"


def loaded(folder: Path, text: str, environment: dict[str, str] | None = None) -> ServeConfig:
    """The settings of a file of this text."""
    file = folder / "fanwire.toml"
    file.write_text(text)
    return load(file, environment or {})


def errors(folder: Path, text: str) -> list[str]:
    """What is wrong with such a file, from the line on."""
    with pytest.raises(ExceptionGroup) as raised:
        loaded(folder, text)
    return [str(error).partition("fanwire.toml:")[2] for error in raised.value.exceptions]


# Paths


@pytest.mark.parametrize("path", ["/live/negotiate", "/live/Negotiate", "/negotiate"])
def test_a_signalr_path_does_not_end_where_clients_negotiate(tmp_path: Path, path: str) -> None:
    text = RELAY.replace('"/live"', f'"{path}"')
    assert errors(tmp_path, text) == [
        f'2: relay[0].path is "{path}", must not end in /negotiate, which clients ask for below a path'
    ]
    assert loaded(tmp_path, text + 'protocol = "websocket"').relay[0].path == path


@pytest.mark.parametrize("path", ["/WS", "/Events", "/healthZ", "/ReadyZ", "/Metrics"])
def test_a_signalr_path_is_none_of_the_hub_s_own_whatever_the_case(tmp_path: Path, path: str) -> None:
    text = RELAY.replace('"/live"', f'"{path}"')
    (error,) = errors(tmp_path, text)
    assert error == f'2: relay[0].path is "{path}", must be none of the hub\'s own paths, whatever the case'
    assert loaded(tmp_path, text + 'protocol = "websocket"').relay[0].path == path


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (RELAY, PLAIN.replace("/live", "/LIVE"), '5: relay[1].path is "/LIVE", which is relay[0]\'s already'),
        (PLAIN.replace("/live", "/LIVE"), RELAY, '6: relay[1].path is "/live", which is relay[0]\'s already'),
        (PLAIN, PLAIN, '6: relay[1].path is "/live", which is relay[0]\'s already'),
        (
            PLAIN.replace("/live", "/Live/negotiate"),
            RELAY,
            '6: relay[1].path is "/live", whose /negotiate is relay[0]\'s already',
        ),
    ],
)
def test_two_relays_do_not_meet(tmp_path: Path, first: str, second: str, error: str) -> None:
    assert errors(tmp_path, first + second) == [error]


def test_paths_of_plain_websockets_are_told_apart_by_case(tmp_path: Path) -> None:
    text = PLAIN + PLAIN.replace("/live", "/LIVE") + PLAIN.replace("/live", "/live/negotiate")
    assert [relay.path for relay in loaded(tmp_path, text).relay] == ["/live", "/LIVE", "/live/negotiate"]


# Shares


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            'share = [{ subscribe = "A", unsubscribe = "Off" }, { subscribe = "B", unsubscribe = "off" }]',
            ['share[1].unsubscribe is "off", which is share[0].unsubscribe already'],
        ),
        (
            'share = [{ subscribe = "Subscribe" }, { subscribe = "subscribe" }]',
            ['share[1].subscribe is "subscribe", which is share[0].subscribe already'],
        ),
        (
            'private.pooled = ["off", "a"]\nshare = [{ subscribe = "A", unsubscribe = "Off" }]',
            [
                'private.pooled[0] is "off", which is share[0].unsubscribe already',
                'private.pooled[1] is "a", which is share[0].subscribe already',
            ],
        ),
        (
            'share = [{ subscribe = "/watch", unsubscribe = "/unwatch" }]',
            ['share[0].subscribe is "/watch", which looks as if protocol = "websocket" were missing'],
        ),
        ("share = [{ query = [] }]", ['share[0].query looks as if protocol = "websocket" were missing']),
        ('share = [{ query = ["m"], subscribe = "/w" }]', [f"share[0].subscribe {EXCLUDES}"]),
    ],
)
def test_what_is_wrong_with_shares_of_signalr_is_told(tmp_path: Path, line: str, told: list[str]) -> None:
    found = errors(tmp_path, RELAY + line)
    assert sorted(error.partition(": relay[0].")[2] for error in found) == sorted(told)
    assert {error.partition(":")[0] for error in found} <= {"4", "5"}


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ('{ query = ["m"], subscribe = "/w" }', [f"share[0].subscribe {EXCLUDES}"]),
        ('{ query = ["m"], unsubscribe = "/w" }', [f"share[0].unsubscribe {EXCLUDES}"]),
        ('{ query = ["m"], snapshot = "S" }', ['share[0].snapshot belongs to protocol = "signalr"']),
        ('{ subscribe = "/w", fresh = "1s" }', ['share[0].fresh belongs to protocol = "signalr"']),
        (
            '{ subscribe = "/w", snapshot_messages_max = 9 }',
            ['share[0].snapshot_messages_max belongs to protocol = "signalr"'],
        ),
        ('{ query = ["m", "n", "m"] }', ['share[0].query[2] is "m", which is query[0] already']),
        ("{ query = [] }, { query = [] }", ["share[1].query comes behind share[0], which has all connections already"]),
        (
            '{ query = ["m"] }, { query = ["m"] }',
            ["share[1].query comes behind share[0]: no connection with these parameters is left"],
        ),
        (
            '{ query = ["m", "x"] }, { query = ["n"] }, { query = ["n", "m"] }',
            ["share[2].query comes behind share[0] and share[1]: no connection with these parameters is left"],
        ),
        (
            '{ subscribe = "/a", unsubscribe = "/a/off" }, { subscribe = "/A" }, { subscribe = "/a" }',
            [
                'share[0].unsubscribe is "/a/off", below "/a", which is share[0].subscribe already',
                'share[2].subscribe is "/a", which is share[0].subscribe already',
            ],
        ),
    ],
)
def test_what_is_wrong_with_shares_of_websockets_is_told(tmp_path: Path, shares: str, told: list[str]) -> None:
    assert errors(tmp_path, f"{PLAIN}share = [{shares}]") == [f"5: relay[0].{one}" for one in told]


def test_shares_of_websockets_that_are_all_reached(tmp_path: Path) -> None:
    shares = '{ query = ["m"] }, { query = ["m", "n"] }, { query = [] }, { subscribe = "/ab/c", unsubscribe = "/a" }'
    assert len(loaded(tmp_path, f"{PLAIN}share = [{shares}]").relay[0].share) == 4


def test_a_protocol_of_the_environment_has_shares_of_its_own(tmp_path: Path) -> None:
    text = f'{RELAY}protocol.env = "P"\nshare = [{{ query = ["m"] }}, {{ subscribe = "/w" }}]'
    assert loaded(tmp_path, text, {"P": "websocket"}).relay[0].share == (
        QueryShare(query=("m",)),
        MessageShare(subscribe="/w"),
    )
    text = f'{RELAY}protocol.env = "P"\nshare = [{{ subscribe = "Watch" }}]'
    assert loaded(tmp_path, text, {"P": "signalr"}).relay[0].share == (CallShare(subscribe="Watch"),)
    with pytest.raises(ExceptionGroup) as raised:
        loaded(tmp_path, text, {"P": "websocket"})
    assert str(raised.value.exceptions[0]).endswith(':5: relay[0].share[0] belongs to protocol = "signalr"')


def test_all_that_is_wrong_between_the_fields_of_a_relay_is_told_at_once() -> None:
    shares = (CallShare(subscribe="A", snapshot="S"), CallShare(subscribe="a"), QueryShare(query=("m",)))
    everyone = Everyone(targets=("S",), welcome=("S",))
    relay = RelayConfig(path="/x", upstream=("http://a",))
    for name, value in {"path": "/x/negotiate", "share": shares, "everyone": everyone}.items():
        object.__setattr__(relay, name, value)  # as a file's, which may hold such and is told of all of it
    assert [path for path, _ in relay.faults()] == [
        ("path",),
        ("share", 0, "snapshot"),
        ("share", 2, "query"),
        ("share", 1, "subscribe"),
    ]


def test_a_target_may_go_to_everyone_and_greet(tmp_path: Path) -> None:
    everyone = 'everyone = { targets = ["Banner"], welcome = ["Banner"] }'
    assert loaded(tmp_path, RELAY + everyone).relay[0].everyone == Everyone(targets=("Banner",), welcome=("Banner",))


def test_faults_between_fields_do_not_hide_each_other(tmp_path: Path) -> None:
    text = RELAY + 'lanes.keepalive = "30s"\nprivate.pooled = ["A"]\nshare = [{ subscribe = "A" }]\n' + RELAY
    assert errors(tmp_path, text) == [
        "4: relay[0].lanes.server_timeout must be more than keepalive, or a quiet backend is taken for a lost one",
        '5: relay[0].private.pooled[0] is "A", which is share[0].subscribe already',
        '8: relay[1].path is "/live", which is relay[0]\'s already',
    ]


def test_a_program_s_relay_is_checked_as_well() -> None:
    hub = fanwire.Hub()
    with pytest.raises(ValueError, match=r'RelayConfig\.path is "/live/negotiate", must not end in /negotiate'):
        RelayConfig(path="/live/negotiate", upstream=("http://a",))
    hub.relay(RelayConfig(path="/live", upstream=("http://a",)))
    with pytest.raises(ValueError, match="a hub at '/LIVE' is registered already"):
        hub.relay(RelayConfig(path="/LIVE", upstream=("http://a",)))
