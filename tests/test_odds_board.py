"""The odds board: what its program promises, over raw sockets, and what its page makes of that, in a real Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from support.chromium import CHROMIUM, Tab, chromium
from support.examples import example
from support.raw import frame, read_frame, upgraded
from support.waiting import until_in_thread

pytestmark = pytest.mark.slow

MATCHES, MARKETS = 8, 8


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The page's address, while the example runs as it stands."""
    with example("odds_board.py", "127.0.0.1:0", "0") as line:
        yield line


@pytest.fixture(scope="module")
def hub(page: str) -> str:
    """The hub's address."""
    return parse_qs(urlsplit(page).query)["hub"][0]


def receive(connection: socket) -> Any:
    """The next message, parsed."""
    return json.loads(read_frame(connection).payload)


def offsets(messages: list[Any]) -> list[int]:
    """The numbers of publications in their channel."""
    return [message["position"][1] for message in messages]


def test_its_page_needs_nothing_from_elsewhere(page: str) -> None:
    text = httpx.get(page, trust_env=False).text
    assert "Lose the connection" in text
    assert not any(word in text for word in ("http://", "https://", "src=", "@import", '<link rel="stylesheet'))


def test_who_joins_with_history_gets_the_whole_board_at_once(hub: str) -> None:
    with upgraded(hub, "/ws?channel=odds:board&start=history&envelope=1") as connection:
        # A few more than there are keys, for those that change while they are read.
        first = [receive(connection) for _ in range(MATCHES * MARKETS + 6)]
        assert len({message["data"]["key"] for message in first}) == MATCHES * MARKETS
        assert offsets(first) == sorted(set(offsets(first)))
        assert all(price > 1 for message in first for price in message["data"]["odds"])


def test_who_comes_back_with_a_position_gets_exactly_the_goals_that_were_missed(hub: str) -> None:
    with upgraded(hub, "/ws?channel=goals&envelope=1") as witness:
        with upgraded(hub, "/ws?channel=goals&envelope=1") as connection:
            epoch, offset = receive(connection)["position"]
        seen = [receive(witness)]
        while seen[-1]["position"][1] < offset + 2:
            seen.append(receive(witness))
        missed = [message for message in seen if message["position"][1] > offset]
        with upgraded(hub, f"/ws?channel=goals&envelope=1&since={epoch}-{offset}") as connection:
            assert receive(connection)["result"]["recovered"]["goals"] is True
            assert [receive(connection) for _ in missed] == missed
            assert receive(connection) == receive(witness), "then live"


def test_who_watches_is_named_to_those_who_ask(hub: str) -> None:
    target = "/ws?channel=presence:odds:board&envelope=1"
    with upgraded(hub, f"{target}&channel=odds:board&user=ann") as ann:
        told: dict[str, Any] = {}
        while "ann" not in told.get("joined", told.get("members", ())):
            told = receive(ann)["data"]
        with upgraded(hub, f"{target}&user=bob") as bob:
            assert "ann" in receive(bob)["data"]["members"]


def test_a_slow_reader_skips_and_ends_with_the_newest_of_each_key(hub: str) -> None:
    with upgraded(hub, "/ws") as connection:
        connection.sendall(frame(1, b'{"call":"BeSlow","args":[4],"id":1}'))
        messages = [receive(connection)]
        while "id" not in messages[-1]:
            messages.append(receive(connection))
        *reports, result = (message.get("slow") or message["result"] for message in messages)
        assert len(reports) == 20
        assert result["taken"] + result["skipped"] == result["published"]
        assert result["skipped"] > 0
        assert result["keys"] == MATCHES * MARKETS


@pytest.fixture
def tab(page: str, tmp_path: Path) -> Iterator[Tab]:
    """The page in a browser."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium")
    with chromium(tmp_path) as opened:
        opened.open(page)
        yield opened


def test_in_a_browser_who_loses_the_connection_has_no_hole_in_the_ticker(tab: Tab) -> None:
    shown = "[...document.querySelectorAll('#board .price')].filter((price) => Number(price.textContent) > 1).length"
    until_in_thread(lambda: tab.evaluate(shown) == 3 * MATCHES and tab.evaluate("goals.last"))
    tab.evaluate("document.getElementById('join').click()")
    tab.evaluate("document.getElementById('lose').click()")
    until_in_thread(lambda: tab.evaluate("document.body.className") == "away")
    had = tab.evaluate("goals.last")
    until_in_thread(lambda: tab.evaluate("document.body.className") == "" and tab.evaluate(f"goals.last > {had}"))
    ticker = "[...document.querySelectorAll('#ticker li')].map((item) => Number(item.dataset.offset))"
    told = tab.evaluate(ticker)
    assert told == list(range(told[0], told[-1] - 1, -1)), "no hole, no double, newest first"
    recovered = tab.evaluate(ticker.replace("li", "li.recovered"))
    assert recovered and recovered == [offset for offset in told if had < offset <= recovered[0]]
    assert tab.evaluate("document.getElementById('goals-verdict').textContent").endswith("no hole, no double")
    assert "✓ It had all 64 values" in tab.evaluate("document.getElementById('late-verdict').textContent")
