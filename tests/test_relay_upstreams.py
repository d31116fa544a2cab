"""A relay's upstreams: what ``/readyz`` says of them, and by whom their certificates are to be signed."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.cli.check import check
from fanwire.errors import ConfigError
from fanwire.relay.config import Private, QueryShare, RelayConfig
from fanwire.relay.readiness import RELAYS_MAX, UPSTREAMS_MAX, Readiness, why_unready
from fanwire.relay.servers import Server
from fanwire.relay.stats import UpstreamStats
from fanwire.wording import BRIEF_MAX
from support.certificates import authority, signed_by
from support.clients import Peer, connected
from support.hub_client import hub_client
from support.loops import epoll_alone, without_uvloop
from support.plain_backend import PlainBackend
from support.raw import free_port
from support.relaying import PATH, PATIENT, SHARE, config, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, answering, negotiate
from support.waiting import until
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = without_uvloop
FEED = "/feed"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is down is asked at once."""
    monkeypatch.setattr("fanwire.relay.servers.ASKED_EVERY_S", 0.02)


async def readyz(address: str) -> tuple[int, str]:
    """What a balancer hears."""
    answer = await run_sync(partial(httpx.get, f"http://{address}/readyz", trust_env=False))
    return answer.status_code, answer.text


def before(*addresses: str, **options: Any) -> RelayConfig:
    """A relay that fails over from each to the next."""
    urls = tuple(f"http://{address}{PATH}?secret=s" for address in addresses)
    return RelayConfig(path=PATH, upstream=urls, admit="anyone", share=(SHARE,), lanes=PATIENT, **options)


async def visit(address: str, path: str = PATH) -> None:
    """A client comes, in vain perhaps, and goes."""
    with suppress(Exception):
        async with hub_client(address, path):
            pass


def states(hub: fanwire.Hub) -> list[str]:
    """Of the only relay's upstreams."""
    return [one.state for one in hub.relay_stats()[0].upstreams]


# What /readyz says


async def test_ready_is_any_of_the_upstreams_and_one_that_comes_back_without_a_client(hub: fanwire.Hub) -> None:
    with ScriptedBackend() as first, ScriptedBackend() as second:
        well, first.negotiate = first.negotiate, answering(503)
        async with relayed(hub, before(first.address, second.address)) as address:
            assert await readyz(address) == (200, "ready\n"), "what was not tried may serve"
            await visit(address)
            await until(lambda: states(hub) == ["down", "up"])
            assert await readyz(address) == (200, "ready\n")
            second.negotiate = answering(500)
            for session in list(second.sessions):
                session.reset()
            await until(lambda: states(hub) == ["down", "down"])
            text = ""
            with anyio.fail_after(60):
                while "status 500" not in text:  # it is down as its connection was lost, and then as it says so
                    status, text = await readyz(address)
            assert (status, text.partition(" (")[0]) == (503, f"{PATH}: no upstream is up")
            assert f"http://{first.address}{PATH} is down: " in text and "status 503" in text
            assert "secret" not in text and text.count("\n") == 1
            second.negotiate = well
            await until(lambda: states(hub) == ["down", "up"])
            assert await readyz(address) == (200, "ready\n")


@pytest.mark.parametrize(("ready", "expected"), [("all", 503), ("ignore", 200)])
async def test_ready_may_be_all_of_them_or_not_matter(hub: fanwire.Hub, ready: Any, expected: int) -> None:
    with ScriptedBackend() as second:
        gone = f"127.0.0.1:{free_port()}"
        upstreams = (gone, second.address) if ready == "all" else (gone,)
        async with relayed(hub, before(*upstreams, ready=ready)) as address:
            await visit(address)
            await until(lambda: states(hub)[0] == "down")
            status, text = await readyz(address)
            assert status == expected
            assert text == "ready\n" or text.startswith(f"{PATH}: 1 of 2 upstreams are down (http://{gone}{PATH} is do")
            if ready == "all":
                with ScriptedBackend(gone):
                    await until(lambda: states(hub) == ["up", "up"])
                    assert (await readyz(address))[0] == 200


