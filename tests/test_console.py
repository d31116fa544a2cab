"""The web console in a real Chromium, against a stand-in that has what a test needs: names full of markup, a crowd."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fanwire.admin.console import FOLDER, console_answer, console_files
from support.admin_stand_in import HOSTILE, StandIn, admin_stand_in
from support.browsing import Console, open_browser
from support.waiting import until_in_thread

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-some-length"
VIEWS = ("overview", "channels", "clients", "relay", "workers", "settings", "log")
PLACES = {
    **{view: view for view in VIEWS},
    "clients?client=2:c17@1&lagging=true&sort=lag": "12.3 s behind",
    "channels?channel=odds:7": "Publish a test",
}
"""What stands behind ``#/``, and what is seen there."""
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def side() -> Iterator[StandIn]:
    with admin_stand_in(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def console(browser: Any, side: StandIn) -> Iterator[Console]:
    with Console.opened(browser, side.address) as opened:
        yield opened
        assert opened.complaints == []


# Its files


def test_files_are_of_the_package_alone_and_may_do_no_more_than_they_need() -> None:
    files = {path: answer for path, answer in console_files().items() if answer.status == 200}
    assert {"/console", "/console/app.js", "/console/console.css", "/console/views/clients.js"} <= files.keys()
    for path, answer in files.items():
        headers = dict(answer.headers)
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-cache", path
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import", text), f"{path} names another host"
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|DOMParser|document\.write|\beval\b", text), path
        assert not re.search(r"<style|<script(?![^>]* src=)|\son[a-z]+=\"|style=", text), f"{path} has something inline"
    assert files["/console"].content_type == "text/html; charset=utf-8"
    assert files["/console/app.js"].content_type == "text/javascript; charset=utf-8"


def test_a_file_that_a_browser_has_is_not_sent_again() -> None:
    first = console_answer("/console/app.js", {})
    assert first is not None
    tag = dict(first.headers)["ETag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}'):
        again = console_answer("/console/app.js", {"if-none-match": given})
        assert again is not None and (again.status, again.body) == (304, b"")
    other = console_answer("/console/app.js", {"if-none-match": '"other"'})
    assert other is not None and other.status == 200


def test_who_is_near_it_is_led_to_it() -> None:
    answer = console_answer("/", {})
    assert answer is not None and (answer.status, dict(answer.headers)["Location"]) == (308, "console")
    for path in ("/console/../admin/side.py", "/console/nothing.js", "/api/stats", f"/console/{FOLDER}"):
        assert console_answer(path, {}) is None


def test_every_module_that_a_file_imports_is_there() -> None:
    for path in FOLDER.rglob("*.js"):
        for name in re.findall(r"from \"([^\"]+)\"", path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


# Views


SHOWN = {
    "overview": (
        "Lagging most",
        "1:c4711@1",
        "slow reader",
        "Channels that cost most",
        "odds:7",
        "Since start",
        "100,000",
    ),
    "channels": ("odds:7", "61,000", "40/s", "latest", "210 in all"),
    "clients": ("0:c0@1", "10.0.0.0:40000", "anna", "100 of more clients", "100,000 connected"),
    "relay": ("/live", "http://10.0.0.9:5000/live", "12 lanes", "Subscribe", "held by 0", "Private lanes"),
    "workers": ("edge-1", "4711", "draining", "apart", "redis://10.0.0.5:6379", "41,040 of 45 k"),
    "settings": ("listen.address", "0.0.0.0:8000", "file:3", "FANWIRE_TOKEN", "10 of 10 settings"),
    "log": ("listening at 0.0.0.0:8000", "warning", "fanwire.faults"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_shows_what_the_admin_side_says(console: Console, view: str) -> None:
    console.go(view)
    for text in SHOWN[view]:
        console.sees(text)
    console.page.wait_for_selector("#pulse.live")


PLACES |= {view: texts[0] for view, texts in SHOWN.items()}


@pytest.mark.parametrize("place", PLACES)
def test_names_full_of_markup_are_text(console: Console, place: str) -> None:
    console.go(place)
    console.sees(HOSTILE)
    assert console.page.evaluate("document.querySelectorAll('body img, body script, body b, [onerror]').length") == 0
    assert console.page.evaluate("window.hacked") is None


def test_charts_fill_and_tell_what_was_at_the_pointer(console: Console, side: StandIn) -> None:
    kept = json.dumps(json.dumps(side.samples()))
    console.page.add_init_script(f"sessionStorage.setItem('fanwire-readings', {kept})")
    console.page.reload()
    console.page.wait_for_selector(".card:last-child .chart path.line", state="attached")
    assert console.page.locator(".card .chart path.line").count() >= 9  # completion has two
    console.page.locator(".card .plot").first.hover()
    console.page.wait_for_selector(".card .chart .cursor", state="attached")
    at = console.page.locator(".card .more").first.text_content()
    assert re.fullmatch(r"\d\d:\d\d:\d\d", at or ""), at


def test_rates_and_quantiles_are_of_what_happened_between_two_readings(console: Console) -> None:
    base = {
        "workers": [0], "connections": 5, "connections_total": 5, "publications": 10, "deliveries": 100, "bytes_out": 0,
        "bytes_in": 0, "cpu": 1.0, "memory": None, "lagging": 0, "handshakes_refused": 0, "tokens_refused": 0,
        "faults": {}, "closes": {"1000": 3}, "completion": {"buckets": [[0.1, 10], [0.2, 10], [None, 10]]},
    }  # fmt: skip
    later = {**base, "publications": 30, "deliveries": 300, "cpu": 2.0, "closes": {"1000": 50, "1013": 4}}
    later["completion"] = {"buckets": [[0.1, 20], [0.2, 30], [None, 30]]}
    script = """async (stats) => {
        const { Readings } = await import("/console/readings.js");
        const readings = new Readings();
        return stats.map((one) => readings.add(one));
    }"""
    fallen = {**later, "at": 106, "deliveries": 3}
    joined = {**later, "at": 108, "workers": [0, 1], "deliveries": 900}
    given = [{**base, "at": 100}, {**later, "at": 104}, fallen, joined]
    first, then, restarted, more = console.page.evaluate(script, given)
    assert first["deliveries"] is None and first["p50"] is None
    assert (then["publications"], then["deliveries"], then["errors"], then["cpu"]) == (5, 50, 1, 0.25)
    assert (then["p50"], round(then["p99"], 4)) == (0.1, 0.198)
    # A worker that began anew, or one that answers again, is no rate.
    assert restarted["deliveries"] is None and more["deliveries"] is None


# Clients


def test_who_lags_why_and_how_it_is_got_rid_of(console: Console, side: StandIn) -> None:
    console.go("overview")
    page = console.page
    page.click("text=1:c4711@1")
    console.sees("41.7 s behind")
    console.sees("Its socket is full: 87,040 bytes are not acknowledged")
    console.sees("The client or its network is too slow")
    page.click("#drawer >> text=Disconnect…")
    page.click("dialog >> text=Cancel")
    assert side.did == []
    page.click("#drawer >> text=Disconnect…")
    page.fill("dialog [name=reason]", "too slow")
    page.click("dialog >> button.danger")
    console.sees("1:c4711@1 is disconnected")
    console.sees("It is gone")
    assert side.did == [("/api/disconnect", {"client": "1:c4711@1", "code": 1008, "reason": "too slow"}, None)]
    page.wait_for_selector("#content >> text=1:c4711@1", state="detached")
    page.keyboard.press("Escape")
    page.wait_for_selector("#drawer", state="hidden")


def test_all_connections_of_a_user_are_closed(console: Console, side: StandIn) -> None:
    console.go("clients?client=0:c8@1")
    console.page.click("text=Disconnect the user…")
    console.page.select_option("dialog [name=code]", "1001")
    console.page.click("dialog >> button.danger")
    console.sees("2 connections of anna closed")
    assert side.did == [("/api/disconnect", {"user": "anna", "code": 1001, "reason": ""}, None)]


def test_a_crowd_is_seen_page_by_page(console: Console, side: StandIn) -> None:
    console.go("clients")
    page = console.page
    page.click("text=Next page")
    page.wait_for_selector("text=1:c100@1")
    page.click("text=Next page")
    page.wait_for_selector("text=0:c201@1")
    assert page.locator("#content tbody tr").count() <= 100
    page.go_back()
    page.wait_for_selector("text=1:c100@1")
    page.click("text=First page")
    page.wait_for_selector("text=0:c0@1")
    page.click("th >> text=Sent")
    page.wait_for_selector("th[aria-sort=descending] >> text=Sent")
    console.sees("the first by sent")
    assert any("sort=sent" in asked for asked in side.asked)


def test_deep_links_are_what_they_say(console: Console, side: StandIn) -> None:
    console.go("clients?channel=odds:7&lagging=true&sort=lag")
    console.sees("lagging clients of channel odds:7")
    page = console.page
    assert page.input_value("#by") == "channel" and page.input_value("[type=search]") == "odds:7"
    assert page.is_checked("[type=checkbox]")
    assert any(
        "channel=odds%3A7" in asked and "lagging=true" in asked and "sort=lag" in asked for asked in side.asked
    ), side.asked
    page.reload()
    console.sees("lagging clients of channel odds:7")
    page.click("#content tbody a")
    page.wait_for_selector("#drawer:not([hidden])")
    assert "channel=odds:7" in page.url and "client=" in page.url
    page.click("#drawer .close")
    page.wait_for_function("() => !location.hash.includes('client=')")
    assert page.url.endswith("#/clients?channel=odds:7&lagging=true&sort=lag")
    for name in ("a&b=c#d", "ü %", "<b>+1</b>"):
        page.fill("[type=search]", name)
        page.keyboard.press("Enter")
        console.sees("Everybody keeps up")
        page.reload()
        page.wait_for_function("(name) => document.querySelector('[type=search]').value === name", arg=name)


def test_a_client_is_found_by_its_name(console: Console) -> None:
    console.go("clients")
    console.page.fill("[type=search]", "2:c17@1")
    console.page.keyboard.press("Enter")
    console.sees("12.3 s behind")
    console.go("clients?client=0:c1@9")
    console.sees("It is gone")


def test_where_there_is_nothing_it_says_what_that_means(browser: Any) -> None:
    with (
        admin_stand_in(StandIn(lagging={}, relays=False)) as side,
        Console.opened(browser, side.address) as console,
    ):
        for place, text in (
            ("clients?lagging=true&sort=lag", "Everybody keeps up"),
            ("clients?user=nobody", "No clients of user nobody"),
            ("relay", "This hub relays nothing"),
            ("channels?match=none-such", "No channel is like *none-such*"),
            ("channels?channel=none-such", "It is not there now"),
            ("settings?search=none-such", "No setting fits"),
            ("overview", "No client lags"),
        ):
            console.go(place)
            console.sees(text)


# Channels, settings, log


def test_a_test_is_published_as_json_or_text(console: Console, side: StandIn) -> None:
    console.go("channels?channel=odds:7")
    page = console.page
    console.sees('{"late":"<img')  # what has come since is there, and before what is kept
    console.sees("bytes, base64: AAEC")
    page.fill("textarea", '{"home": 1.')
    page.click("button:text-is('Publish')")
    console.sees("This is no JSON")
    page.fill("textarea", '{"home": 1.5}')
    page.fill("[name=event]", "odds")
    page.click("button:text-is('Publish')")
    console.sees("Published at 1764480000512-100")
    assert page.input_value("textarea") == '{"home": 1.5}', "what was typed stays"
    page.select_option("[name=kind]", "text")
    page.click("button:text-is('Publish')")
    until_in_thread(lambda: len(side.did) == 2)
    (path, first, key), (_, second, other) = side.did
    assert path == "/api/publish" and key and other and key != other
    assert first == {"channel": "odds:7", "data": {"home": 1.5}, "event": "odds"}
    assert second["data"] == '{"home": 1.5}'


def test_settings_are_found_by_a_part(console: Console) -> None:
    console.go("settings")
    console.page.fill("[type=search]", "LISTEN")
    console.sees("2 of 10 settings")
    console.page.fill("[type=search]", "")
    console.page.check("[type=checkbox]")
    console.sees("6 of 10 settings")
    console.page.reload()
    console.sees("6 of 10 settings")


def test_what_is_long_or_comes_often_does_not_hold_up_the_page(console: Console) -> None:
    script = """async () => {
        const { dataText } = await import("/console/parts.js");
        const { calm } = await import("/console/dom.js");
        let shown = 0;
        const soon = calm(() => (shown += 1));
        for (let count = 0; count < 1000; count += 1) soon();
        return [dataText("x".repeat(1000000)).length, dataText({ base64: "AAEC" }), dataText(null), shown];
    }"""
    length, some_bytes, nothing, shown = console.page.evaluate(script)
    assert length < 5_000 and (some_bytes, nothing, shown) == ("bytes, base64: AAEC", "null", 0)


def test_the_log_is_narrowed_and_paused(console: Console) -> None:
    console.go("log")
    console.sees("on_message failed")
    console.page.select_option("#tools select", "warning")
    console.page.wait_for_selector("text=listening at", state="detached")
    console.page.fill("[type=search]", "live")
    console.page.wait_for_selector("text=on_message failed", state="detached")
    console.page.click("text=Pause")
    console.sees("paused, 0 lines since")


# The page itself


def test_keys_lead_everywhere(console: Console) -> None:
    console.go("overview")
    page = console.page
    for key, view in zip(
        "clrwsto", ("channels", "clients", "relay", "workers", "settings", "log", "overview"), strict=True
    ):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_selector(f"#to-{view}[aria-current]")
    page.keyboard.press("c")  # alone it is nothing
    assert page.url.endswith("#/overview")
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.wait_for_selector("#content tbody tr")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.textContent") == "0:c0@1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#drawer:not([hidden])")
    page.keyboard.press("Escape")
    page.wait_for_selector("#drawer", state="hidden")
    page.keyboard.press("/")
    page.keyboard.type("g c?")  # in a field letters are letters
    assert page.input_value("[type=search]") == "g c?"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("dialog >> text=Along rows")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


def test_the_token_is_asked_for_once_and_is_in_no_address(browser: Any) -> None:
    with (
        admin_stand_in(StandIn(token=TOKEN)) as side,
        Console.opened(browser, side.address) as console,
    ):
        console.go("clients")
        page = console.page
        page.fill("[name=token]", "wrong-wrong-wrong-wrong")
        page.keyboard.press("Enter")
        console.sees("That is not the token")
        page.fill("[name=token]", TOKEN)
        page.keyboard.press("Enter")
        console.sees("100,000 connected")
        page.reload()
        console.sees("100,000 connected")
        assert page.locator("dialog").count() == 0
        assert TOKEN not in page.url and TOKEN not in page.evaluate("JSON.stringify(localStorage)")
        assert not any(TOKEN in asked for asked in side.asked)
        assert page.context.cookies() == []
        asked = len([one for one in side.tokens if one is not None and TOKEN not in one])
        assert asked == 1, "a wrong token is not tried again and again"
        page.click("text=Forget the token")
        page.wait_for_selector("[name=token]")


def told_up_to_here(page: Any) -> None:
    """Whatever the page has asked is told: requests are told in their order."""
    with page.expect_request("**/icon.svg"):
        page.evaluate("() => void fetch('/console/icon.svg')")


def test_a_hidden_page_asks_nothing(browser: Any, side: StandIn) -> None:
    with Console.opened(browser, side.address) as console:
        page = console.page
        page.clock.install()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for place in ("clients?client=0:c0@1", "workers", "overview"):
            console.go(place)
            page.wait_for_selector("#pulse.live")
            page.evaluate("""() => {
                Object.defineProperty(document, "hidden", { value: true, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""")
            told_up_to_here(page)
            asked.clear()
            page.clock.run_for(60_000)
            told_up_to_here(page)
            assert [url for url in asked if "/api/" in url] == []
            with page.expect_request("**/api/stats"):
                page.evaluate("""() => {
                    delete document.hidden;
                    document.dispatchEvent(new Event("visibilitychange"));
                }""")


def test_what_is_not_shown_is_not_asked(browser: Any, side: StandIn) -> None:
    with Console.opened(browser, side.address, "settings") as console:
        console.sees("10 of 10 settings")
        console.page.wait_for_selector("#pulse.live")
    assert {asked.partition("?")[0] for asked in side.asked} == {"/api/settings", "/api/stats"}


def test_an_admin_side_that_is_away_is_said_and_waited_for(browser: Any, side: StandIn) -> None:
    with Console.opened(browser, side.address) as console:
        console.go("clients")
        console.sees("0:c0@1")
        side.is_away = True
        console.sees("The admin side does not answer.")
        console.page.wait_for_selector("#pulse.lost")
        console.sees("0:c0@1")  # what was known stays
        side.is_away = False
        console.page.wait_for_selector("#pulse.live")
        console.page.wait_for_selector("text=The admin side does not answer.", state="detached")


def test_a_worker_that_is_silent_is_named(browser: Any) -> None:
    with (
        admin_stand_in(StandIn(silent=[3])) as side,
        Console.opened(browser, side.address) as console,
    ):
        console.go("overview")
        console.sees("Worker 3 does not answer: what is told is without it.")
        console.page.click("#notice >> text=Workers")
        console.sees("the supervisor starts it again where it has ended")


def test_light_and_dark_are_the_systems_or_chosen(browser: Any, side: StandIn) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    with Console.opened(browser, side.address, color_scheme="dark") as console:
        console.go("overview")
        dark = console.page.evaluate(ground)
        console.page.click("text=Light")
        light = console.page.evaluate(ground)
        assert dark != light
        console.page.reload()
        console.page.wait_for_selector("#side")
        assert console.page.evaluate(ground) == light
        console.page.click("text=Auto")
        assert console.page.evaluate(ground) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(browser: Any, side: StandIn, scheme: str) -> None:
    script = (Path(__file__).parent / "support" / "contrast.js").read_text()
    with Console.opened(browser, side.address, color_scheme=scheme) as console:
        for place, text in PLACES.items():
            console.go(place)
            console.page.wait_for_selector("#pulse.live")
            console.sees(text)
            looked, weak = console.page.evaluate(script)
            assert looked > 15 and weak == [], place
        console.page.keyboard.press("?")
        console.page.wait_for_selector("dialog")
        assert console.page.evaluate(script)[1] == []


@pytest.mark.parametrize("place", PLACES)
def test_a_phone_shows_all_of_it(browser: Any, side: StandIn, place: str) -> None:
    with Console.opened(browser, side.address, viewport=PHONE, has_touch=True) as console:
        console.go(place)
        console.sees(PLACES[place])
        page = console.page
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        if "?" in place:
            assert page.locator("#drawer").bounding_box()["width"] == PHONE["width"]
            page.tap("#drawer .close")
            page.wait_for_selector("#drawer", state="hidden")


def test_a_thumb_leads_from_view_to_view(browser: Any, side: StandIn) -> None:
    with Console.opened(browser, side.address, viewport=PHONE, has_touch=True) as console:
        for view in reversed(VIEWS):
            console.page.tap(f"#to-{view}")
            console.sees(PLACES[view])
