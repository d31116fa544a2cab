"""Spans of OpenTelemetry, as the SDK's exporter in memory has them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from support.clients import connected, refusal
from support.hub_client import hub_client
from support.relaying import PATH, config, relayed, watch
from support.scripted_backend import ScriptedBackend
from support.waiting import until
from test_metrics import OPEN_METRICS

pytest.importorskip("opentelemetry.sdk", reason="there is no opentelemetry-sdk")

from fanwire.otel import instrument
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

pytestmark = pytest.mark.anyio
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Spans:
    """Those that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, name: str) -> list[Any]:
        """In the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@contextmanager
def recorded(hub: fanwire.Hub) -> Iterator[Spans]:
    """What a hub makes; nothing of it has a token in it."""
    spans = Spans()
    instrument(hub, spans.provider)
    yield spans
    assert "hunter2" not in "".join(span.to_json() for span in spans._exporter.get_finished_spans())


async def test_connects_calls_and_publications_are_spans(hub: fanwire.Hub) -> None:
    spans_within: list[Any] = []

    @hub.authenticate
    async def who(request: fanwire.Request) -> str:
        spans_within.append(trace.get_current_span().get_span_context())
        if request.query.get("token") != "hunter2":
            raise fanwire.Refused("who are you?")
        return "ann"

    @hub.method
    def place(client: fanwire.Client, number: int) -> int:
        if number < 0:
            raise RuntimeError("of all numbers")
        hub.publish("bets", {"number": number})
        return number

    with recorded(hub) as spans:
        async with hub.serve("127.0.0.1:0") as serving:
            headers = {"traceparent": TRACEPARENT, "Authorization": "Bearer hunter2"}
            target = "/ws?token=hunter2&channel=bets"
            async with connected(serving.address, target, additional_headers=headers) as peer:
                await peer.send_json(call="place", args=[7], id=1)
                answers = [await peer.receive_json(), await peer.receive_json()]
                assert {"id": 1, "result": 7} in answers
                await peer.send_json(call="place", args=[-1], id=2)
                assert "error" in await peer.receive_json()
            assert (await refusal(serving.address))[0] == 401
            await until(lambda: len(spans.named("connect")) == 2)
        first, second = spans.named("connect")
        assert (f"{first.context.trace_id:032x}", f"{first.parent.span_id:016x}") == (TRACE, PARENT)
        assert first.kind is SpanKind.SERVER and spans_within[0].span_id == first.context.span_id
        about = dict(first.attributes)
        assert (about["url.path"], about["fanwire.transport"], about["fanwire.accepted"]) == ("/ws", "raw", True)
        assert about["fanwire.connection"].startswith("c")
        assert second.parent is None and second.attributes["fanwire.accepted"] is False

        good, bad = spans.named("call place")
        assert [link.context.span_id for link in good.links] == [first.context.span_id]
        assert good.parent is None and good.attributes["fanwire.connection"] == about["fanwire.connection"]
        assert bad.status.status_code is trace.StatusCode.ERROR
        (publish,) = spans.named("publish")
        assert publish.parent.span_id == good.context.span_id
        assert publish.attributes["messaging.destination.name"] == "bets"


async def test_lanes_are_spans_and_exemplars_of_their_gaps(hub: fanwire.Hub, backend: ScriptedBackend) -> None:
    with recorded(hub) as spans:
        async with relayed(hub, config(backend)) as address, hub_client(address, PATH) as client:
            assert await watch(client) == "m"
            (lane,) = spans.named("lane")
            assert lane.attributes["fanwire.method"] == "Watch" and lane.kind is SpanKind.CLIENT
            for session in backend.watching("m"):
                session.close()
            await until(lambda: len(spans.named("lane")) == 2)
            again = spans.named("lane")[1]
            accepted = {"Accept": OPEN_METRICS}
            ask = partial(httpx.get, f"http://{address}/metrics", headers=accepted, trust_env=False)
            text = (await run_sync(ask)).text
            assert f'trace_id="{again.context.trace_id:032x}"' in text


def test_a_hub_is_instrumented_once() -> None:
    hub = fanwire.Hub()
    instrument(hub)
    with pytest.raises(RuntimeError, match="instrumented once"):
        instrument(hub)
    with pytest.raises(TypeError, match="must be a Hub"):
        instrument(None)  # type: ignore[arg-type]


def test_without_it_nothing_of_opentelemetry_is_imported() -> None:
    program = (
        "import fanwire, fanwire.hub, sys; fanwire.Hub(); assert not any('opentelemetry' in n for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)
