"""The options of serving."""

import ast
import inspect
from typing import Any

import fanwire
import pytest
from fanwire import options
from fanwire.addresses import address_of, origins_of
from fanwire.options import OWN, Options, check_options
from fanwire.values import rows_of
from support.clients import connected
from websockets.exceptions import InvalidStatus


def test_every_setting_of_the_engine_is_an_option_or_the_hubs_own() -> None:
    assert set(rows_of("engine")) == set(Options.__annotations__) - set(OWN)


def test_every_option_has_a_word_on_it() -> None:
    source = inspect.getsource(options.Options)
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, word in zip(body.body[1::2], body.body[2::2], strict=True):
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(word, ast.Expr)


@pytest.mark.parametrize("name", ["drain_timeout", "openings_max"])
def test_the_hubs_own_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a .*, [01] (or more|to .*), not -1"):
        check_options({name: -1})


@pytest.mark.anyio
async def test_the_environment_chooses_the_poller_where_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANWIRE_POLLER", "epoll")
    async with fanwire.Hub().serve("127.0.0.1:0") as serving:
        assert serving.poller == "epoll"
    monkeypatch.setenv("FANWIRE_POLLER", "kqueue")
    with pytest.raises(ValueError, match="FANWIRE_POLLER must be 'epoll', 'uring' or None, not 'kqueue'"):
        async with fanwire.Hub().serve("127.0.0.1:0"):
            pass


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ping_interval": -1}, "ping_interval must be a number of seconds, 0.1 to 86,400, not -1"),
        ({"drain_timeout": -1}, "drain_timeout must be a number of seconds, 0 or more, not -1"),
        ({"drain_timeout": float("nan")}, "drain_timeout must be a number of seconds, 0 or more, not nan"),
        ({"drain_spread": float("inf")}, "drain_spread must be a number of seconds, 0 to 3,600, not inf"),
        ({"poller": "kqueue"}, "poller must be 'epoll', 'uring' or None, not 'kqueue'"),
        ({"origins": ["bets.example"]}, r"origins\[0\] must be SCHEME://HOST .* not 'bets.example'"),
        ({"origins": ["*", "https://bets.example"]}, "origins must not have others beside"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_when_the_hub_is_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fanwire.Hub(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"shards": 2},
            r"shards is no option: it is an argument of serve, start and run: hub.serve\(address, shards=2\)",
        ),
        ({"port": 8000}, "port is no option: it is part of the address"),
        ({"drain_timeout": None}, "drain_timeout must be a number of seconds, 0 or more, not None"),
        ({"ping_interval": "25"}, "ping_interval must be a number of seconds, .*, not '25'"),
        ({"backlog": 1.5}, "backlog must be a whole number, 1 to 65,536, not 1.5"),
        ({"openings_max": "many"}, "openings_max must be a whole number, 1 to .*, not 'many'"),
        ({"origins": 7}, "origins must be a list of origins such as .*, not 7"),
        ({"origins": [7]}, r"origins\[0\] must be SCHEME://HOST .*, not 7"),
        ({"pin_shard": True}, "unknown option 'pin_shard'; the nearest known one is 'pin_shards'"),
    ],
    ids=str,
)
def test_what_is_no_option_says_where_it_belongs(options: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        fanwire.Hub(**options)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        ("*", None),
        (["*"], None),
        ([], ()),
        ("https://bets.example", ("https://bets.example",)),
        (["https://Bets.Example/"], ("https://bets.example",)),
        (["https://bets.example:443", "http://bets.example:80/"], ("https://bets.example", "http://bets.example")),
        (["https://bets.example:8443", "http://[::1]:3000"], ("https://bets.example:8443", "http://[::1]:3000")),
        (["https://bücher.example"], ("https://xn--bcher-kva.example",)),
        (["null", "capacitor://localhost"], ("null", "capacitor://localhost")),
        (["https://a", "https://a/"], ("https://a",)),
    ],
    ids=str,
)
def test_origins_are_what_a_browser_sends(given: Any, meant: Any) -> None:
    assert origins_of(given) == meant


@pytest.mark.parametrize(
    "origin", ["bets.example", "https://bets.example/live", "https://*.example", "https://", "", "a:b"]
)
def test_an_origin_whose_meaning_is_not_clear_says_the_form(origin: str) -> None:
    with pytest.raises(ValueError, match="must be SCHEME://HOST or SCHEME://HOST:PORT"):
        origins_of([origin])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (8000, "127.0.0.1:8000"),
        ("8000", "127.0.0.1:8000"),
        ("localhost:0", "localhost:0"),
        ("[::1]:80", "[::1]:80"),
        ("unix:/run/a b.sock", "unix:/run/a b.sock"),
    ],
)
def test_an_address_may_be_a_port_alone(given: Any, meant: str) -> None:
    assert address_of(given) == meant


@pytest.mark.parametrize("given", ["nowhere", "", "host:", "a:b", 70_000, -1, "127.0.0.1:70000", "http://a:1", "unix:"])
def test_what_is_no_address_says_the_forms(given: Any) -> None:
    with pytest.raises(ValueError, match=r"address must be HOST:PORT, \[V6\]:PORT or unix:PATH"):
        address_of(given)


@pytest.mark.anyio
async def test_a_port_behind_a_colon_is_on_all_addresses() -> None:
    async with fanwire.Hub().serve(":0") as serving:
        port = serving.address.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]") if serving.address.startswith("[") else ("127.0.0.1",):
            async with connected(f"{host}:{port}"):
                pass


@pytest.mark.anyio
async def test_an_origin_with_a_slash_and_a_default_port_lets_in_whom_it_means() -> None:
    async with fanwire.Hub(origins=["https://Bets.example:443/"]).serve("127.0.0.1:0") as serving:
        async with connected(serving.address, origin="https://bets.example"):
            pass
        with pytest.raises(InvalidStatus):
            async with connected(serving.address, origin="https://worse.example"):
                raise AssertionError
