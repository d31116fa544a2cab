"""Stock clients read event streams that are gzip: each event comes before the next is published, and all that are."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path

import fanwire
import pytest
from anyio.to_thread import run_sync
from support.chromium import CHROMIUM, chromium
from support.clients import settle
from support.deflating import tap
from support.gunzipping import Gunzipping, odds
from support.hubs import MakeHub
from support.waiting import until, until_in_thread

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
TARGET = "/events?channel=odds"
COMPANY = 3

NODE = """
const response = await fetch(process.argv[1]);
for await (const chunk of response.body) process.stdout.write(chunk);
"""
HTTPX = """
import sys, httpx
with httpx.Client(trust_env=False, timeout=60) as client, client.stream("GET", sys.argv[1]) as response:
    for text in response.iter_text():
        print(text, end="", flush=True)
"""
AIOHTTP = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.get(sys.argv[1]) as response:
        async for piece in response.content.iter_any():
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
asyncio.run(main())
"""
COMMANDS: dict[str, list[str]] = {
    "curl": ["curl", "--compressed", "--no-buffer", "--silent", "--noproxy", "*"],
    "node": ["node", "--input-type=module", "--eval", NODE, "--"],
    "httpx": [sys.executable, "-c", HTTPX],
    "aiohttp": [sys.executable, "-c", AIOHTTP],
}
LISTEN = """
window.heard = [];
window.source = new EventSource(URL);
window.source.onmessage = ({ data }) => window.heard.push(data);
window.source.onerror = () => window.heard.push("it failed");
true
"""
Heard = Callable[[], list[str]]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One loop: what the clients hear is the engine's affair."""
    return str(request.param)


@contextmanager
def program(name: str, url: str, _folder: Path) -> Iterator[Heard]:
    """A program that writes what it inflates to stdout."""
    if shutil.which(COMMANDS[name][0]) is None:
        pytest.skip(f"{name} is not installed")
    heard: list[str] = []
    with subprocess.Popen([*COMMANDS[name], url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        def read() -> None:
            for line in process.stdout or ():
                if line.startswith("data: "):
                    heard.append(line[6:-1])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield lambda: list(heard)
        finally:
            process.kill()
            reader.join()


@contextmanager
def page(_name: str, url: str, folder: Path) -> Iterator[Heard]:
    """An EventSource in a page of the hub."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed")
    with chromium(folder) as tab:
        tab.open(url.partition("/events")[0] + "/")
        until_in_thread(lambda: tab.evaluate("document.readyState === 'complete' && location.port !== ''"))
        tab.evaluate(LISTEN.replace("URL", json.dumps(url)))
        yield lambda: list(tab.evaluate("window.heard"))
        tab.evaluate("window.source.close()")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS, "chromium"])
async def test_a_stock_client_hears_each_event_at_once(make_hub: MakeHub, name: str, tmp_path: Path) -> None:
    hub = make_hub({"odds": fanwire.Channel(compression_readers=1)})
    feed, told, clients = odds(), list[str](), list[fanwire.Client]()
    hub.on_connect(lambda client: clients.append(client) if "mine" in client.request.query else None)
    async with hub.serve("127.0.0.1:0", shards=1) as serving:
        with ExitStack() as stack:
            for _ in range(COMPANY):
                stack.enter_context(closing(await run_sync(Gunzipping, serving.address, TARGET)))
            await until(lambda: hub.occupancy("odds") == COMPANY)

            async def tell(count: int) -> None:
                for text in islice(feed, count):
                    hub.publish("odds", text)
                    told.append(text)
                await settle(hub, serving.address)

            await tell(10)
            told.clear()  # before it came
            tapped = stack.enter_context(tap(serving.address))
            url = f"http://{tapped.address}{TARGET}&mine"
            opening = (page if name == "chromium" else program)(name, url, tmp_path)
            heard = await run_sync(stack.enter_context, opening)
            await until(lambda: hub.occupancy("odds") == COMPANY + 1 and len(clients) == 1, 30)
            for _ in range(3):
                await tell(1)
                await until_heard(heard, told)
            for _ in range(15):
                await tell(20)
            await until_heard(heard, told)
            clients[0].send("a private message")
            told.append("a private message")
            await until_heard(heard, told)
            for _ in range(3):
                await tell(1)
                await until_heard(heard, told)
            await tell(150)
            await until_heard(heard, told)
            streams = [said for said in tapped.said if b"text/event-stream" in said]
            assert len(streams) == 1
            assert b"\r\nContent-Encoding: gzip\r\n" in streams[0]
            assert len(streams[0]) < 0.5 * sum(map(len, told))


async def until_heard(heard: Heard, told: list[str]) -> None:
    """Wait until as many have come, which are those."""
    await run_sync(until_in_thread, lambda: len(heard()) >= len(told))
    assert await run_sync(heard) == told
