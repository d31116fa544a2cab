"""Each step of docs/tutorial.md is a program that runs, and does what the page says."""

import re
from pathlib import Path
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from aiohttp import ClientSession, web
from fanwire.testing import HubServer, NotAccepted, serving
from support.raw import free_port
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
ADDRESS = "127.0.0.1:8000"


ENDS = ("    anyio.run(main)\n", f'    hub.run("{ADDRESS}")\n', '["POST"])])\n', "    web.run_app(app, port=8080)\n")
"""How a program begins to run, or is there to be run by a server."""


def step(number: int, address: str = ADDRESS) -> dict[str, Any]:
    """The names of a step's program, which listens at `address` once it is started."""
    source = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[number - 1]
    assert source.endswith(ENDS)
    names: dict[str, Any] = {"__name__": f"step_{number}"}
    source = source.replace("anyio.sleep(1)", "anyio.sleep(0.02)")  # one that publishes does so more often
    exec(compile(source.replace(ADDRESS, address), f"{PAGE.name}, step {number}", "exec"), names)
    return names


async def test_1_publishes_and_2_says_what_may_be(tmp_path: Path) -> None:
    for number, channel, expected in ((1, "count", {"now": 0}), (2, "odds:7", {"home": 1.85})):
        address = f"unix:{tmp_path}/hub{number}"
        program = step(number, address)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(program["main"])
            await until(lambda hub=program["hub"]: hub._link.engine)  # type: ignore[misc]
            async with HubServer(program["hub"], address).connect(f"/ws?channel={channel}") as client:
                first = await client.receive()
                assert first.keys() == expected.keys()
            tasks.cancel_scope.cancel()


async def test_3_asks_who_it_is() -> None:
    async with serving(step(3)["hub"]) as server:
        async with server.connect(headers={"Cookie": "session=c2Vzc2lvbg"}) as client:
            assert await client.receive() == "welcome, ann"
        with pytest.raises(NotAccepted, match="401: sign in first"):
            async with server.connect():
                raise AssertionError


async def test_4_asks_what_they_may_watch() -> None:
    async with serving(step(4)["hub"], origins=None) as server:
        async with server.connect("/ws?channel=odds:7") as client:
            with pytest.raises(fanwire.CallFailed, match="not authorized for channel 'vip'"):
                await client.subscribe("vip")
        async with server.connect("/ws?channel=vip&user=ann"):
            pass
        with pytest.raises(NotAccepted, match="403: not authorized"):
            async with server.connect("/ws?channel=vip"):
                raise AssertionError


async def test_5_lets_clients_call() -> None:
    async with (
        serving(step(5)["hub"]) as server,
        server.connect("/ws?channel=bets:7") as other,
        server.connect("/ws?channel=bets:7") as client,
    ):
        assert await client.call("PlaceBet", "7", 5) == {"accepted": True}
        assert await other.receive() == 5
        with pytest.raises(fanwire.CallFailed, match="at most 100"):
            await client.call("PlaceBet", "7", 500)
        with pytest.raises(fanwire.CallFailed, match="argument 'stake'"):
            await client.call("PlaceBet", "7", "much")
        await client.send("hello")
        assert await client.receive() == {"you said": "hello"}


async def test_6_has_bounds_a_history_and_a_snapshot() -> None:
    program = step(6)
    async with serving(program["hub"]) as server:
        program["hub"].publish("goals", "1:0")
        async with server.connect("/ws?channel=goals") as client:
            assert await client.receive() == "1:0"
        async with server.connect("/ws?channel=odds:7", origin="https://bets.example") as client:
            assert await client.receive() == {"home": 1.85, "away": 2.1}
        with pytest.raises(NotAccepted, match="403"):
            async with server.connect(origin="https://worse.example"):
                raise AssertionError


async def test_7_tells_who_is_there_and_how_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    printed = ""
    async with (
        serving(step(7)["hub"]) as server,
        server.connect("/ws?channel=room:7&user=ann") as ann,
        server.connect("/ws?channel=presence:room:7") as watching,
    ):
        while await ann.call("WhoIsHere", "7") != ["ann"]:
            await anyio.lowlevel.checkpoint()  # it is told of in the engine's next tick
        told = await ann.call("HowItGoes")
        assert (told["connections"], told["here"], told["publications"] >= 0) == (2, 1, True)
        assert (await watching.receive())["channel"] == "room:7"
        while "room:7: ('ann',) came, () went, 1 connections are there" not in printed:
            await anyio.lowlevel.checkpoint()
            printed += capsys.readouterr().out


async def test_8_serves_beside_starlette() -> None:
    address = f"127.0.0.1:{free_port()}"
    program = step(8, address)
    app, hub = program["app"], program["hub"]
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
    server = HubServer(hub, address)
    async with app.router.lifespan_context(app), http, server.connect("/ws?channel=goals") as client:
        assert (await http.post("/goals", json={"score": "1:0"})).status_code == 204
        assert await client.receive() == {"score": "1:0"}
    with pytest.raises(fanwire.HubStopped):
        hub.publish("goals", "2:0")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_9_serves_beside_aiohttp() -> None:
    address = f"127.0.0.1:{free_port()}"
    program = step(9, address)
    runner = web.AppRunner(program["app"])
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ((_, port),) = runner.addresses
        async with HubServer(program["hub"], address).connect("/ws?channel=goals") as client:
            async with ClientSession() as http, http.post(f"http://127.0.0.1:{port}/goals", json="1:0") as answer:
                assert answer.status == 204
            assert await client.receive() == "1:0"
    finally:
        await runner.cleanup()
    with pytest.raises(fanwire.HubStopped):
        program["hub"].publish("goals", "2:0")
