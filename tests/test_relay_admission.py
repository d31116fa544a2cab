"""What the backend's answer about a client gives to that client alone, and what becomes of it when all have left."""

import socket
from collections.abc import Iterator
from functools import partial
from itertools import count
from threading import Event
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.config import MessageShare, RelayConfig
from support.hub_client import hub_client
from support.loops import epoll_alone, without_uvloop
from support.raw import open_socket
from support.relaying import ANY, PATH, PATIENT, config, relayed, watch
from support.scripted_backend import RESET_AT_CLOSE, ScriptedBackend, Session, hang, negotiate
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = without_uvloop
FEED = "/feed"
UPGRADE = (
    "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    """One that sets another cookie in each answer, and one for its balancer."""
    numbers = count(1)

    def balanced(session: Session) -> None:
        negotiate(session, (f"sid={next(numbers)}; Path=/live; HttpOnly", "affinity=a1"))

    with ScriptedBackend() as backend:
        backend.negotiate = balanced
        yield backend


async def posted(address: str, query: str = "", **headers: str) -> httpx.Response:
    """What a client's negotiate is answered."""
    url = f"http://{address}{PATH}/negotiate?negotiateVersion=1{query}"
    return await run_sync(partial(httpx.post, url, headers=headers, trust_env=False))


def cookies(answer: httpx.Response) -> list[str]:
    """The lines as they came."""
    return answer.headers.get_list("set-cookie")


FIRST = ["sid=1; Path=/live; HttpOnly", "affinity=a1"]
SECOND = ["sid=2; Path=/live; HttpOnly", "affinity=a1"]


# Cookies


async def test_cookies_of_negotiate_are_the_client_s_that_was_asked_for(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        first = await posted(address, authorization="Bearer a")
        assert (first.status_code, cookies(first)) == (200, FIRST)
        again = await posted(address, authorization="Bearer a")
        assert (again.status_code, cookies(again)) == (200, []), "what is remembered sets nothing"
        other = await posted(address, authorization="Bearer b")
        assert cookies(other) == SECOND
        shown = "; ".join(cookie.partition(";")[0] for cookie in FIRST)
        async with hub_client(address, PATH, "?own=1", additional_headers={"Cookie": shown}) as client:
            assert await client.invoke("Echo", 1) == {"result": 1}
    asked, negotiated, upgraded = (head for head in backend.heads if b"own=1" in head)
    assert all(b"cookie: sid=1; affinity=a1" in head for head in (asked, negotiated)), "as the client sent them"
    assert upgraded.count(b"sid=") == 1 and b"sid=1" not in upgraded, "one of each name, the newest"
    assert upgraded.count(b"affinity=a1") == 1


async def test_a_client_that_skips_the_negotiation_gets_them_with_its_upgrade(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        for expected in (FIRST, []):
            async with hub_client(address, PATH) as client:
                response = client.peer._connection.response
                assert response.headers.get_all("Set-Cookie") == expected
                assert await watch(client) == "m"


@pytest.mark.parametrize("admit_for", [60.0, 0.0])
async def test_of_two_that_ask_at_once_each_has_its_own_or_none(
    hub: fanwire.Hub, backend: ScriptedBackend, admit_for: float
) -> None:
    goes_on, balanced = Event(), backend.negotiate

    def wait(session: Session) -> None:
        goes_on.wait(60)
        balanced(session)

    backend.negotiate = wait
    found: list[list[str]] = []

    async def ask(address: str) -> None:
        found.append(cookies(await posted(address)))

    async with relayed(hub, config(backend, admit="negotiate", admit_for=admit_for)) as address:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, address)
            tasks.start_soon(ask, address)
            await until(lambda: len(hub._life.pump._relays[0]._at_work) == 2)  # type: ignore[union-attr]
            await until(lambda: len(backend.heads) == (1 if admit_for else 2))
            goes_on.set()
        assert sorted(found) == ([[], FIRST] if admit_for else [FIRST, SECOND])
        assert cookies(await posted(address)) == ([] if admit_for else ["sid=3; Path=/live; HttpOnly", "affinity=a1"])


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_sets_them_too_and_is_remembered_without(
    hub: fanwire.Hub, backend: ScriptedBackend, status: int
) -> None:
    backend.negotiate = lambda session: session.answer(status, b"", ["sid=; Max-Age=0"])
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        first, again = await posted(address), await posted(address)
    assert [first.status_code, again.status_code] == [status, status]
    assert [cookies(first), cookies(again)] == [["sid=; Max-Age=0"], []]


async def test_an_error_in_the_backend_s_words_sets_them_and_is_not_remembered(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    """It is starting, say: the next client asks again."""
    well, starting = backend.negotiate, b'{"error":"starting"}'
    backend.negotiate = lambda session: session.answer(200, starting, ["sid=; Max-Age=0"])
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        first = await posted(address)
        assert (first.status_code, first.content, cookies(first)) == (200, starting, ["sid=; Max-Age=0"])
        backend.negotiate = well
        assert "connectionToken" in (await posted(address)).json()


@pytest.mark.parametrize("header", ["user-agent", "referer", "accept-language", "x-request-id", "via"])
async def test_a_refusal_for_a_header_that_does_not_count_keeps_nobody_else_out(
    hub: fanwire.Hub, backend: ScriptedBackend, header: str
) -> None:
    def guarded(session: Session) -> None:
        session.answer(403) if b"sqlmap" in session.head else negotiate(session)

    backend.negotiate = guarded
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        shown = ({header: "sqlmap"}, {header: "sqlmap"}, {header: "honest"}, {header: "honest too"})
        assert [(await posted(address, "", **each)).status_code for each in shown] == [403, 403, 200, 200]
    assert len(backend.heads) == 2, "a no is remembered for who got it, and a yes for all"


@pytest.mark.parametrize("header", ["cf-access-jwt-assertion", "sec-api-key", "x-api-key"])
async def test_a_header_that_says_who_somebody_is_counts(
    hub: fanwire.Hub, backend: ScriptedBackend, header: str
) -> None:
    def guarded(session: Session) -> None:
        negotiate(session) if b"a secret" in session.head else session.answer(401)

    backend.negotiate = guarded
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        assert (await posted(address, "", **{header: "a secret"})).status_code == 200
        assert (await posted(address)).status_code == 401


@pytest.mark.parametrize("path", [PATH, FEED])
async def test_a_query_that_no_url_may_hold_is_the_client_s_fault(
    hub: fanwire.Hub, backend: ScriptedBackend, path: str
) -> None:
    plain = config(backend, FEED, protocol="websocket", share=())
    async with relayed(hub, config(backend, admit="negotiate"), plain) as address:
        with open_socket(address) as stranger:
            stranger.sendall(f"GET {path}?a=< HTTP/1.1\r\n{UPGRADE}".encode())
            assert (await run_sync(stranger.recv, 1024)).startswith(b"HTTP/1.1 400 ")
        assert [one.failures for relay in hub.relay_stats() for one in relay.upstreams] == [0, 0]
    assert backend.heads == []


async def test_a_cookie_that_no_answer_can_carry_is_left_out_and_said_once(
    hub: fanwire.Hub, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.negotiate = partial(negotiate, cookies=("name=b\u00e4r", "good=1", f"large={'x' * 17_000}"))
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        for query in ("&a=1", "&a=2"):
            answer = await posted(address, query)
            assert (answer.status_code, cookies(answer)) == (200, ["good=1"])
    assert sum("is not passed on" in record.getMessage() for record in caplog.records) == 1


# Questions that nobody waits for


async def test_a_question_whose_askers_have_left_is_called_off(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    well, backend.negotiate = backend.negotiate, hang
    async with relayed(hub, config(backend, admit="negotiate")) as address:
        relay: Any = hub._life.pump._relays[0]  # type: ignore[union-attr]
        with open_socket(address) as negotiating:
            with open_socket(address) as upgrading:
                negotiating.sendall(f"POST {PATH}/negotiate HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
                upgrading.sendall(f"GET {PATH} HTTP/1.1\r\n{UPGRADE}".encode())
                await until(lambda: len(backend.sessions) == 1 and len(relay._at_work) == 2)
            await until(lambda: len(relay._at_work) == 1)
            assert len(backend.sessions) == 1 and len(relay._admission._asked) == 1, "one waits still"
            negotiating.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)  # its half alone it may close
        await until(lambda: not backend.sessions)
        await until(lambda: not (relay._at_work or relay._admission._asked or len(relay._context.upstreams)))
        assert hub.relay_stats()[0].upstreams[0].failures == 0, "that says nothing of the backend"
        backend.negotiate = well
        assert cookies(await posted(address)) == FIRST


async def test_nobody_waits_for_what_the_backend_is_slow_to_say_of_others(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    """Nor do those of another relay or of the hub's own, whose `authenticate` has its places for itself."""

    def slow(session: Session) -> None:
        (hang if b"slow=" in session.head else negotiate)(session)

    async def anybody(request: fanwire.Request) -> str:
        return "anybody"

    backend.negotiate = slow
    hub.authenticate(anybody)
    hub.relay(config(backend, admit="negotiate"))
    async with hub.serve(ANY, drain_timeout=0.2, openings_max=1) as serving:
        strangers = [open_socket(serving.address) for _ in range(3)]
        for number, stranger in enumerate(strangers):
            query = f"?slow={number}".encode()
            stranger.sendall(b"POST /live/negotiate" + query + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: len(backend.heads) == 3)
        assert (await posted(serving.address)).status_code == 200
        async with hub_client(serving.address, PATH), hub_client(serving.address):
            pass
        for stranger in strangers:
            stranger.close()


async def test_so_is_the_connection_that_a_plain_relay_tries(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    backend.upgrade = hang
    share = MessageShare(subscribe="/watch")
    upstream = (f"ws://{backend.address}{FEED}",)
    feed = RelayConfig(path=FEED, upstream=upstream, protocol="websocket", share=(share,), lanes=PATIENT)
    async with relayed(hub, feed) as address:
        relay: Any = hub._life.pump._relays[0]  # type: ignore[union-attr]
        with open_socket(address) as asker:
            asker.sendall(f"GET {FEED} HTTP/1.1\r\n{UPGRADE}".encode())
            await until(lambda: len(backend.heads) == 1)
            assert len(relay._admission._asked) == 1
        await until(lambda: not backend.sessions)
        await until(lambda: not (relay._admission._asked or len(relay._upstreams)))
        assert hub.relay_stats()[0].upstreams[0].failures == 0