async def test_an_unready_relay_whose_clients_have_gone_is_ready_when_its_backend_is(hub: fanwire.Hub) -> None:
    gone = f"127.0.0.1:{free_port()}"
    async with relayed(hub, before(gone, linger=0.0)) as address:
        await visit(address)
        await until(lambda: states(hub) == ["down"])
        assert (await readyz(address))[0] == 503
        with ScriptedBackend(gone):
            await until(lambda: states(hub) == ["up"])
            assert await readyz(address) == (200, "ready\n")


async def test_a_plain_relay_is_unready_and_comes_back_by_a_websocket_of_fanwire_s_own(hub: fanwire.Hub) -> None:
    gone = f"127.0.0.1:{free_port()}"
    hub.relay(RelayConfig(path=FEED, upstream=(f"ws://{gone}{FEED}",), protocol="websocket", lanes=PATIENT))
    async with hub.serve("127.0.0.1:0", drain_timeout=0.2) as serving:
        with pytest.raises(Exception, match=r"50[23]"):
            async with connected(serving.address, FEED):
                pass
        await until(lambda: states(hub) == ["down"])
        status, text = await readyz(serving.address)
        assert status == 503 and text.startswith(f"{FEED}: no upstream is up (ws://{gone}{FEED} is down: ")
        assert text.count(gone) == 1, "an upstream is named once, where why it is down begins with its URL, too"
        plain = PlainBackend()
        with plain.serving(gone):
            await until(lambda: states(hub) == ["up"])
            assert await readyz(serving.address) == (200, "ready\n")
            await until(lambda: len(plain.visits) == 1 and not plain.now)


@pytest.mark.parametrize(
    ("target", "query", "words"),
    [
        (FEED, "?match=none", b"match=none"),
        (FEED, "?match=m", b"Sec-WebSocket-Protocol: nonsense"),
        (PATH, "?none=1", b"none=1"),
    ],
    ids=["a shared query", "subprotocols", "a private lane"],
)
async def test_what_fails_in_a_client_s_words_makes_no_relay_unready(
    hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch, target: str, query: str, words: bytes
) -> None:
    """A backend that answers 404 to them, and is as well as before: others are not to lose it."""
    notes: list[bool] = []
    failed = Server.failed

    def noted(server: Server, why: str, *, is_own: bool) -> None:
        notes.append(is_own)
        failed(server, why, is_own=is_own)

    def refuse(session: Session) -> None:
        if words.lower() in session.head.lower():
            session.answer(404)
            raise OSError("it is over")
        (negotiate if session.head.startswith(b"POST") else Session.upgrade)(session)

    monkeypatch.setattr(Server, "failed", noted)
    # A private lane that shows nothing but its query.
    named = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "User-Agent")
    with ScriptedBackend() as backend:
        backend.negotiate = backend.upgrade = refuse
        plain = config(backend, FEED, protocol="websocket", share=(QueryShare(query=("match",)),))
        async with relayed(hub, config(backend, private=Private(drop=named)), plain) as address:
            if target == PATH:
                async with hub_client(address, PATH, query) as client:
                    assert "error" in await client.invoke("Echo", 1)
            else:
                with suppress(InvalidStatus, ConnectionClosed):
                    offered = None if query == "?match=none" else ["nonsense"]
                    async with connected(address, FEED + query, subprotocols=offered):
                        await until(lambda: bool(notes))
            await until(lambda: bool(notes))
    assert not any(notes)


NOT_SPOKEN = "The protocol 'messagepack' is not supported."


def shake_hands_in_json_alone(session: Session) -> None:
    """As ASP.NET Core does where nobody has added MessagePack."""
    if b"messagepack" not in session.records[0]:
        session.say({})
        return
    session.say({"error": NOT_SPOKEN})
    raise OSError("it is over")


@asynccontextmanager
async def messagepack_client(address: str) -> AsyncIterator[Peer]:
    """One whose handshake was answered."""
    async with connected(address, PATH) as peer:
        await peer.send('{"protocol":"messagepack","version":1}\x1e')
        assert await peer.receive() == b"{}\x1e"
        yield peer


