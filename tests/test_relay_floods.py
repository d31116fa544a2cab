"""One client floods a relay whose backend is slow, absent or stuck: how little of it waits, and that all of it goes."""

import gc
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire.relay.client import RelayedClient
from fanwire.relay.config import Lanes, MessageShare, Private
from fanwire.relay.plain_client import PlainClient
from support.hub_client import HubClient, hub_client
from support.loops import epoll_alone
from support.raw import frame, read_frame, upgraded
from support.relaying import ANY, PATH, config
from support.scripted_backend import ScriptedBackend, Session, answer, hang
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
poller = epoll_alone
GROWTH_BYTES_MAX = 10 << 20
FLOOD_BYTES = 48 << 20
FLOOD_S = 0.3
PATIENCE_S = 60.0
PAD = "x" * 30_000
FREE = Lanes(subscribe_rate=1_000_000, per_client_max=1_000_000, connect_timeout=30.0, backoff_min=0.1, backoff_max=0.2)
"""What else would bound a client."""
SLOW_GATE = Private(rate=1)


@pytest.fixture
def anyio_backend() -> Any:
    """What waits, waits on every loop alike."""
    return "asyncio", {"use_uvloop": False}


def call(target: str, id: str, arguments: str, more: str = "") -> bytes:
    """An invocation in a frame."""
    text = f'{{"type":1,"invocationId":"{id}","target":"{target}","arguments":[{arguments}]{more}}}\x1e'
    return frame(1, text.encode())


def numbered(make: Callable[[int], bytes]) -> list[bytes]:
    """Several, all different."""
    return [make(number) for number in range(100)]


def stuck(backend: ScriptedBackend) -> None:
    """No new connection is made."""
    backend.negotiate = backend.upgrade = hang


def silent(backend: ScriptedBackend) -> None:
    """No call is answered."""
    backend.answer = lambda session, message: None


def unmoved(backend: ScriptedBackend) -> None:
    """Who leaves is not answered."""

    def answer_all_else(session: Session, message: dict[str, Any]) -> None:
        if message.get("target") != "Unwatch":
            answer(session, message)

    backend.answer = answer_all_else


@dataclass
class Flood:
    """What a client sends, again and again, and where."""

    frames: list[bytes]
    first: bytes = b""
    prepare: Callable[[ScriptedBackend], None] = stuck
    options: dict[str, Any] = field(default_factory=dict)
    is_first: bool = False
    """Whether it is the path's first client."""
    is_plain: bool = False


PLAIN: dict[str, Any] = {"protocol": "websocket", "share": (MessageShare(subscribe="/watch"),)}
FLOODS = {
    "before the broadcast lane": Flood([call("Echo", "1", f'"{PAD}"')], is_first=True),
    "at the gate": Flood([call("Echo", "1", f'"{PAD}"')], options={"private": SLOW_GATE}),
    "at the gate, without one form": Flood([call("Watch", "1", f'1e400,"{PAD}"')], options={"private": SLOW_GATE}),
    "uploads at the gate": Flood(
        [frame(1, f'{{"type":2,"invocationId":"s","item":"{PAD}"}}\x1e'.encode())],
        first=call("Upload", "1", "", ',"streamIds":["s"]'),
        options={"private": SLOW_GATE},
    ),
    "to a backend that is not there": Flood([call("Echo", "1", f'"{PAD}"')]),
    "lanes": Flood(numbered(lambda number: call("Watch", "1", f'{number},"{PAD}"'))),
    "one lane, long ids": Flood([call("Watch", PAD, '"m"')]),
    "pooled": Flood([call("Echo", "1", f'"{PAD}"')], prepare=silent, options={"private": Private(pooled=("Echo",))}),
    "leaving": Flood([call("Watch", "1", '"n"') + call("Unwatch", PAD, '"n"')], prepare=unmoved),
    "plain, at the gate": Flood([frame(1, PAD.encode() * 2)], options={**PLAIN, "private": SLOW_GATE}, is_plain=True),
    "plain, to a backend that is not there": Flood([frame(2, PAD.encode() * 2)], options=PLAIN, is_plain=True),
    "plain lanes": Flood(
        numbered(lambda number: frame(1, f'{{"watch":[{number},"{PAD}"]}}'.encode())), options=PLAIN, is_plain=True
    ),
}


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def clients() -> int:
    """Clients of relays that anything still holds."""
    gc.collect()
    return sum(isinstance(one, RelayedClient | PlainClient) for one in gc.get_objects())


