"""``/metrics``: names that dashboards rely on."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire._engine import Engine, Settings
from fanwire.faults import Faults
from fanwire.metrics import Metrics
from fanwire.scraping import FRESH_S, Measured, Scraping
from fanwire.workers.summing import Summed
from prometheus_client.parser import text_string_to_metric_families
from support.clients import connected
from support.hub_client import hub_client
from support.relaying import PATH, config, relayed, watch
from support.scripted_backend import ScriptedBackend
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"

NAMES = {
    "fanwire_connections",
    "fanwire_connections_total",
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
    "fanwire_delivery_seconds_bucket",
    "fanwire_delivery_seconds_count",
    "fanwire_delivery_seconds_sum",
    "fanwire_fanout_completion_seconds_bucket",
    "fanwire_fanout_completion_seconds_count",
    "fanwire_fanout_completion_seconds_sum",
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
    asked: Any = SimpleNamespace(connection=1)
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


def test_a_gauge_and_a_counter_of_one_name_stay_two_in_the_sum_of_workers() -> None:
    engine = Engine(Settings())
    metrics = Metrics(engine.stats)
    samples = metrics.samples()
    text = metrics.render_all(Summed(samples, {0: samples}, {})).decode()
    assert "Connections open now.\n# TYPE fanwire_connections gauge\nfanwire_connections 0.0\n" in text
    assert "# TYPE fanwire_connections_total counter\nfanwire_connections_total 0.0\n" in text
