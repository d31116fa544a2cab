"""``/metrics``: names that dashboards rely on."""

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire._engine import Engine, Settings
from fanwire.faults import Faults
from fanwire.metrics import Metrics, ProcessCollector, Scrape
from fanwire.relay.machine import Event, Machine
from fanwire.scraping import FRESH_S, Measured, Scraping
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from support.clients import connected
from support.hub_client import hub_client
from support.relaying import PATH, config, relayed, watch
from support.scraped import NO_PROMTOOL, PROMTOOL, everything, everything_of_one, promtool
from support.scripted_backend import ScriptedBackend
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

NAMES = {
    "fanwire_connections",
    "fanwire_connections_accepted_total",
    "fanwire_subscriptions",
    "fanwire_publications_total",
    "fanwire_deliveries_total",
    "fanwire_bytes_sent_total",
    "fanwire_bytes_received_total",
    "fanwire_lagging_connections",
    "fanwire_overtaken_total",
    "fanwire_handshakes_refused_total",
    "fanwire_tokens_refused_total",
    "fanwire_passed_on_total",
    "fanwire_accept_pauses_total",
    "fanwire_skipped_total",
    "fanwire_compression_seconds_total",
    "fanwire_compression_rests_total",
    "fanwire_compression_sent_bytes_total",
    "fanwire_compression_plain_bytes_total",
    "fanwire_compression_joins_total",
    "fanwire_compression_fallbacks_total",
    "fanwire_compression_readers",
    "fanwire_delivery_seconds_bucket",
    "fanwire_delivery_seconds_count",
    "fanwire_delivery_seconds_sum",
    "fanwire_fanout_completion_seconds_bucket",
    "fanwire_fanout_completion_seconds_count",
    "fanwire_fanout_completion_seconds_sum",
    "fanwire_handshake_seconds_bucket",
    "fanwire_subscribe_seconds_bucket",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}


