"""What a client of a relay costs that watches and says nothing else; what those have in common who show the same."""

import gc
import socket
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fanwire
import pytest
from anyio import from_thread
from anyio.to_thread import run_sync
from fanwire.relay.credentials import ALIKE_MAX, Reader
from fanwire.relay.headers import UNIMPORTANT, Passing
from fanwire.relay.timing import Pace
from support.raw import frame, read_frame, read_head, request_text
from support.relaying import ANY, PATH, config
from support.scripted_backend import ScriptedBackend
from support.waiting import until_in_thread

pytestmark = pytest.mark.anyio
CROWD = 150
BROWSER = {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Accept_Language": "en", "Origin": "https://example.org"}
WATCH = b'{"type":1,"invocationId":"1","target":"Watch","arguments":["m"]}\x1e'
PACKAGE = str(Path(fanwire.__file__).parent / "*")


def come(address: str, **fields: str) -> socket.socket:
    """A client that watches, and then only listens."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 8)
    connection.sendall(request_text(PATH, **BROWSER, **fields))
    assert read_head(connection).startswith("HTTP/1.1 101")
    connection.sendall(frame(1, b'{"protocol":"json","version":1}\x1e') + frame(1, WATCH))
    while b'"invocationId":"1"' not in read_frame(connection).payload:
        pass
    return connection


def held() -> tuple[Counter[type], int]:
    """Objects that the collector knows, but for sockets, which are the clients'; and bytes that fanwire asked for."""
    gc.collect()
    objects = Counter(type(one) for one in gc.get_objects() if not issubclass(type(one), socket.socket))
    traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, PACKAGE)]).traces
    return objects, sum(trace.size for trace in traces)


def costs(address: str, cookies: bool, count: Callable[[], int]) -> tuple[float, float]:
    """Objects and bytes of one client, by as many more of them as there were. `count` is of those that are known."""
    measured, there = [], list[socket.socket]()
    tracemalloc.start()
    try:
        for crowd in range(2):
            for number in range(CROWD):
                there.append(come(address, **({"Cookie": f"session={crowd}-{number}"} if cookies else {})))
            until_in_thread(lambda: from_thread.run_sync(count) == len(there))
            measured.append(held())
    finally:
        tracemalloc.stop()
        for connection in there:
            connection.close()
    (few, few_bytes), (many, many_bytes) = measured
    return (many - few).total() / CROWD, (many_bytes - few_bytes) / CROWD


def watching(hub: fanwire.Hub) -> int:
    """How many clients watch."""
    return sum(lane.clients for lane in hub.relay_stats()[0].lanes)


@pytest.mark.parametrize(("cookies", "objects_max", "bytes_max"), [(False, 2, 320), (True, 4, 700)])
async def test_a_client_that_only_watches_is_a_few_objects(
    hub: fanwire.Hub, cookies: bool, objects_max: int, bytes_max: int
) -> None:
    with ScriptedBackend() as backend:
        hub.relay(config(backend))
        async with hub.serve(ANY, signalr_paths=(), drain_timeout=0.2) as serving:
            objects, bytes = await run_sync(costs, serving.address, cookies, partial(watching, hub))
    assert objects <= objects_max
    assert bytes <= bytes_max


# What is shared


def reader() -> Reader:
    """By the rules that are usual."""
    return Reader(Passing.of((), (), UNIMPORTANT))


def test_who_shows_the_same_is_kept_once_and_its_address_is_its_own() -> None:
    reads = reader()
    (one, _), (same, _), (other, _) = (
        reads.read([("host", "h"), ("user-agent", "a"), ("sec-websocket-key", key)], "", peer)
        for key, peer in (("x", "192.0.2.1:5"), ("y", "192.0.2.1:6"), ("z", "192.0.2.2:5"))
    )
    assert one is same
    assert other.shown is one.shown
    assert [dict(who.headers)["X-Forwarded-For"] for who in (one, other)] == ["192.0.2.1", "192.0.2.2"]
    assert dict(one.headers)["Forwarded"] == 'for=192.0.2.1;host="h";proto=http'


@pytest.mark.parametrize(
    ("name", "value", "query"),
    [
        ("authorization", "Bearer secret", ""),
        ("cookie", "secret", ""),
        ("proxy-authorization", "secret", ""),
        ("sec-websocket-protocol", "secret", ""),
        ("x-api-key", "secret", ""),
        ("user-agent", "secret" * 1_000, ""),
        ("user-agent", "a", "key=secret"),
    ],
)
def test_what_may_be_one_client_s_alone_goes_with_it(name: str, value: str, query: str) -> None:
    reads = reader()
    credentials, _ = reads.read([("host", "h"), (name, value)], query, "192.0.2.1:5")
    assert not (reads._shown._known or reads._credentials._known)
    assert "secret" not in repr(reads._alike._known)
    again, _ = reads.read([("host", "h"), (name, value)], query, "192.0.2.1:5")
    assert again.shown is not credentials.shown
    assert again.headers == credentials.headers


def test_what_is_kept_for_others_is_bounded() -> None:
    reads = reader()
    for number in range(3 * ALIKE_MAX):
        reads.read([("host", "h"), ("user-agent", f"a{number}")], "", f"192.0.2.1:{number}")
    assert all(len(kept._known) <= ALIKE_MAX for kept in (reads._shown, reads._credentials, reads._alike))


# The pace of each


def test_a_pace_allows_as_many_at_once_as_in_a_second() -> None:
    for rate in (1.0, 3.0, 7.0, 50.0, 1e4):
        pace, until, taken = Pace(rate), 0.0, 0
        while taken <= rate and (after := pace.take(until, 100.0)) is not None:
            until, taken = after, taken + 1
        assert taken == rate
        assert pace.take(until, 100.0 + 0.5 / rate) is None
        assert pace.take(until, 100.0 + 1.1 / rate) is not None
        assert pace.take(until, 200.0) is not None
