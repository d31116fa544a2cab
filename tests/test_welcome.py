"""What a person sees who opens the address in a browser."""

from pathlib import Path

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from support.chromium import CHROMIUM, chromium
from support.raw import read_frame, upgraded
from support.waiting import until_in_thread

pytestmark = pytest.mark.anyio
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_the_root_shows_a_browser_how_to_connect(hub: fanwire.Hub) -> None:
    async with hub.serve("127.0.0.1:0") as serving, httpx.AsyncClient(trust_env=False) as http:
        url = f"http://{serving.address}"
        shown = await http.get(f"{url}/", headers=BROWSER)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
        assert "/ws?channel=" in shown.text and "/events?channel=" in shown.text
        assert not any(word in shown.text for word in ("src=", "@import", "https://", fanwire.__version__))
        bare = await http.head(f"{url}/", headers=BROWSER)
        assert (bare.status_code, bare.text) == (200, "")
        assert int(bare.headers["content-length"]) == len(shown.content)
        assert (await http.get(f"{url}/", headers={"Accept": "*/*"})).status_code == 426
        assert (await http.get(f"{url}/ws", headers=BROWSER)).status_code == 426
        assert (await http.post(f"{url}/", headers=BROWSER)).status_code == 426


async def test_a_client_that_accepts_pages_is_upgraded_all_the_same(hub: fanwire.Hub) -> None:
    async with hub.serve("127.0.0.1:0") as serving:
        with await run_sync(upgraded, serving.address, "/?channel=a") as connection:
            hub.publish("a", "here")
            assert (await run_sync(read_frame, connection)).payload == b"here"


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_in_a_browser_the_lines_name_this_address_and_run_as_they_stand(tmp_path: Path) -> None:
    import anyio

    seen: list[str] = []

    async def main() -> None:
        hub = fanwire.Hub()
        async with hub.serve("127.0.0.1:0", drain_timeout=0.5) as serving:
            await run_sync(look, hub, serving.address)

    def look(hub: fanwire.Hub, address: str) -> None:
        with chromium(tmp_path) as tab:
            tab.open(f"http://{address}/")
            until_in_thread(lambda: tab.evaluate("document.querySelectorAll('pre').length") == 4)
            lines = tab.evaluate("[...document.querySelectorAll('pre')].slice(0, 2).map((each) => each.textContent)")
            assert lines[0].startswith(f'new WebSocket("ws://{address}/ws?')
            tab.evaluate("window.seen = []; console.log = (data) => seen.push(data)")
            for line in lines:
                tab.evaluate(f"void ({line.replace('NAME', 'a')})")
            until_in_thread(lambda: hub.occupancy("a") == 2)
            hub.publish("a", "here")
            until_in_thread(lambda: tab.evaluate("seen.length") == 2)
            seen.extend(tab.evaluate("seen"))

    anyio.run(main)
    assert seen == ["here", "here"]
