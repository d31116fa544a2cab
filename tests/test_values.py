"""Whatever is wrong in an option is refused where it is given, by name; what is accepted there can be served."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import fanwire
import pytest
from fanwire import channel, options, values
from fanwire._engine import Settings
from fanwire.cli.config import Drain, Listen, Log
from fanwire.cli.options import settings
from fanwire.options import CONGESTION_CONTROLS, ELSEWHERE, OWN, RULES, Options, check_options
from fanwire.relay import CallShare, Everyone, Lanes, MessageShare, Private, QueryShare, RelayConfig
from fanwire.serving import plan
from fanwire.values import Seconds, Whole, told

ANY = "127.0.0.1:0"
WRONG: list[Any] = [5, "x", b"x", None, -1, 10**30, True, [], {}, object(), float("nan"), ("a", 5), 10**5000, "\ud800"]
"""Each is of a wrong type, or out of range, for most options."""
TABLES = (CallShare, QueryShare, MessageShare, Everyone, Private, Lanes, RelayConfig)
REQUIRED: dict[type, dict[str, Any]] = {
    CallShare: {"subscribe": "Watch"},
    QueryShare: {"query": ("match",)},
    MessageShare: {"subscribe": "/watch"},
    RelayConfig: {"path": "/live", "upstream": "http://127.0.0.1:1/live"},
}


def accepted(name: str, make: Callable[[Any], Any]) -> list[Any]:
    """What `make` gives for those of `WRONG` that it takes; all others are refused in the one way, by name."""
    made = []
    for value in WRONG:
        try:
            made.append(make(value))
        except (TypeError, ValueError) as error:
            assert type(error) in (TypeError, ValueError, fanwire.InvalidChannel), (name, told(value), error)
            assert name in str(error), (name, told(value), error)
            assert "must" in str(error), (name, told(value), error)
            assert len(str(error)) < 400, (name, told(value))
    return made


def test_there_is_a_rule_for_each_option_and_each_field_of_a_channel() -> None:
    assert list(RULES) == list(Options.__annotations__)
    assert list(channel.RULES) == [each.name for each in fields(fanwire.Channel)]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_option_is_refused_at_once_or_can_be_served() -> None:
    for name in RULES:
        for hub in accepted(name, lambda value, name=name: fanwire.Hub(**{name: value})):  # type: ignore[misc]
            await hub.start(ANY)
            await hub.stop()
        hub = fanwire.Hub()
        for value in WRONG:
            try:
                check_options({name: value})
            except (TypeError, ValueError) as known:
                with pytest.raises(type(known)) as raised:
                    await hub.start(ANY, **{name: value})
                assert str(raised.value) == str(known)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_address_and_shards_are_refused_by_name() -> None:
    hub = fanwire.Hub()
    for value in WRONG:
        if value != 5 or isinstance(value, bool):
            if value is not None:
                with pytest.raises((TypeError, ValueError), match="address must be HOST:PORT"):
                    await hub.start(value)
            with pytest.raises((TypeError, ValueError), match="address must be HOST:PORT"):
                hub.run(value)
            with pytest.raises((TypeError, ValueError), match="shards must be a whole number, 1 to 64, not"):
                await hub.start(ANY, shards=value)
            with pytest.raises(
                (TypeError, ValueError), match="worker_timeout must be a number of seconds, 1 to 86,400"
            ):
                hub.run(ANY, worker_timeout=value)
            with pytest.raises(
                (TypeError, ValueError), match="workers must be a whole number, 0 to 128, or 'auto', not"
            ):
                hub.run(ANY, workers=value)


def test_run_raises_it_as_it_is() -> None:
    with pytest.raises(TypeError, match="shards must be a whole number, 1 to 64, not '2'"):
        fanwire.Hub().run(ANY, shards="2")  # type: ignore[arg-type]


def test_a_channel_is_refused_at_once_or_can_be_served() -> None:
    for name in channel.RULES:
        for made in accepted(name, lambda value, name=name: fanwire.Channel(**{name: value})):  # type: ignore[misc]
            assert made.rule("odds:*")
    for rule in channel.RULES.values():
        if isinstance(rule, Seconds | Whole):
            assert rule(rule.least) == rule.least
    for name in ("backlog_age", "history_age", "presence_linger"):
        with pytest.raises(ValueError, match=f"{name} must be a number of seconds"):
            fanwire.Channel(**{name: float("inf")})


def test_patterns_and_promises_are_refused_by_name() -> None:
    for value in WRONG:
        if value is not None and value != {}:
            with pytest.raises(TypeError, match="channels must be a mapping of patterns of names, such as"):
                fanwire.Hub(value)
        with pytest.raises(TypeError, match=r"channels\['odds'\] must be Channel\(...\), not "):
            fanwire.Hub({"odds": value})
    with pytest.raises(TypeError, match=r"channels must have patterns .* not the key 5"):
        fanwire.Hub({5: fanwire.Channel()})  # type: ignore[dict-item]
    with pytest.raises(fanwire.InvalidChannel):
        fanwire.Hub({"x" * 250: fanwire.Channel(presence=True)})
    for refused in (lambda: fanwire.Hub({"a\ud800": fanwire.Channel()}), lambda: fanwire.Hub().snapshot("a\ud800")):
        with pytest.raises(fanwire.InvalidChannel, match=r"channel 'a\\ud800': must not hold a lone surrogate"):
            refused()


def test_a_path_and_transports_of_an_endpoint_are_refused_by_name() -> None:
    assert accepted("endpoint's path", lambda value: fanwire.Hub().endpoint(value)) == []
    made = accepted("endpoint's transports", lambda value: fanwire.Hub().endpoint("/a", transports=value))
    assert len(made) == 1  # None
    hub = fanwire.Hub()
    hub.endpoint("/chat")
    for path in ("/Chat", "/chat/negotiate"):
        with pytest.raises(ValueError, match="would hide each other"):
            hub.endpoint(path)


def test_a_path_of_the_hub_s_own_is_refused_to_others_where_they_are_named() -> None:
    says = r"a hub at '/SignalR' and one at '/signalr' would hide each other; .* Hub\(signalr_paths=\(\)\) has none"
    with pytest.raises(ValueError, match=says):
        fanwire.Hub().endpoint("/SignalR")
    with pytest.raises(ValueError, match=says):
        fanwire.Hub().relay(RelayConfig(path="/SignalR", upstream="http://a"))
    assert fanwire.Hub(signalr_paths=()).endpoint("/SignalR").path == "/SignalR"


def test_what_a_snapshot_is_registered_with_is_refused_by_name() -> None:
    assert len(accepted("event", lambda value: fanwire.Hub().snapshot("*", event=value))) == 2  # "x" and None
    for value in (5, None, b"x", ["x"]):
        with pytest.raises(TypeError, match="pattern must be a str such as 'odds:\\*', not"):
            fanwire.Hub().snapshot(value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="event must be the name of an event, a str without line breaks, or None, not"):
        fanwire.Hub().snapshot("*", event="a\nb")
    for name in ("interval", "timeout"):
        made = accepted(name, lambda value, name=name: fanwire.Hub().snapshot("*", **{name: value}))  # type: ignore[misc]
        assert len(made) == 1  # 5


def relay_with(table: Any) -> RelayConfig:
    """A relay that has it in its place."""
    if isinstance(table, RelayConfig):
        return table
    if isinstance(table, Everyone | Private | Lanes):
        return RelayConfig(**REQUIRED[RelayConfig], **{type(table).__name__.lower(): table})
    protocol = "signalr" if isinstance(table, CallShare) else "websocket"
    return RelayConfig(**REQUIRED[RelayConfig], protocol=protocol, share=[table])  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: str(table.__name__))
async def test_a_relay_is_refused_at_once_or_can_be_served(table: Any) -> None:
    for each in fields(table):
        given = REQUIRED.get(table, {})
        for made in accepted(each.name, lambda value: table(**{**given, each.name: value})):  # noqa: B023
            hub = fanwire.Hub()
            hub.relay(relay_with(made))
            await hub.start(ANY)
            await hub.stop()
        if each.default is not MISSING:
            assert getattr(table(**given), each.name) == each.default


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("upstream", ("ftp://x",), r"upstream\[0\] must be an http, https, ws or wss URL such as .*, not 'ftp://x'"),
        ("upstream", "http://me:secret@x/", r"upstream must not hold a user or a password.*, not 'http://…@x/'"),
        ("upstream", (), "upstream must be a non-empty list of strings"),
        ("linger", "30s", "linger must be a number of seconds, 0 to 86,400, not '30s'"),
        ("linger", -1, "linger must be a number of seconds, 0 to 86,400, not -1"),
        ("admit", "no", "admit must be 'negotiate' or 'anyone', not 'no'"),
        ("lanes", {"max": 3}, r"lanes must be Lanes\(...\), not {'max': 3}"),
        (
            "share",
            ("Subscribe",),
            r"share\[0\] must be CallShare\(...\), QueryShare\(...\) or MessageShare\(...\), not 'Subscribe'",
        ),
        ("share", CallShare(subscribe="A"), r"share must be a list of CallShare\(...\), QueryShare"),
        (
            "share",
            [CallShare(subscribe="A")] * 2,
            r'share\[1\].subscribe is "A", which is share\[0\].subscribe already',
        ),
        ("share", [None], r"share\[0\] must be CallShare\(...\), QueryShare"),
        ("path", "live", "path must be a path such as /live, not 'live'"),
        ("path", "/ws", "path must be none of the hub's own paths, not '/ws'"),
    ],
)
def test_a_program_s_relay_is_checked_as_a_file_s(name: str, value: object, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"RelayConfig.{says}"):
        RelayConfig(**{**REQUIRED[RelayConfig], name: value})


def test_what_a_program_writes_shorter_means_the_same() -> None:
    plain = RelayConfig(path="/live", upstream="http://a", share=[CallShare(subscribe="A")])  # type: ignore[arg-type]
    assert plain == RelayConfig(path="/live", upstream=("http://a",), share=(CallShare(subscribe="A"),))
    lanes = Lanes(token="jwt", headers={"X-A": "b"})  # type: ignore[arg-type, dict-item]
    assert (lanes.token and lanes.token.reveal(), lanes.headers["X-A"].reveal()) == ("jwt", "b")
    assert "jwt" not in repr(lanes)


@pytest.mark.parametrize("secret", ["hush\n", 7, b"hush"])
def test_no_secret_is_told(secret: Any) -> None:
    for given in ({"token": secret}, {"headers": {"X-A": secret}}):
        with pytest.raises((TypeError, ValueError)) as raised:
            Lanes(**given)
        assert "hush" not in str(raised.value)
        assert "visible ASCII" in str(raised.value)


@pytest.mark.parametrize("table", [CallShare, QueryShare, MessageShare])
def test_a_name_is_utf_8(table: Any) -> None:
    for name, value in REQUIRED[table].items():
        given = ("a\ud800",) if isinstance(value, tuple) else f"{value}\ud800"
        with pytest.raises(ValueError, match=rf"{table.__name__}\.{name}.* must be .*\\ud800"):
            table(**{name: given})


def test_between_the_fields_of_lanes() -> None:
    with pytest.raises(ValueError, match=r"Lanes\.server_timeout must be more than keepalive"):
        Lanes(keepalive=5, server_timeout=5)


# Names


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fanwire.Channel(histroy=1), "Channel: unknown argument 'histroy'; the nearest known one is 'history'"),
        (lambda: fanwire.Channel("latest"), r"Channel takes its arguments by name, such as Channel\(policy=...\)"),  # type: ignore[misc]
        (lambda: fanwire.Channel(name="odds"), "Channel: name is no argument: it is the key"),
        (lambda: RelayConfig(lingr=1), "RelayConfig: unknown argument 'lingr'; the nearest known one is 'linger'"),
        (lambda: Lanes(maximum=1), "Lanes: unknown argument 'maximum'"),
        (lambda: QueryShare(subscribe="A"), "QueryShare: subscribe is no argument"),
        (lambda: fanwire.Hub(history=10), r"history is no option: it belongs to a channel: Hub\({'odds:\*': Channel"),
        (lambda: fanwire.Hub(tls=True), "tls is no option: it is none of fanwire: it speaks plain HTTP, and a proxy"),
        (lambda: fanwire.Hub(workers=4), r"workers must be unix:PATH.* is an argument of run: .*workers=2\)"),
        (lambda: fanwire.Hub(max_message_size=4), "max_message_size is no option: it is called message_bytes_max here"),
        (lambda: fanwire.Hub(max_size=4), "max_size is no option: it is called message_bytes_max here"),
        (lambda: fanwire.Hub(on_message=print), "on_message is no option: it is registered: @hub.on_message"),
        (lambda: fanwire.Hub(ping_intervall=4), "unknown option 'ping_intervall'; the nearest known one is 'ping_int"),
        (lambda: fanwire.Hub().relay({"path": "/"}), r"relay takes a RelayConfig\(...\), not {'path': '/'}"),
    ],
)
def test_a_name_that_there_is_not_says_where_to_go(make: Callable[[], object], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        make()


def test_what_is_elsewhere_is_no_option_and_points_to_ones_that_there_are() -> None:
    assert not ELSEWHERE.keys() & RULES.keys()
    called = [text.removeprefix("is called ").split()[0] for text in ELSEWHERE.values() if text.startswith("is called")]
    assert called
    assert {name.strip(",") for name in called} <= RULES.keys() | {"shards", "workers"}


# The engine's ranges, and the kernel


def engine_takes(name: str, value: float) -> bool:
    """Whether the engine takes it."""
    try:
        Settings(**{name: value})
    except (ValueError, OverflowError):
        return False
    return True


def edges(rule: Seconds | Whole) -> Iterator[tuple[float, bool]]:
    """Values at both ends and beyond them, and whether they are inside."""
    step = 1 if isinstance(rule, Whole) else 0.001
    yield from ((rule.least, True), (rule.most, True), (rule.least - step, False), (rule.most + step, False))


def test_the_ranges_are_the_engine_s_own() -> None:
    ranges = {name: rule for name, rule in RULES.items() if isinstance(rule, Seconds | Whole) and name not in OWN}
    assert len(ranges) > 20
    for name, rule in {**ranges, "shards": options.SHARDS_RULE}.items():
        for value, is_inside in edges(rule):
            assert engine_takes(name, value) is is_inside, (name, value)


def test_a_congestion_control_is_one_that_the_kernel_lets_us_have() -> None:
    if not os.access(CONGESTION_CONTROLS, os.R_OK):
        pytest.skip("this kernel tells none")
    known = CONGESTION_CONTROLS.read_text().split()
    with pytest.raises(ValueError, match=f"must be one that the kernel knows: {known[0]}.*, not 'nope'"):
        fanwire.Hub(congestion_control="nope")
    for name in ("", "x" * 16, "a\0b", "ä"):
        with pytest.raises(ValueError, match="congestion_control must be a name that the kernel knows"):
            fanwire.Hub(congestion_control=name)
    assert fanwire.Hub(congestion_control="reno")


def test_permissions_are_told_as_they_are_written() -> None:
    with pytest.raises(ValueError, match="unix_mode must be permissions, 0o0 to 0o777, not 0o1777"):
        fanwire.Hub(unix_mode=0o1777)
    with pytest.raises(TypeError, match="unix_mode must be permissions, 0o0 to 0o777, not '660'"):
        fanwire.Hub(unix_mode="660")  # type: ignore[arg-type]


def test_a_list_may_be_any_collection_and_is_read_once() -> None:
    hub = fanwire.Hub(subprotocols=(name for name in ("a", "b")), signalr_paths=iter(["/live"]))  # type: ignore[arg-type]
    assert plan(hub._callbacks, {}, [], 1, hub._options).paths[0] == "/live"
    assert hub._options["subprotocols"] == ("a", "b")


# What is said


def test_a_value_is_told_short_on_one_line_and_without_secrets() -> None:
    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    assert len(told("x" * 1000)) == values.SHOWN_MAX + 1
    assert told("a\nb") == r"'a\nb'"
    assert told("https://me:pass@a/?token=1") == "'https://…@a/?…"
    assert told(Silent()) == "one of type Silent"
    assert told(10**5000) == "one of type int"


@pytest.mark.anyio
async def test_a_hub_says_what_it_is() -> None:
    hub = fanwire.Hub({"odds:*": fanwire.Channel(), "goals": fanwire.Channel()})
    hub.endpoint("/chat")
    assert repr(hub) == "<fanwire.Hub not serving, 2 channel patterns, 1 endpoint>"
    async with hub.serve(ANY) as serving:
        assert repr(hub) == f"<fanwire.Hub serving on {serving.address}, 2 channel patterns, 1 endpoint>"
    assert repr(fanwire.Hub()) == "<fanwire.Hub not serving>"


# The page of settings


def test_the_page_of_settings_has_the_defaults_of_the_file_s_tables() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    told_defaults: dict[str, str] = {}
    for names, default in re.findall(
        r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|", page[page.index("### `[listen]`") :], re.MULTILINE
    ):
        told_defaults.update(zip(re.findall(r"`([\w.]+)`", names), default.split(", "), strict=False))
    tables = {"": RelayConfig, "everyone.": Everyone, "private.": Private, "lanes.": Lanes}
    tables |= {"listen.": Listen, "drain.": Drain, "log.": Log}
    for prefix, table in tables.items():
        for each in fields(table):
            name = f"{prefix}{each.name}"
            if name not in ("share", "everyone", "private", "lanes", "admit_ignore"):
                shown = told_defaults.pop(name).strip("`").replace(",", "")
                default = {} if each.default_factory is not MISSING else each.default
                if default is MISSING or default in ((), {}, None):
                    assert shown == ("required" if default is MISSING else "none"), name
                else:
                    units = {"s": 1.0, "m": 60.0, "ms": 0.001, "KiB": 1024}
                    amount = re.fullmatch(r"([0-9.]+)(s|m|ms|KiB)", shown)
                    meant = float(amount[1]) * units[amount[2]] if amount else shown
                    assert meant == default or str(meant) == str(default).lower(), (name, shown, default)


def test_check_asks_the_kernel_for_an_io_uring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, settings: Settings) -> None:
            self.stop = list

        def start(self) -> None:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("fanwire.cli.config.Engine", Refused)
    file = tmp_path / "fanwire.toml"
    relay = '[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n'
    file.write_text(relay + '[limits]\npoller = "uring"\n')
    with pytest.raises(ExceptionGroup) as raised:
        settings(file, {}, {})
    says = 'fanwire.toml:5: limits.poller is "uring", which this kernel does not allow: Operation not permitted'
    assert str(raised.value.exceptions[0]).endswith(says)


# What `fanwire check` lets through, `fanwire serve` can serve


@pytest.mark.slow
def test_what_check_accepts_can_be_planned(tmp_path: Path) -> None:
    file = tmp_path / "fanwire.toml"
    relay = '[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n[limits]\n'
    count = 0
    for name in RULES:
        for written in ("0", "1", "5", "300", "70_000", '"5s"', '"1h"', '"1KiB"', '"1MiB"', '"uring"', "true", "[]"):
            file.write_text(f"{relay}{name} = {written}\n")
            try:
                limits = settings(file, {}, {}).limits
            except ExceptionGroup as refused:
                assert f"limits.{name}" in str(refused.exceptions[0])
            else:
                count += 1
                hub = fanwire.Hub(**dict(limits))
                assert plan(hub._callbacks, {}, [], 1, hub._options)
    assert count > 50
