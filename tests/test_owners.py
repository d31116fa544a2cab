"""Owners of paths that come and go while the hub serves: endpoints, relays, metrics, and one that takes bodies."""

from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire import to
from fanwire._engine import Asking, Route
from fanwire.owner import RELAYS, Owner
from fanwire.pump import OWNERS_MAX
from fanwire.relay.config import Everyone, Private, QueryShare, RelayConfig
from support.clients import connected, refusal
from support.hub_client import hub_client, negotiate
from support.loops import epoll_alone, without_uvloop
from support.plain_backend import PlainBackend
from support.raw import free_port
from support.relaying import PATH, config, watch
from support.scripted_backend import ScriptedBackend, Session, hang
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = without_uvloop
ANY = "127.0.0.1:0"


async def get(address: str, path: str) -> tuple[int, str]:
    """The status of an answer, and its text."""
    answer = await run_sync(partial(httpx.get, f"http://{address}{path}", trust_env=False))
    return answer.status_code, answer.text


async def test_an_endpoint_comes_and_goes_with_its_own_clients(hub: fanwire.Hub) -> None:
    hub.endpoint("/before")
    async with hub.serve(ANY) as serving, hub_client(serving.address) as own:
        assert (await refusal(serving.address, "/chat"))[0] == 404
        for name in ("first", "second"):
            chat = hub.endpoint("/chat")

            @chat.method("name")
            def answer(client: fanwire.Client, of: str = name) -> str:
                return of

            async with hub_client(serving.address, "/chat") as client, hub_client(serving.address, "/before") as other:
                assert await client.invoke("name") == {"result": name}
                hub.publish(to.all("/chat"), name, event="Told")
                assert (await client.receive())["arguments"] == [name]
                token = (await run_sync(negotiate, serving.address, "/chat"))["connectionToken"]
                hub.remove_path("/chat")
                assert (await client.receive())["type"] == 7
                assert (await client.peer.closed())[0] == 1000
                assert (await refusal(serving.address, "/chat"))[0] == 404
                assert (await refusal(serving.address, f"/chat?id={token}"))[0] == 404
                assert "error" in await other.invoke("none")
                with pytest.raises(ValueError, match="path must be '/signalr', '/before' or None, not '/chat'"):
                    hub.publish(to.all("/chat"), 1)
        assert "error" in await own.invoke("none")
        hub.remove_path("/before")
        hub.endpoint("/before")
        with pytest.raises(ValueError, match="endpoint '/before' is registered already"):
            hub.endpoint("/before")
    async with hub.serve(ANY) as serving, hub_client(serving.address, "/before"):
        pass


