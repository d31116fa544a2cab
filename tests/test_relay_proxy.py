"""A relay as a proxy: what the backend gets to see of a client, what admission remembers, and upstreams that fail."""

import time
from base64 import urlsafe_b64encode
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import fanwire
import msgspec
import pytest
from fanwire.cli.options import settings
from fanwire.errors import ConfigError
from fanwire.relay.admission import Credentials, expiry_of
from fanwire.relay.config import Private, RelayConfig
from fanwire.relay.headers import UNIMPORTANT, Passing
from support.hub_client import hub_client
from support.plain_backend import PlainBackend
from support.raw import open_socket
from support.relaying import PATH, config, relayed
from support.scripted_backend import ScriptedBackend
from support.waiting import until

pytestmark = pytest.mark.anyio
LATIN = "bär\xff"
"""Bytes over 0x7F, which are no UTF-8."""


@pytest.fixture
def backend() -> Any:
    """One that does as a hub does until it is told otherwise."""
    with ScriptedBackend() as backend:
        yield backend


def fields(head: bytes) -> dict[str, str]:
    """A request's headers, names in lower case."""
    pairs = (line.decode("latin-1").split(": ", 1) for line in head.split(b"\r\n")[1:] if line)
    return {name.lower(): value for name, value in pairs}


def jwt(**claims: object) -> str:
    """A token that says so."""
    part = urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=")
    return f"e30.{part}.c2ln"


SENT = {
    "X-Api-Key": "k",
    "Accept-Language": "de",
    "User-Agent": "a test",
    "X-Hop": "1",
    "X-Not": "2",
    "Accept-Encoding": "gzip",
    "Range": "bytes=0-",
    "If-Match": "x",
    "Proxy-Authorization": "Basic eA==",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=192.0.2.1",
}


async def shown(hub: fanwire.Hub, backend: ScriptedBackend, **options: Any) -> list[dict[str, str]]:
    """What the backend saw at admission, negotiation and upgrade of one client that sent `SENT`."""
    async with (
        relayed(hub, config(backend, admit="negotiate", private=Private(drop=("X-Not",)), **options)) as address,
        hub_client(address, PATH, "?own=1", additional_headers={**SENT, "Connection": "Upgrade, X-Hop"}) as client,
    ):
        assert await client.invoke("Echo", 1) == {"result": 1}
    return [fields(head) for head in backend.heads if b"own=1" in head]