async def test_a_client_whose_hub_protocol_the_backend_does_not_speak_hears_so_and_makes_no_relay_unready(
    hub: fanwire.Hub,
) -> None:
    with ScriptedBackend() as first, ScriptedBackend() as second:
        first.shake_hands = second.shake_hands = shake_hands_in_json_alone
        several = before(first.address, second.address, ready="all", linger=30.0)
        async with relayed(hub, several) as address, hub_client(address, PATH) as honest:
            assert await watch(honest) == "m"
            for _ in range(3):
                async with messagepack_client(address) as peer:
                    assert NOT_SPOKEN.encode() in await peer.receive()
                    await peer.closed()
            asked = [session for session in second.heads + first.heads if session.startswith(b"GET")]
            assert len(asked) <= 2 + 2 * 3, "the backend is asked for a client that comes, and not again and again"
            assert await readyz(address) == (200, "ready\n")
            assert "down" not in states(hub)
            assert await honest.invoke("Echo", 1) == {"result": 1}
            await until(lambda: set(hub.relay_stats()[0].broadcasts) == {"json"})
        assert not second.watching("m"), "the first is asked first as before"


async def test_a_broadcast_lane_that_never_was_there_is_tried_for_nobody(hub: fanwire.Hub) -> None:
    gone = f"127.0.0.1:{free_port()}"
    async with relayed(hub, before(gone)) as address:
        async with hub_client(address, PATH):
            await until(lambda: "json" in hub.relay_stats()[0].broadcasts)
        await until(lambda: not hub.relay_stats()[0].broadcasts)
        with ScriptedBackend(gone):
            await until(lambda: states(hub) == ["up"])
            async with hub_client(address, PATH) as client:
                assert await watch(client) == "m"
                await until(lambda: hub.relay_stats()[0].broadcasts == {"json": "live"})


@pytest.mark.parametrize("way", ["hangs up at once", "answers 503"])
async def test_a_server_that_is_of_no_use_is_not_asked_first_for_ever(hub: fanwire.Hub, way: str) -> None:
    def hang_up(session: Session) -> None:
        session.say({})
        raise OSError("it is over")

    with ScriptedBackend() as first, ScriptedBackend() as second:
        if way == "answers 503":
            first.upgrade = answering(503)
        else:
            first.shake_hands = hang_up
        several = before(first.address, second.address)
        async with relayed(hub, several) as address, hub_client(address, PATH) as client:
            assert await watch(client) == "m"
            first.heads.clear()
            assert [await watch(client, f"m{index}") for index in range(3)] == ["m0", "m1", "m2"]
            assert not [head for head in first.heads if head.startswith(b"GET")]