async def scrape(address: str) -> dict[tuple[str, str], float]:
    """Every sample by its name and the value of its label."""
    response = await run_sync(partial(httpx.get, f"http://{address}/metrics", trust_env=False))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_what_happened_is_counted(hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.scraping.FRESH_S", 0.0)
    async with hub.serve(ANY) as serving:
        await run_sync(partial(httpx.get, f"http://{serving.address}/nowhere", trust_env=False))
        async with connected(serving.address, "/ws?channel=a") as peer:
            hub.publish("a", "x" * 100)
            await peer.receive()
            await until(lambda: hub.stats().deliveries == 1)
            samples = await scrape(serving.address)
            assert {name for name, _ in samples} >= NAMES
            assert samples["fanwire_connections", ""] >= 1
            assert samples["fanwire_subscriptions", ""] == 1
            assert samples["fanwire_publications_total", ""] == 1
            assert samples["fanwire_deliveries_total", ""] == 1
            assert samples["fanwire_bytes_sent_total", ""] >= 102
            assert ("fanwire_fanout_completion_seconds_bucket", "+Inf") in samples
            assert [samples["fanwire_delivery_seconds_count", fraction] for fraction in ("0.5", "0.99", "1")] == [
                1,
                1,
                1,
            ]
            assert samples["fanwire_skipped_total", "latest"] == 0
            assert samples["fanwire_handshakes_refused_total", "404"] == 1
            assert samples["fanwire_handshake_seconds_count", "websocket"] == 1
        await until(lambda: 1000 in hub.stats().closes)
        assert (await scrape(serving.address))["fanwire_closes_total", "1000"] == 1


async def test_health_is_answered_without_python(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving:
        for path in ("/healthz", "/readyz"):
            response = await run_sync(partial(httpx.get, f"http://{serving.address}{path}", trust_env=False))
            assert response.status_code == 200


def test_an_answer_is_made_once_a_second_however_many_ask() -> None:
    now, read, answers = 1_000.0, [], []

    def stats() -> Any:
        read.append(now)
        return known

    known = Engine(Settings()).stats()
    engine: Any = SimpleNamespace(stats=stats, respond=lambda id, status, kind, body: answers.append((status, body)))
    endings: Any = None
    tasks: Any = SimpleNamespace(faults=Faults())
    scraping = Scraping(engine, tasks, endings, Measured({}), now=lambda: now)
    asked: Any = SimpleNamespace(connection=1, headers=[])
    for _ in range(100):
        scraping.asking(asked)
    now += FRESH_S * 0.9
    scraping.asking(asked)
    made = len(read)
    assert len(answers) == 101 and set(answers) == {answers[0]} and answers[0][0] == 200
    assert made <= 2, "as collectors are registered, and for the answer"
    now += FRESH_S * 0.1
    scraping.asking(asked)
    assert len(read) == made + 1


async def test_a_scrape_makes_no_stats_of_lanes(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only their sums: a relay may have 100,000."""
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as client:
        assert await watch(client) == "m"
        monkeypatch.setattr("fanwire.relay.driver.LaneStats", None)
        samples = await scrape(address)
        assert samples["fanwire_relay_lanes", f"{PATH}live"] == samples["fanwire_relay_watching", PATH] == 1


@pytest.mark.parametrize("read", [everything, everything_of_one])
def test_no_two_families_have_one_name(read: Callable[[], Scrape]) -> None:
    """Which OpenMetrics forbids, also where one is a counter with ``_total`` behind it."""
    families = list(read().collect())
    assert all(family.documentation.endswith(".") for family in families)
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    open_metrics = openmetrics_families(read().text(OPEN_METRICS)[1].decode())
    assert {family.name for family in open_metrics} == set(names)


@pytest.mark.skipif(PROMTOOL is None, reason=NO_PROMTOOL)
@pytest.mark.parametrize("read", [everything, everything_of_one])
def test_promtool_has_no_complaint(read: Callable[[], Scrape]) -> None:
    assert promtool("check", "metrics", given=read().text("")[1]) == ""


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1", True),
        ("text/plain;q=0.9, Application/OpenMetrics-Text; q=0.3", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=soon", False),
    ],
)
def test_who_prefers_openmetrics_gets_it(accept: str, is_open: bool) -> None:
    kind, text = everything_of_one().text(accept)
    assert kind.startswith("application/openmetrics-text" if is_open else "text/plain")
    assert text.endswith(b"# EOF\n") is is_open
    exemplar = b'trace_id="0af7651916cd43dd8448eb211c80319c"'
    assert (exemplar in text) is is_open


async def test_a_scraper_is_answered_in_openmetrics(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving:
        ask = partial(httpx.get, f"http://{serving.address}/metrics", headers={"Accept": OPEN_METRICS}, trust_env=False)
        response = await run_sync(ask)
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        families = {family.name: family.type for family in openmetrics_families(response.text)}
        assert families["fanwire_connections"] == "gauge"
        assert families["fanwire_connections_accepted"] == "counter"
        assert families["fanwire_handshake_seconds"] == "histogram"


async def test_a_subscription_that_is_asked_about_is_timed(hub: fanwire.Hub) -> None:
    @hub.authorize
    def allow(client: fanwire.Client, channel: str) -> bool:
        return channel == "a"

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send('{"subscribe": ["a"], "id": 1}')
        await peer.receive()
        await peer.send('{"subscribe": ["b"], "id": 2}')
        await peer.receive()
        samples = await scrape(serving.address)
        assert samples["fanwire_subscribe_seconds_count", ""] == 2


async def test_gaps_and_connects_of_a_relay_are_timed(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as client:
        assert await watch(client) == "m"
        for session in backend.watching("m"):
            session.close()
        await until(lambda: hub.relay_stats()[0].gaps == 1 and hub.relay_stats()[0].lanes[0].state == "live")
        samples = await scrape(address)
        assert samples["fanwire_relay_gap_seconds_count", PATH] == 1
        upstream = f"{PATH}http://{backend.address}{PATH}"
        assert samples["fanwire_relay_upstream_connect_seconds_count", upstream] >= 2


def calls(function: Callable[[], object]) -> int:
    """How many calls it makes, of Python and of C."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


async def test_a_scrape_does_as_much_for_many_clients_as_for_few(hub: fanwire.Hub) -> None:
    """By counting: 18,500 clients are not walked, nor their descriptors."""
    async with hub.serve(ANY, handshake_timeout=100) as serving:
        host, _, port = serving.address.rpartition(":")
        metrics = Metrics(hub.stats, [ProcessCollector()])
        made = []
        with ExitStack() as stack:
            for more in (5, 300):
                for _ in range(more):
                    stack.enter_context(socket.create_connection((host, int(port))))
                await until(lambda few=bool(made): hub.stats().connections == (305 if few else 5))
                metrics.read().text("")
                made.append(calls(lambda: metrics.read().text("")))
    few, many = made
    assert abs(many - few) < 100


@pytest.mark.parametrize("lost", [False, True])
def test_the_word_for_a_lane_is_that_of_its_state(lost: bool) -> None:
    machine = Machine()
    words = {(machine.word, machine.state.value)}
    for event in (Event.OPENED, Event.AGREED, *([Event.LOST, Event.DUE] if lost else [Event.WANTED])):
        machine.take(event)
        words.add((machine.word, machine.state.value))
    machine.close()
    words.add((machine.word, machine.state.value))
    assert len(words) >= 3 and all(word == state for word, state in words)