async def test_all_end_to_end_headers_of_a_client_go_on(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    own = await shown(hub, backend)
    assert len(own) == 3, "admission, negotiation, upgrade"
    for head in own:
        assert (head["x-api-key"], head["accept-language"], head["user-agent"]) == ("k", "de", "a test")
        gone = {"x-hop", "x-not", "accept-encoding", "range", "if-match", "proxy-authorization"}
        assert not gone & head.keys()
        host = head["x-forwarded-host"]
        assert (head["x-forwarded-for"], head["x-forwarded-proto"]) == ("127.0.0.1", "http"), (
            "what it claims is replaced"
        )
        assert host != head["host"]
        assert head["forwarded"] == f'for=127.0.0.1;host="{host}";proto=http'
    lanes = [fields(head) for head in backend.heads if b"own=1" not in head]
    assert lanes and all(head["user-agent"] == f"fanwire/{fanwire.__version__}" for head in lanes)
    assert not any({"x-api-key", "forwarded"} & head.keys() for head in lanes)


async def test_what_a_trusted_proxy_says_is_kept_and_appended_to(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    for head in await shown(hub, backend, trusted_proxies=("127.0.0.0/8",)):
        assert (head["x-forwarded-for"], head["x-forwarded-proto"]) == ("192.0.2.1, 127.0.0.1", "https")
        assert head["forwarded"].startswith("for=192.0.2.1, for=127.0.0.1;host=")


async def test_bytes_over_ascii_reach_the_backend_unchanged(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    request = f"POST {PATH}/negotiate HTTP/1.1\r\nHost: a\r\nAuthorization: {LATIN}\r\nContent-Length: 0\r\n\r\n"

    async with relayed(hub, config(backend, admit="negotiate")) as address:
        with open_socket(address) as connection:
            connection.sendall(request.encode("latin-1"))
            await until(lambda: any(b"uthorization" in head for head in backend.heads))
    asked = next(fields(head) for head in backend.heads if b"uthorization" in head)
    assert asked["authorization"] == LATIN


async def test_a_plain_relay_passes_them_on_too(hub: fanwire.Hub) -> None:
    plain = PlainBackend()
    with plain.serving() as at:
        hub.relay(RelayConfig(path="/feed", upstream=(f"ws://{at}/feed",), protocol="websocket"))
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(hub.serve("127.0.0.1:0", drain_timeout=0.2))
            with open_socket(serving.address) as connection:
                key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
                head = f"GET /feed HTTP/1.1\r\nHost: a\r\nConnection: upgrade, x-hop\r\nUpgrade: websocket\r\n{key}\r\n"
                connection.sendall(f"{head}X-Api-Key: k\r\nX-Hop: 1\r\n\r\n".encode())
                await until(lambda: len(plain.visits) == 1)
        headers = plain.visits[0].headers
        assert (headers.get("X-Api-Key"), headers.get("X-Hop"), headers.get("X-Forwarded-Host")) == ("k", None, "a")


# What admission remembers


async def test_another_header_is_another_client_and_an_unimportant_one_is_not(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        for headers in (
            {"X-Api-Key": "a"},
            {"X-Api-Key": "b"},
            {"X-Api-Key": "a", "User-Agent": "x", "Accept-Language": "y", "Traceparent": "z", "X-B3-TraceId": "z"},
        ):
            async with hub_client(address, PATH, additional_headers=headers):
                pass
    asked = [fields(head)["x-api-key"] for head in backend.heads if b"x-api-key" in head.lower()]
    assert asked == ["a", "b"]


async def test_nothing_is_remembered_beyond_a_tokens_own_expiry(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    tokens = jwt(exp=int(time.time()) - 5), jwt(exp=int(time.time()) + 600)
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        for token in (*tokens, *tokens):
            async with hub_client(address, PATH, additional_headers={"Authorization": f"Bearer {token}"}):
                pass
    asked = [fields(head)["authorization"].removeprefix("Bearer ") for head in backend.heads if b"Bearer" in head]
    assert [asked.count(token) for token in tokens] == [2, 1]


@pytest.mark.parametrize(
    ("token", "expiry"),
    [(jwt(exp=12), 12), (jwt(exp=12.5), 12.5), (jwt(sub="a"), None), (jwt(exp="12"), None), (jwt(exp=True), None)]
    + [(text, None) for text in ("", "a", "a.b", "a.é.c", "..", "a.W10.c", "a." + "A" * 5 + ".c")],
)
def test_a_tokens_expiry(token: str, expiry: float | None) -> None:
    assert expiry_of(token) == (float("inf") if expiry is None else expiry)


def test_a_token_in_the_query_counts_and_the_earliest_does() -> None:
    now = time.time()
    headers = [("authorization", f"Bearer {jwt(exp=now + 100)}")]
    shown = Credentials(headers, f"a=b&access_token={jwt(exp=now + 50)}", True, ())
    assert 40 < shown.expires_in() <= 50


# Settings


def mistakes(more: str, folder: Path) -> list[str]:
    """What is wrong with a relay with these settings."""
    file = folder / "fanwire.toml"
    file.write_text(f'[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n{more}\n')
    try:
        settings(file, {}, {})
    except ExceptionGroup as group:
        return [str(error).partition("relay[0].")[2] for error in group.exceptions]
    return []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('private.drop = ["X-A"]\ntrusted_proxies = ["10.0.0.0/8", "::1", "unix"]\nadmit_ignore = ["x-*"]', []),
        (
            'private.forward = ["X-A"]',
            [
                "private.forward is no more: all end-to-end headers are forwarded, private.drop names exceptions",
            ],
        ),
        (
            'trusted_proxies = ["10.0.0.1/8"]',
            ['trusted_proxies[0] is "10.0.0.1/8", must be an address, a network such as 10.0.0.0/8, or "unix"'],
        ),
        (
            'admit_ignore = ["a*b"]',
            ['admit_ignore[0] is "a*b", must be a header\'s name, perhaps with * at its end, such as accept-*'],
        ),
    ],
)
def test_settings_of_headers(more: str, expected: list[str], tmp_path: Path) -> None:
    assert mistakes(more, tmp_path) == expected


def test_forward_is_gone_and_says_so() -> None:
    with pytest.raises(ConfigError, match=r"all end-to-end headers are forwarded, private.drop names exceptions"):
        Private(forward=("X-A",))
    assert Private() == Private(drop=())


def test_the_rule_of_proxies_knows_mapped_addresses_and_sockets() -> None:
    passing = Passing.of((), ("10.0.0.0/8", "unix"), UNIMPORTANT)
    assert [passing._trusts(peer) for peer in ("10.1.2.3", "::ffff:10.1.2.3", "11.0.0.1", "unix", "")] == [
        *(True, True, False, True, False)
    ]
    assert not Passing.of((), (), ())._trusts("unix")