async def test_a_method_that_cannot_be_is_refused_at_once_where_clients_may_call(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY):
        chat = hub.endpoint("/chat")

        def unresolvable(client: fanwire.Client, of: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

        with pytest.raises(TypeError, match="Nowhere"):
            chat.method("broken")(unresolvable)
        assert hub._callbacks.endpoints["/chat"].get("broken") is None


async def test_a_relay_comes_and_goes_with_its_clients_and_connections(
    hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.scraping.FRESH_S", 0.0)

    def greet(session: Session) -> None:
        session.say({}, {"type": 1, "target": "Hello", "arguments": []})

    with ScriptedBackend() as backend:
        backend.shake_hands = greet
        everyone, private = Everyone(welcome=("Hello",)), Private(pooled=("Pooled",))
        relay = config(backend, everyone=everyone, private=private, linger=60.0)
        async with hub.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as other:
            for _ in range(2):
                assert "fanwire_relay_" not in (await get(serving.address, "/metrics"))[1]
                assert (await refusal(serving.address, PATH))[0] == 404
                hub.relay(relay)
                async with hub_client(serving.address, PATH) as left:  # its lane lingers
                    assert (await left.receive())["target"] == "Hello"
                    assert await watch(left, "lingering") == "lingering"
                async with hub_client(serving.address, PATH) as client:
                    assert (await client.receive())["target"] == "Hello"
                    assert await watch(client) == "m"
                    assert await client.invoke("Pooled", "x", id="2") == {"result": "x"}
                    assert await client.invoke("Private", "x", id="3") == {"result": "x"}
                    await until(lambda: len(backend.sessions) == 5)  # those that negotiated have ended
                    assert len(hub.relay_stats()) == 1
                    assert "fanwire_relay_lanes{" in (await get(serving.address, "/metrics"))[1]
                    hub.remove_path(PATH)
                    assert hub.relay_stats() == []
                    assert (await client.receive())["type"] == 7
                    await until(lambda: not backend.sessions)
            hub.publish("a", "still there")
            assert await other.receive() == "still there"
            assert len(hub._life.pump._around.sessions) == 0  # type: ignore[union-attr]
            await until(lambda: hub.stats().connections == 1)


async def test_a_plain_relay_comes_and_goes_with_its_clients_and_connections(hub: fanwire.Hub) -> None:
    backend = PlainBackend()
    with backend.serving() as address:
        shares = (QueryShare(query=("match",)),)
        relay = RelayConfig(path="/plain", upstream=(f"ws://{address}/plain",), protocol="websocket", share=shares)
        async with hub.serve(ANY) as serving:
            hub.relay(relay)
            async with (
                connected(serving.address, "/plain?match=m") as shared,
                connected(serving.address, "/plain") as private,
            ):
                await private.send("x")
                assert await private.receive() == "x"
                await until(lambda: len(backend.now) == 2)
                hub.remove_path("/plain")
                assert (await shared.closed())[0] == (await private.closed())[0] == 1001
                await until(lambda: not backend.now)
            assert (await refusal(serving.address, "/plain"))[0] == 404


async def test_who_a_relay_is_asking_about_is_refused_when_it_goes_and_nobody_waits_for_its_backend(
    hub: fanwire.Hub,
) -> None:
    with ScriptedBackend() as backend:
        backend.negotiate = hang
        relays = [config(backend, admit="negotiate"), config(backend, "/other", admit="negotiate")]
        async with hub.serve(ANY) as serving:
            for relay in relays:
                hub.relay(relay)
            found: list[tuple[int, str]] = []

            async def knock() -> None:
                found.append(await refusal(serving.address, PATH))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(knock)
                await until(lambda: backend.heads)
                hub.remove_path(PATH)
            assert found == [(404, "this path has been removed")]
            await until(lambda: not backend.sessions)


async def test_readyz_tells_of_no_relay_that_is_gone(hub: fanwire.Hub) -> None:
    gone = f"ws://127.0.0.1:{free_port()}/x"
    async with hub.serve(ANY) as serving:
        hub.relay(RelayConfig(path="/plain", upstream=(gone,), protocol="websocket", admit="anyone"))
        assert (await refusal(serving.address, "/plain"))[0] == 503
        with anyio.fail_after(60):
            while (await get(serving.address, "/readyz"))[0] != 503:
                pass
        hub.remove_path("/plain")
        assert await get(serving.address, "/readyz") == (200, "ready\n")


async def test_metrics_come_and_go_and_so_do_the_hub_s_own_paths(hub: fanwire.Hub) -> None:
    hub.remove_path("/metrics")
    async with hub.serve(ANY) as serving:
        assert (await get(serving.address, "/metrics"))[0] == 404
        hub.path("/internal/figures", wire="metrics")
        assert "fanwire_connections " in (await get(serving.address, "/internal/figures"))[1]
        hub.remove_path("/internal/figures")
        assert (await get(serving.address, "/internal/figures"))[0] == 404
        hub.remove_path("/ws")
        hub.path("/ws", channel="all")
        async with connected(serving.address, "/ws"):
            await until(lambda: hub.occupancy("all") == 1)
    with pytest.raises(ValueError, match="message_bytes_max means nothing to a path of metrics"):
        hub.path("/figures", wire="metrics", message_bytes_max=8)


async def test_owners_come_and_go_in_the_thread_of_the_loop(hub: fanwire.Hub) -> None:
    relay = RelayConfig(path="/live", upstream=("http://127.0.0.1:1",), ready="ignore")
    async with hub.serve(ANY):
        hub.endpoint("/chat")
        calls: list[Any] = [
            partial(hub.endpoint, "/other"),
            partial(hub.relay, relay),
            partial(hub.remove_path, "/chat"),
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="is for the thread of the event loop that serves"):
                await run_sync(call)
        hub.relay(relay)
        for path in ("/LIVE", "/live/negotiate", "/chat"):
            with pytest.raises(ValueError, match="is registered already"):
                hub.relay(RelayConfig(path=path, upstream=("ws://127.0.0.1:1",), protocol="websocket"))
        with pytest.raises(ValueError, match=r"no path '/nowhere' of hub\.path to remove, nor an endpoint or a relay"):
            hub.remove_path("/nowhere")
    hub.remove_path("/live")
    hub.relay(relay)


class Echo(Owner):
    """Answers with what it was asked."""

    def __init__(self, hub: fanwire.Hub) -> None:
        assert hub._life is not None
        self.life = hub._life
        self.number = self.life.pump.add_owner(self)

    def asking(self, event: Asking) -> None:
        """Answer."""
        self.life.engine.respond(event.connection, 200, "text/plain", f"{event.method} ".encode() + event.body)


async def test_an_owner_that_asks_for_bodies_gets_them(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY, body_bytes_max=1_000) as serving:
        echo = Echo(hub)
        echo.life.engine.add_route(Route("/echo", "request", echo.number, asks=["bodies"]))
        request = partial(httpx.request, url=f"http://{serving.address}/echo", trust_env=False)
        for method, body in (("POST", b"\x00\xff" * 500), ("PUT", b"x"), ("GET", b""), ("DELETE", b"")):
            assert (await run_sync(partial(request, method, content=body))).content == method.encode() + b" " + body
        chunked = await run_sync(partial(request, "POST", content=iter([b"a", b"b" * 900])))
        assert chunked.content == b"POST a" + b"b" * 900
        too_big = await run_sync(partial(request, "POST", content=b"x" * 1_001))
        assert (too_big.status_code, too_big.text) == (413, "a body of 1001 bytes or more is over the bound of 1000\n")
        echo.life.pump.remove_owner(echo.number)
        late = await run_sync(partial(request, "POST", content=b"x"))
        assert (late.status_code, late.text) == (404, "this path has been removed\n")


async def test_a_number_is_not_given_anew_before_all_others_were(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY):
        first, second = Echo(hub), Echo(hub)
        pump = first.life.pump
        assert (first.number, second.number) == (RELAYS, RELAYS + 1)
        pump.remove_owner(first.number)
        assert Echo(hub).number == RELAYS + 2
        pump._newest = OWNERS_MAX - 1
        assert [Echo(hub).number for _ in range(3)] == [OWNERS_MAX, RELAYS, RELAYS + 3]


async def test_paths_of_signalr_are_bounded_where_they_are_named(hub: fanwire.Hub) -> None:
    for number in range(254):
        hub.endpoint(f"/chat{number}")
    relay = RelayConfig(path="/live", upstream=("http://127.0.0.1:1",), ready="ignore")
    for name in (partial(hub.endpoint, "/one/more"), partial(hub.relay, relay)):
        with pytest.raises(ValueError, match="there must be 255 SignalR paths at most, not 256"):
            name()
    hub.relay(replace(relay, protocol="websocket", upstream=("ws://127.0.0.1:1",)))
    async with hub.serve(ANY):
        with pytest.raises(ValueError, match="there must be 255 SignalR paths at most, not 256"):
            hub.endpoint("/one/more")
