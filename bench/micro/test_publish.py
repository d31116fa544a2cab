"""What one ``Engine.publish`` costs its caller: 128 bytes, as ``bytes`` and ``str``, with 0 and 100 subscribers.

``python -m pytest bench/micro --benchmark-only``. O(1) in subscribers is the claim: the two counts must not differ but
for the one wake of the shard. The subscribers are plain sockets that a thread empties.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

_engine = pytest.importorskip("fanwire._engine")

PAYLOAD_BYTES = 128
UPGRADE = (
    b"GET /ws?channel=c0 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
READY_TIMEOUT_S = 10.0


@contextmanager
def engine_listening() -> Iterator[tuple["_engine.Engine", tuple[str, int]]]:
    """An engine of one shard, started, on a free port of 127.0.0.1."""
    engine = _engine.Engine(_engine.Settings())
    engine.start()
    try:
        host, _, port = engine.listen("127.0.0.1:0").rpartition(":")
        yield engine, (host, int(port))
    finally:
        engine.stop()


@contextmanager
def subscribers(engine: "_engine.Engine", address: tuple[str, int], count: int) -> Iterator[None]:
    """`count` clients on channel ``c0``, whose sockets a thread reads empty."""
    stopping = threading.Event()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as readable:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(address))
            client.sendall(UPGRADE)
            client.setblocking(False)
            readable.register(client, selectors.EVENT_READ)

        def read() -> None:
            while not stopping.is_set():
                for key, _ in readable.select(timeout=0.05):
                    with contextlib.suppress(BlockingIOError):
                        key.fileobj.recv(1 << 20)  # type: ignore[union-attr]

        reader = threading.Thread(target=read)
        reader.start()
        try:
            _wait_until(lambda: engine.occupancy("c0") == count)
            yield
        finally:
            stopping.set()
            reader.join()


def _wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition that another thread makes true; fails after READY_TIMEOUT_S."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not ready after {READY_TIMEOUT_S} s"
        threading.Event().wait(0.001)


@pytest.mark.parametrize("count", [0, 100])
@pytest.mark.parametrize("kind", ["bytes", "str"])
def test_publish(benchmark: BenchmarkFixture, kind: str, count: int) -> None:
    payload: str | bytes = "x" * PAYLOAD_BYTES if kind == "str" else b"x" * PAYLOAD_BYTES
    with engine_listening() as (engine, address), subscribers(engine, address, count):
        # Fixed rounds: an endless loop would overtake the sockets, and then measure how clients are closed.
        benchmark.pedantic(engine.publish, args=("c0", payload), iterations=20, rounds=200, warmup_rounds=5)


def test_publish_deferred_then_flush(benchmark: BenchmarkFixture) -> None:
    """A batch of 20 with one wake: what ``publish_many`` does."""
    payload = b"x" * PAYLOAD_BYTES

    with engine_listening() as (engine, _address):

        def batch() -> None:
            for _ in range(20):
                engine.publish("c0", payload, deferred=True)
            engine.flush()

        benchmark(batch)
