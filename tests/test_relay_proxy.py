"""A relay as a proxy: what the backend gets to see of a client, what admission remembers, and upstreams that fail."""

import os
import resource
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import fanwire
import httpx
import msgspec
import pytest
from anyio.to_thread import run_sync
from fanwire.cli.options import settings
from fanwire.cli.serving import shown_limit
from fanwire.relay.config import Private, RelayConfig
from fanwire.relay.credentials import Credentials, Shown, expiry_of
from fanwire.relay.headers import UNIMPORTANT, Passing
from support.hub_client import hub_client
from support.loops import epoll_alone, without_uvloop
from support.plain_backend import PlainBackend
from support.raw import open_socket
from support.relaying import PATH, PATIENT, SECRET, SHARE, config, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, answering, negotiate
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = without_uvloop
LATIN = "bär\xff"
"""Bytes over 0x7F, which are no UTF-8."""


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
    **dict.fromkeys(("X-Forwarded-Port", "X_Forwarded_For", "X-Forwarded-Client-Cert", "X-Real-IP"), "443"),
}
CLAIMED = {"x-forwarded-port", "x_forwarded_for", "x-forwarded-client-cert", "x-real-ip"}


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
        assert not (gone | CLAIMED) & head.keys()
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
        assert head.keys() >= CLAIMED


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
    headers = (("authorization", f"Bearer {jwt(exp=now + 100)}"),)
    shown = Shown(headers, f"a=b&access_token={jwt(exp=now + 50)}", True)
    assert 40 < Credentials(shown, "").expires_in() <= 50


@pytest.mark.parametrize("name", ["access_token", "ACCESS_TOKEN", "access%5Ftoken", "Access%5FTok%65n"])
async def test_a_token_counts_however_its_name_is_written(
    hub: fanwire.Hub, backend: ScriptedBackend, name: str
) -> None:
    """As ASP.NET Core reads it: its client is somebody, and let in no longer than the token is good."""
    shown = Shown((), f"a=b&{name}={jwt(exp=time.time() + 50)}", True)
    assert Credentials(shown, "").expires_in() <= 50
    asking = config(backend, admit="negotiate", admit_for=3_600.0, private=Private(eager=True))
    expired = jwt(exp=time.time() - 100)
    async with relayed(hub, asking) as address:
        for count in (1, 2):
            async with hub_client(address, PATH, f"?{name}={expired}"):
                await until(lambda: hub.relay_stats()[0].private_lanes == 1)  # of those that are somebody
            asked = sum(head.startswith(b"POST") and name.encode() in head for head in backend.heads)
            assert asked >= count


# Upstreams that fail


def two(first: ScriptedBackend, second: ScriptedBackend, **options: Any) -> RelayConfig:
    """A relay before both; with a secret in the first's query."""
    urls = f"http://{first.address}{PATH}?secret={SECRET}", f"http://{second.address}{PATH}"
    return RelayConfig(path=PATH, upstream=urls, share=(SHARE,), lanes=PATIENT, **options)


@pytest.mark.parametrize("status", [404, 500, 502, 503])
async def test_admission_asks_the_next_upstream_where_the_first_is_as_good_as_down(
    hub: fanwire.Hub, backend: ScriptedBackend, status: int
) -> None:
    with ScriptedBackend() as failing:
        failing.negotiate = answering(status)
        async with relayed(hub, two(failing, backend)) as address, hub_client(address, PATH) as client:
            assert await watch(client) == "m"
        asked = len(failing.heads)
    assert asked >= 1


