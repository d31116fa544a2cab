"""What it costs Python to take a batch of 1,000 messages from the engine: one ``take_events``, one list.

``python -m pytest bench/micro --benchmark-only``. Each round a client sends 1,000 text messages of 64 bytes in one
write; the clock runs only while they are taken.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

_engine = pytest.importorskip("fanwire._engine")

MESSAGES = 1_000
MESSAGE_BYTES = 64
READY_TIMEOUT_S = 10.0
UPGRADE = (
    b"GET /ws?channel=c0 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked_text_frame(payload: bytes) -> bytes:
    """A client's text frame of at most 125 bytes (RFC 6455 §5.2), masked with a random key as it must be."""
    key = os.urandom(4)
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return struct.pack("!BB", 0x81, 0x80 | len(payload)) + key + masked


@contextmanager
def talking_client() -> Iterator[tuple["_engine.Engine", socket.socket]]:
    """An engine and one client of it, upgraded; nothing bounds how many messages may wait."""
    engine = _engine.Engine(_engine.Settings(messages_pending_max=2 * MESSAGES))
    engine.add_route(_engine.Route("/ws", "websocket", asks=["messages"]))
    engine.start()
    try:
        host, _, port = engine.listen("127.0.0.1:0").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=READY_TIMEOUT_S) as client:
            client.sendall(UPGRADE)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += client.recv(4096)
            yield engine, client
    finally:
        engine.stop()


def test_take_events_batch(benchmark: BenchmarkFixture) -> None:
    burst = masked_text_frame(b"m" * MESSAGE_BYTES) * MESSAGES
    with talking_client() as (engine, client):

        def wait_for_batch() -> None:
            client.sendall(burst)
            readable, _, _ = select.select([engine.event_fd], [], [], READY_TIMEOUT_S)
            assert readable, f"no event after {READY_TIMEOUT_S} s"
            time.sleep(0.02)  # not a claim of readiness: lets the shard parse on, so that a batch is whole

        taken: list[int] = []

        def take() -> None:
            events = engine.take_events(MESSAGES)
            taken.append(len(events))
            if events:
                engine.acknowledge([event.connection for event in events])

        benchmark.pedantic(take, setup=wait_for_batch, rounds=50, warmup_rounds=2)
        benchmark.extra_info["messages"] = sum(taken) / len(taken)
        assert max(taken) == MESSAGES
