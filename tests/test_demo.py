"""The demo's parts; that it plays as a whole is tested with the command line."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from fanwire._loop import background_tasks
from fanwire.demo.acts import ACTS, DemoPlan, Show
from fanwire.demo.backends import BackendFailed, OtherBackend
from fanwire.demo.figures import Figures, Outage, expected_of, quantile_s, size
from fanwire.demo.screen import line, screen
from rich.console import Console
from support.waiting import until


def test_a_plan_shares_its_clients_among_processes() -> None:
    assert DemoPlan(10_001, 20, 60).crowds == [3334, 3334, 3333]
    assert DemoPlan(60, 20, 60).crowds == [30, 30]
    assert DemoPlan(1, 20, 60).crowds == [1]


def test_what_clients_are_due_follows_from_what_they_watch() -> None:
    assert expected_of([1, 10, 100], 1000, [4, 2]) == 3 * 1 + 2 * 10 + 1 * 100 + 6 * 1000


def test_an_age_is_the_least_that_the_share_does_not_exceed() -> None:
    ages_us = Counter({1000: 98, 2000: 1, 5000: 1})
    assert (quantile_s(ages_us, 0.5), quantile_s(ages_us, 0.99), quantile_s(ages_us, 1)) == (0.001, 0.002, 0.005)
    assert quantile_s(Counter(), 0.5) is None


def test_what_a_killed_backend_did_stays_counted() -> None:
    figures = Figures()
    figures.take_backend({"connections": 3, "messages": 5, "bytes": 100, "cpu_s": 0.5})
    figures.end_backend()
    assert figures.connections == 0
    figures.take_backend({"connections": 1, "messages": 1, "bytes": 10, "cpu_s": 0.1})
    assert (figures.now().backend_messages, figures.now().backend_bytes) == (6, 110)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_960, "1.0 MB"), (2.5e9, "2.5 GB")],
)
def test_sizes_have_their_units(value: float, written: str) -> None:
    assert size(value) == written


@pytest.mark.parametrize("width", [80, 110])
@pytest.mark.parametrize("act", range(len(ACTS)))
def test_every_act_is_drawn_in_its_place(act: int, width: int) -> None:
    show = Show(DemoPlan(10, 2, 5), act=act, is_relayed=act < 4, is_down=act == 3)
    show.outage = Outage(0.0, 3, clients=10) if act == 3 else None
    show.figures.take_tick(0, {"open": 7, "received": 50, "bytes": 900, "ages_us": [[1500, 50]], "failures": {}})
    show.figures.take_backend({"connections": 3, "messages": 5, "bytes": 90, "cpu_s": 0.1})
    show.figures.sample()
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(screen(show, width))
    text = console.export_text()
    assert {len(row) for row in text.splitlines()} == {min(width, 96)}
    assert text.count("\n") == 26
    assert "7 clients" in text
    assert "90.0 %" in text
    assert "1.5 ms" in text
    assert line(show)


STATS = {"connected": 3, "bytesOut": 900, "cpuMs": 1500.0, "published": 30, "publishedToAll": 1}


@contextmanager
def controlled() -> Iterator[tuple[str, list[str]]]:
    """A backend's control over HTTP: its address, and what it was told."""
    told: list[str] = []

    class Control(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(json.dumps(STATS))

        def do_POST(self) -> None:
            told.append(self.path)
            self.answer("{}")

        def answer(self, body: str) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Control) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/live", told
        server.shutdown()


@pytest.mark.anyio
async def test_another_backend_is_told_over_http_and_its_counters_are_read() -> None:
    figures = Figures()
    with controlled() as (url, told):
        async with background_tasks() as tasks:
            backend = OtherBackend(url, figures, 2, tasks)
            await backend.goal(1, "0 : 1")
            await backend.feed(2.5)
            await backend.feed(0)
            await backend.start()
            await until(lambda: bool(figures.backend))
    assert told == [
        "/publish-all?target=Announcement&text=0%20%3A%201",
        "/publish?matches=m2&count=20&size=200",
        "/feed?count=2&rate=2.5&size=200&seconds=3600",
        "/feed/stop",
        "/feed/stop",
        "/stats/reset",
    ]
    assert (figures.backend["odds"], figures.backend["announcements"]) == ([5, 25], 1)
    assert (figures.connections, figures.now().backend_bytes, figures.now().backend_cpu_s) == (3, 900, 1.5)


@pytest.mark.anyio
async def test_another_backend_that_is_not_there_is_named() -> None:
    async with background_tasks() as tasks:
        with pytest.raises(BackendFailed, match=r"http://127\.0\.0\.1:1/feed/stop"):
            await OtherBackend("http://127.0.0.1:1/live", Figures(), 2, tasks).start()
