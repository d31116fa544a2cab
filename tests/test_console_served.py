"""The web console in a real Chromium against the admin side as it is: a hub, its clients, one that does not read."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.admin import AdminConfig
from support.browsing import Console, open_browser
from support.raw import free_port, read_close, read_frame, upgraded
from support.waiting import until_in_thread

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-some-length"
LARGE = "x" * 65_536
LAGS_AT_LEAST = 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def welcome(request: fanwire.Request) -> fanwire.Identity:
    return fanwire.Identity(request.headers.get("x-user", "<b>anna</b>"))


@contextmanager
def served(hub: fanwire.Hub) -> Iterator[str]:
    """The hub in a thread of its own; gives its clients' address."""
    began: Future[str] = Future()
    end = threading.Event()

    async def serve() -> None:
        try:
            async with hub.serve("127.0.0.1:0", drain_timeout=0.5) as serving:
                began.set_result(serving.address)
                await run_sync(end.wait)
        except BaseException as error:
            if not began.done():
                began.set_exception(error)
                return
            raise

    thread = threading.Thread(target=partial(anyio.run, serve))
    thread.start()
    try:
        yield began.result()
    finally:
        end.set()
        thread.join()


@pytest.fixture
def side() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def hub(side: str) -> fanwire.Hub:
    channels = {"odds:*": fanwire.Channel(history=200, presence=True)}
    hub = fanwire.Hub(channels, admin=AdminConfig(listen=side, token=TOKEN, local=False))
    hub.authenticate(welcome)
    return hub


def give_token(console: Console) -> None:
    console.page.fill("[name=token]", TOKEN)
    console.page.keyboard.press("Enter")
    console.page.wait_for_selector("#pulse.live")


def test_its_files_come_with_their_policy_to_who_has_no_token(hub: fanwire.Hub, side: str) -> None:
    with served(hub) as address, httpx.Client(base_url=f"http://{side}", trust_env=False) as http:
        page = http.get("/console")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert http.get("/console", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
        script = http.get("/console/app.js")
        assert (script.status_code, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
        assert int(http.head("/console/app.js").headers["content-length"]) == len(script.content)
        assert http.post("/console").status_code in (404, 405)
        assert http.get("/", follow_redirects=True).url.path == "/console"
        assert http.get("/console/../api/stats").status_code == 401
        for path in ("/console", "/console/app.js"):
            assert httpx.get(f"http://{address}{path}", trust_env=False).status_code == 404  # where clients connect


def test_who_lags_is_found_and_disconnected(browser: Any, hub: fanwire.Hub, side: str) -> None:
    with served(hub) as address, upgraded(address, "/ws?channel=odds:7", receive_buffer=4_096) as slow:
        until_in_thread(lambda: hub.occupancy("odds:7") == 1)
        while hub.stats().lagging == 0:
            hub.publish("odds:7", LARGE)
        for _ in range(LAGS_AT_LEAST):
            hub.publish("odds:7", LARGE)
        with Console.opened(browser, side) as console:
            give_token(console)
            page = console.page
            console.sees("slow reader")
            page.click(".panel:has-text('Lagging most') tbody a")
            console.sees("behind")
            console.sees("Its socket is full")
            console.sees("<b>anna</b>")
            page.click("#drawer >> text=Disconnect…")
            page.fill("dialog [name=reason]", "too slow")
            page.click("dialog >> button.danger")
            console.sees("It is gone")
            until_in_thread(lambda: hub.occupancy("odds:7") == 0)
            console.sees("Everybody keeps up")
            assert console.complaints == []
        del slow


def test_a_channel_is_seen_published_to_and_followed(browser: Any, hub: fanwire.Hub, side: str) -> None:
    with served(hub) as address, upgraded(address, "/ws?channel=odds:7") as client:
        until_in_thread(lambda: hub.occupancy("odds:7") == 1)
        hub.publish("odds:7", {"kept": "<i>before</i>"})
        assert b"before" in read_frame(client).payload
        with Console.opened(browser, side, "channels") as console:
            give_token(console)
            page = console.page
            page.click("#content tbody a")
            console.sees('{"kept":"<i>before</i>"}')
            page.wait_for_selector("#drawer h3 .badge.ok")  # it is followed
            console.sees("1 user here")
            page.fill("textarea", '{"home": 1.5}')
            page.click("button:text-is('Publish')")
            console.sees("Published at")
            assert read_frame(client).payload == b'{"home":1.5}'
            console.sees('{"home":1.5}')
            hub.publish("odds:7", "said by the program")
            console.sees("said by the program")
            page.click("#drawer >> text=1 subscriber")
            console.sees("clients of channel odds:7")
            page.click("#content tbody a")
            console.sees("Keeps up")
            page.click("#drawer >> text=Disconnect the user…")
            page.click("dialog >> button.danger")
            console.sees("of <b>anna</b> closed")
            assert read_frame(client).payload == b"said by the program"
            assert read_close(client)[0] == 1008
            assert console.complaints == []


def test_all_views_are_at_home_there(browser: Any, hub: fanwire.Hub, side: str) -> None:
    with (
        served(hub) as address,
        upgraded(address, "/ws?channel=odds:7"),
        Console.opened(browser, side, "workers") as console,
    ):
        give_token(console)
        console.sees("epoll" if hub.stats().poller == "epoll" else hub.stats().poller)
        console.sees(address)
        console.go("settings")
        console.sees("admin.token")
        assert TOKEN not in console.page.content()
        console.go("relay")
        console.sees("This hub relays nothing")
        console.go("log")
        console.sees("as it comes")
        console.go("clients?user=nobody")
        console.sees("No clients of user nobody")
        for by in ("lag", "lag_bytes", "sent", "waiting"):
            console.go(f"clients?sort={by}")
            console.page.wait_for_selector(f"#tools select >> nth=1 >> option[value={by}]", state="attached")
            console.page.wait_for_selector(".summary:not(:has-text('…'))")
            assert console.page.locator(".failed").count() == 0
        for by in ("subscribers", "rate", "deliveries", "backlog", "all"):
            console.go(f"channels?match=odds:*&sort={by}")
            console.sees("1 channel")
        assert console.complaints == []
