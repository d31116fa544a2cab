"""``/metrics``: names that dashboards rely on."""

from functools import partial

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from prometheus_client.parser import text_string_to_metric_families
from support.clients import connected
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


async def test_what_happened_is_counted(hub: fanwire.Hub) -> None:
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