def send_all(connection: socket.socket, flood: Flood) -> int:
    """Send until so much is taken, or time is up and some was, and read what is answered; gives the bytes taken."""
    frames: Iterator[bytes] = cycle(flood.frames)
    rest = memoryview(flood.first + next(frames))
    connection.setblocking(False)
    taken, began_s = 0, monotonic()
    with suppress(ConnectionError):
        while taken < FLOOD_BYTES and monotonic() < began_s + (FLOOD_S if taken > len(rest) else PATIENCE_S):
            with suppress(BlockingIOError):
                connection.recv(1 << 16)
            with suppress(BlockingIOError):
                sent = connection.send(rest)
                taken += sent
                rest = rest[sent:] if sent < len(rest) else memoryview(next(frames))
    return taken


async def flooded(address: str, flood: Flood) -> int:
    """One such client from its first to its last; how much the process has grown while it was there."""

    def send() -> tuple[int, int]:
        with upgraded(address, PATH) as connection:
            if not flood.is_plain:
                connection.sendall(frame(1, b'{"protocol":"json","version":1}\x1e'))
            before = resident_bytes()
            taken = send_all(connection, flood)
            return taken, resident_bytes() - before

    there = clients()
    taken, grown = await run_sync(send)
    assert taken > len(flood.frames[0]), "it was let in"
    await until(lambda: clients() <= there)
    return grown


@pytest.mark.parametrize("kind", FLOODS)
async def test_what_waits_for_one_client_is_bounded_and_goes_with_it(hub: fanwire.Hub, kind: str) -> None:
    flood = FLOODS[kind]
    with ScriptedBackend() as backend:
        hub.relay(config(backend, **{"lanes": FREE, **flood.options}))
        # A client that is not read from is seen to be gone when it is written to.
        often: dict[str, Any] = {
            "signalr_keepalive": 0.2,
            "ping_interval": 0.2,
            "ping_timeout": PATIENCE_S,
            "close_timeout": 0.2,
        }
        async with hub.serve(ANY, signalr_paths=(), drain_timeout=0.2, **often) as serving:
            if flood.is_plain or flood.is_first:
                flood.prepare(backend)
                await flooded(serving.address, replace(flood, frames=flood.frames[:1]))
                grown = await flooded(serving.address, flood)
            else:
                async with hub_client(serving.address, PATH) as other:
                    assert await call_once(other) == {"result": 1}
                    flood.prepare(backend)
                    grown = await flooded(serving.address, flood)
            assert grown < GROWTH_BYTES_MAX
            await until(lambda: hub.stats().connections <= 1)


async def call_once(client: HubClient) -> Any:
    """What it costs to be there: the broadcast lane, and a private or pooled connection that has had its turn."""
    return await client.invoke("Echo", 1)


async def test_pooled_calls_of_many_wait_for_a_slow_backend_and_none_is_lost(hub: fanwire.Hub) -> None:
    """All together they are more than a connection's queue may hold, at whose bound it would end for everybody."""
    released = Event()

    def answer_at_last(session: Session, message: dict[str, Any]) -> None:
        assert released.wait(60)
        answer(session, message)

    calls = b"".join(call("Echo", f"{n}", f'{n},"{PAD}"') for n in range(16))

    def call_all(address: str) -> list[bytes]:
        with ExitStack() as stack:
            connections = [stack.enter_context(upgraded(address, PATH)) for _ in range(16)]
            for connection in connections:
                connection.sendall(frame(1, b'{"protocol":"json","version":1}\x1e') + calls)
            released.set()
            return [read_completions(connection, 16) for connection in connections]

    with ScriptedBackend() as backend:
        backend.answer = answer_at_last
        hub.relay(config(backend, private=Private(pooled=("Echo",), pool_size=1)))
        async with hub.serve(ANY, signalr_paths=(), drain_timeout=0.2) as serving:
            answers = await run_sync(call_all, serving.address)
    expected = b"".join(b'{"type":3,"invocationId":"%d","result":%d}\x1e' % (n, n) for n in range(16))
    assert answers == [expected] * 16


def read_completions(connection: socket.socket, count: int) -> bytes:
    """So many, behind the handshake and without pings."""
    records: list[bytes] = []
    while len(records) < count + 1:
        payload = read_frame(connection).payload
        records += [one for one in payload.split(b"\x1e") if one and one != b'{"type":6}']
    return b"".join(one + b"\x1e" for one in records[1:])