async def test_where_none_does_the_answer_is_a_server_s_own(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    backend.negotiate = answering(503)
    with ScriptedBackend() as other:
        other.negotiate = answering(401)
        async with relayed(hub, two(backend, other)) as address:
            answer = await run_sync(partial(httpx.post, f"http://{address}{PATH}/negotiate", trust_env=False))
            assert answer.status_code == 401
            other.negotiate = answering(500)
            answer = await run_sync(partial(httpx.post, f"http://{address}{PATH}/negotiate?a=1", trust_env=False))
            assert answer.status_code == 500, "of the one that was asked first"


def said(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    """Lines of the relay's log with this in them."""
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


async def test_each_upstream_has_a_state_that_is_said_when_it_changes(
    hub: fanwire.Hub, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.servers.ASKED_EVERY_S", 0.05)
    caplog.set_level("INFO", "fanwire.relay")
    with ScriptedBackend() as failing:
        well, failing.negotiate = failing.negotiate, answering(503)
        async with relayed(hub, two(failing, backend)) as address, hub_client(address, PATH) as client:
            assert await watch(client) == "m"
            down = f"the upstream http://{failing.address}{PATH} is down"
            await until(lambda: [one.state for one in hub.relay_stats()[0].upstreams] == ["down", "up"])
            first = hub.relay_stats()[0].upstreams[0]
            assert first.failures >= 1 and "status 503" in first.why
            scraped = (await run_sync(partial(httpx.get, f"http://{address}/metrics", trust_env=False))).text
            labels = f'path="{PATH}",upstream="http://{failing.address}{PATH}"'
            assert f"fanwire_relay_upstream_up{{{labels}}} 0.0" in scraped
            assert f"fanwire_relay_upstream_failures_total{{{labels}}}" in scraped
            failing.negotiate = well
            await until(lambda: hub.relay_stats()[0].upstreams[0].state == "up")
    assert len(said(caplog, down)) == 1
    assert said(caplog, "is back") == [f"the upstream http://{failing.address}{PATH} is back"]
    assert SECRET not in caplog.text


async def test_what_a_client_has_fail_takes_no_upstream_down(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    well = backend.negotiate

    def fail_some(session: Session) -> None:
        answering(500)(session) if b"own=1" in session.head else well(session)

    backend.negotiate = fail_some
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        answer = await run_sync(partial(httpx.post, f"http://{address}{PATH}/negotiate?own=1", trust_env=False))
        assert answer.status_code == 500
        await until(lambda: [(one.state, one.failures) for one in hub.relay_stats()[0].upstreams] == [("up", 1)])


async def test_the_broadcast_lane_says_that_it_is_back(
    hub: fanwire.Hub, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fanwire.relay")
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as client:
        assert await watch(client) == "m"
        for session in list(backend.sessions):
            session.reset()
        await until(lambda: said(caplog, f"the broadcast lane of {PATH} (json) is back"))
    assert len(said(caplog, f"the broadcast lane of {PATH} (json) is down")) == 1


# Cookies of a balancer


async def test_cookies_of_negotiate_go_along_with_the_upgrade(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    cookies = ["affinity=b\u00e4r; Path=/; HttpOnly", "old=; Max-Age=0", "mine=theirs", "nonsense"]
    backend.negotiate = partial(negotiate, cookies=cookies)
    async with (
        relayed(hub, config(backend)) as address,
        hub_client(address, PATH, "?own=1", additional_headers={"Cookie": "a=1; mine=2"}) as client,
    ):
        assert await client.invoke("Echo", 1) == {"result": 1}
        assert await watch(client, id="2") == "m"
    upgrades = [head for head in backend.heads if head.startswith(b"GET")]
    own = [fields(head)["cookie"] for head in upgrades if b"own=1" in head]
    assert own == ["a=1; affinity=b\u00e4r; mine=theirs"]
    lanes = [fields(head).get("cookie") for head in upgrades if b"own=1" not in head]
    assert lanes and set(lanes) == {"affinity=b\u00e4r; mine=theirs"}


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
    with pytest.raises(
        TypeError,
        match=r"forward is no argument: .* all end-to-end headers are forwarded, private.drop names exceptions",
    ):
        Private(forward=("X-A",))
    assert Private() == Private(drop=())


def test_the_rule_of_proxies_knows_mapped_addresses_and_sockets() -> None:
    passing = Passing.of((), ("10.0.0.0/8", "unix"), UNIMPORTANT)
    assert [passing.trusts(peer) for peer in ("10.1.2.3", "::ffff:10.1.2.3", "11.0.0.1", "unix", "")] == [
        *(True, True, False, True, False)
    ]
    assert not Passing.of((), (), ()).trusts("unix")


# The process


@pytest.mark.slow
def test_serve_raises_the_descriptor_limit_and_ignores_sighup() -> None:
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    serve = f"exec {sys.executable} -m fanwire serve --listen 127.0.0.1:0 --upstream http://127.0.0.1:9/live"
    shell = ["sh", "-c", f"ulimit -S -n 128; {serve}"]
    with subprocess.Popen(shell, stderr=subprocess.PIPE, text=True, env=inherited) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        limit = next(line for line in lines if "limit of open files" in line)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        assert f"is {shown_limit(hard)} (it was 128)" in limit
        assert next(line for line in lines if "serving on" in line)
        process.send_signal(signal.SIGHUP)
        assert next(line for line in lines if "SIGHUP is ignored" in line)
        assert process.poll() is None
        process.terminate()
        assert sum("SIGHUP" in line for line in lines) == 0, "it is said once"
        assert process.wait(60) == 0