async def test_an_upstream_is_asked_again_whatever_goes_wrong_in_asking(
    hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = f"127.0.0.1:{free_port()}"
    async with relayed(hub, before(gone)) as address:
        upstreams = hub._life.pump._relays[0]._servers._servers[0]._upstreams  # type: ignore[union-attr]
        ask, failures = upstreams.negotiate, []

        def fail(*arguments: Any) -> int:
            failures.append(arguments)
            raise RuntimeError("no room")

        await visit(address)
        await until(lambda: states(hub) == ["down"])
        monkeypatch.setattr(upstreams, "negotiate", fail)
        await until(lambda: len(failures) > 2)
        monkeypatch.setattr(upstreams, "negotiate", ask)
        with ScriptedBackend(gone):
            await until(lambda: states(hub) == ["up"])
            assert (await readyz(address))[0] == 200


def test_what_is_said_is_bounded_and_on_one_line() -> None:
    down = [UpstreamStats(f"http://{index}", "down", "x\ny" * 1_000, 0, 1) for index in range(UPSTREAMS_MAX + 2)]
    why = why_unready("any", down)
    assert why.endswith("; 2 more)") and "\n" not in why and len(why) < UPSTREAMS_MAX * (BRIEF_MAX + 100)
    told: list[str | None] = []

    def note(why: str | None, others_serve: bool) -> None:
        assert not others_serve
        told.append(why)

    holder: Any = SimpleNamespace(engine=SimpleNamespace(set_unready=note))
    readiness = Readiness(holder)
    for index in range(RELAYS_MAX + 3):
        readiness.note(f"/{index}", why)
        readiness.note(f"/{index}", why)
    assert len(told) == RELAYS_MAX + 3, "only what changes is told"
    assert told[-1] is not None and told[-1].count("\n") == RELAYS_MAX + 1 and told[-1].endswith("\n3 relays more\n")
    for index in range(RELAYS_MAX + 3):
        readiness.note(f"/{index}", "")
    assert told[-1] is None


# By whom certificates are to be signed

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates")


@needs_openssl
async def test_a_backend_is_trusted_by_its_relay_s_own_authority(hub: fanwire.Hub, tmp_path: Path) -> None:
    ca = authority(tmp_path)
    with ScriptedBackend(tls=signed_by(ca)) as backend:
        url = f"https://localhost:{backend.address.partition(':')[2]}{PATH}"
        secured = RelayConfig(path=PATH, upstream=(url,), ca=str(ca), share=(SHARE,), lanes=PATIENT)
        async with relayed(hub, secured) as address, hub_client(address, PATH) as client:
            assert await watch(client) == "m", "admission, negotiation and upgrade"
            assert await client.invoke("Echo", 1) == {"result": 1}, "in its own name"
    assert [head[:4] for head in backend.heads].count(b"POST") >= 3


@needs_openssl
@pytest.mark.parametrize("whose", ["the system's", "another's"])
async def test_and_by_no_other(hub: fanwire.Hub, tmp_path: Path, whose: str) -> None:
    other = None if whose == "the system's" else str(authority(tmp_path, "other"))
    with ScriptedBackend(tls=signed_by(authority(tmp_path))) as backend:
        url = f"https://localhost:{backend.address.partition(':')[2]}{PATH}"
        secured = RelayConfig(path=PATH, upstream=(url,), ca=other, admit="anyone", share=(SHARE,), lanes=PATIENT)
        async with relayed(hub, secured) as address:
            await visit(address)
            await until(lambda: states(hub) == ["down"])
            status, text = await readyz(address)
    assert status == 503 and ("UnknownIssuer" in text or "no root certificates" in text)
    assert backend.heads == []


@needs_openssl
async def test_so_is_a_plain_backend(hub: fanwire.Hub, tmp_path: Path) -> None:
    ca, plain = authority(tmp_path), PlainBackend()
    with plain.serving(tls=signed_by(ca)) as at:
        url = f"wss://localhost:{at.partition(':')[2]}{FEED}"
        hub.relay(RelayConfig(path=FEED, upstream=(url,), ca=str(ca), protocol="websocket", lanes=PATIENT))
        async with hub.serve("127.0.0.1:0", drain_timeout=0.2) as serving, connected(serving.address, FEED) as peer:
            await peer.send("x")
            assert await peer.receive() == "x"


KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "must be a file that can be read (No such file or directory)"),
        ("", "must be a PEM file of certificates (it holds no certificate)"),
        (KEY, "must be a PEM file of certificates (it holds no certificate)"),
        (BROKEN[:40], "must be a PEM file of certificates (it is no PEM: a section has no end)"),
        (BROKEN, "must be a PEM file of certificates (it holds certificate 1, which cannot be used: "),
    ],
)
def test_a_bad_bundle_is_an_error_that_names_it(
    content: str | None, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("ca.pem").write_text(content)
    file = Path("fanwire.toml")
    file.write_text('[[relay]]\npath = "/live"\nupstream = "https://localhost/live"\nca = "ca.pem"\n')
    with pytest.raises(SystemExit) as exit:
        check(file)
    assert exit.value.code == 1
    assert f'fanwire.toml:4: relay[0].ca is "ca.pem", {why}' in capsys.readouterr().err
    with pytest.raises(ValueError, match=re.escape(f"RelayConfig.ca {why}")):
        RelayConfig(path="/live", upstream=("https://localhost/live",), ca="ca.pem")


@needs_openssl
async def test_a_bundle_that_is_gone_when_serving_begins_is_an_error_too(hub: fanwire.Hub, tmp_path: Path) -> None:
    ca = authority(tmp_path)
    hub.relay(RelayConfig(path=PATH, upstream=("https://localhost/live",), ca=str(ca)))
    ca.write_text("")
    with pytest.raises(ConfigError, match=f"ca of the relay at {PATH} is '{ca}', must be a PEM file"):
        await hub.start("127.0.0.1:0")
