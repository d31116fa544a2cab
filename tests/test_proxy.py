"""The transport that stands before a real one: its states, with an engine that writes when it is told to."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from anyio.lowlevel import checkpoint
from fanwire.adopt.proxy import Proxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_engine import FakeEngine
from support.loops import with_transports
from support.waiting import until

pytestmark = pytest.mark.anyio
anyio_backend = with_transports


class Framework(asyncio.Protocol):
    """A protocol that keeps what it is told, and asserts what frameworks assert."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.came = b""
        self.is_paused = False
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.came += data

    def pause_writing(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_writing(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class World:
    """A framework with its transport, an engine, and the client's socket."""

    def __init__(self, framework: Framework, real: Any, peer: socket.socket) -> None:
        self.framework, self.real, self.peer = framework, real, peer
        self.engine = FakeEngine()
        self.proxies: dict[int, Proxy] = {}
        self.seen = b""

    def adopt(self) -> Proxy:
        """Have a proxy stand there."""
        holders = [(self.framework, "transport")]
        real = self.framework.transport
        adopted = self.engine.adopt(real.get_extra_info("socket").fileno())
        proxy = self.proxies[adopted.connection] = Proxy(adopted, real, holders, self)
        return proxy

    def turn(self, bytes_max: int = 1 << 30) -> None:
        """The engine writes, and what it tells arrives."""
        drained, over = self.engine.turn(bytes_max)
        for connection in drained:
            if connection in self.proxies:
                self.proxies[connection].drained()
        for connection, why, code in over:
            self.proxies.pop(connection).released(self.engine.sockets[connection - 1], why, code)

    def flush_soon(self) -> None:
        """As turns say."""

    has_pending = False

    def settle(self) -> None:
        """It asks the engine at once."""

    def note_high(self, high: int) -> None:
        """It looks at each."""

    def read(self) -> bytes:
        """All that the client has got so far."""
        while True:
            try:
                data = self.peer.recv(1 << 20)
            except BlockingIOError:
                return self.seen
            if not data:
                return self.seen
            self.seen += data

    async def arrives(self, wanted: bytes) -> None:
        """Until the client has got all this."""

        def has() -> bool:
            self.turn()
            return len(self.read()) >= len(wanted)

        await until(has)
        assert self.seen == wanted


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets of which one can reset the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        return listener.accept()[0], peer


@asynccontextmanager
async def world(pair: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair) -> AsyncIterator[World]:
    """One of a socket pair."""
    ours, peer = pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
    ours.setblocking(False)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, framework = await loop.connect_accepted_socket(Framework, ours)
    with peer:
        world = World(framework, transport, peer)
        yield world
        transport.abort()
        await until(lambda: framework.lost)
        world.turn()
        assert world.proxies == {} and all(adopted.is_over for adopted in world.engine.sockets)
        assert framework.transport is world.real


async def test_what_the_real_transport_holds_goes_out_first() -> None:
    async with world() as all:
        wanted = b""
        for number in range(100):
            all.real.write(b"%05d" % number * 1_000)
            wanted += b"%05d" % number * 1_000
        assert all.framework.is_paused and all.real.get_write_buffer_size() > 65_536
        proxy = all.adopt()
        assert all.framework.transport is proxy and all.framework.is_paused
        proxy.write(b"behind it")
        all.turn()
        assert proxy.adopted.waiting == 9, "the engine waits"
        await all.arrives(wanted + b"behind it")
        assert not all.framework.is_paused
        proxy.release()
        all.turn()
        assert all.framework.transport is all.real
        all.framework.transport.write(b", and on")
        await all.arrives(wanted + b"behind it, and on")


async def test_one_that_the_engine_gives_up_early_does_not_begin_the_one_before_it() -> None:
    async with world() as all:
        wanted = b"0123456789" * 50_000
        all.real.write(wanted)
        proxy = all.adopt()
        proxy.write(b"behind it")
        proxy.release()
        second = all.engine.adopt(all.real.get_extra_info("socket").fileno())
        all.proxies[second.connection] = proxy
        proxy.renew(second, all)
        proxy.release()
        second.end("released", 0)  # there was nothing to wait for
        all.turn()
        assert not all.engine.sockets[0].has_begun, "the real transport holds something yet"
        await all.arrives(wanted + b"behind it")


async def test_the_framework_is_held_up_and_goes_on() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.set_write_buffer_limits(high=1_000)
        assert proxy.get_write_buffer_limits() == (250, 1_000)
        proxy.write(b"x" * 1_000)
        assert not all.framework.is_paused
        proxy.write(memoryview(b"y"))
        assert all.framework.is_paused and proxy.get_write_buffer_size() == 1_001
        all.turn(700)
        assert all.framework.is_paused
        all.turn(100)
        assert not all.framework.is_paused and proxy.get_write_buffer_size() == 201
        await all.arrives(b"x" * 1_000 + b"y")


async def test_what_is_written_while_the_engine_lets_go_is_not_lost() -> None:
    async with world() as all:
        limits = all.real.get_write_buffer_limits()
        proxy = all.adopt()
        proxy.write(b"1")
        proxy.release()
        proxy.release()
        proxy.writelines([b"2", bytearray(b"3")])
        proxy.write(b"x" * 100_000)
        assert all.framework.is_paused and proxy.get_write_buffer_size() == 100_003
        await all.arrives(b"123" + b"x" * 100_000)
        await until(lambda: not all.framework.is_paused)
        assert all.real.get_write_buffer_limits() == limits
        proxy.write(b"4")  # whoever has kept it
        await all.arrives(b"123" + b"x" * 100_000 + b"4")
        assert proxy.get_write_buffer_size() == 0
        again = all.adopt()
        again.write(b"5")
        await all.arrives(b"123" + b"x" * 100_000 + b"45")


async def test_close_comes_behind_what_was_written() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"x" * 200_000)
        proxy.close()
        proxy.close()
        proxy.write(b"not any more")
        assert proxy.is_closing() and not all.real.is_closing()
        await all.arrives(b"x" * 200_000)
        await until(lambda: all.framework.lost)
        assert all.framework.lost == [None]
        assert all.peer.recv(1) == b""


async def test_an_end_of_file_comes_behind_what_was_written_and_the_rest_is_read() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"x" * 100_000)
        proxy.write_eof()
        with pytest.raises(RuntimeError):
            proxy.write(b"not any more")
        await all.arrives(b"x" * 100_000)
        all.peer.setblocking(True)
        assert await asyncio.to_thread(all.peer.recv, 1) == b""
        all.peer.send(b"said last")
        await until(lambda: all.framework.came == b"said last")
        all.framework.transport.close()
        await until(lambda: all.framework.lost)


async def test_who_says_nothing_more_still_gets_what_was_written() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"x" * 200_000)
        all.peer.shutdown(socket.SHUT_WR)
        await until(proxy.is_closing)
        assert not all.framework.lost
        await all.arrives(b"x" * 200_000)
        await until(lambda: all.framework.lost)
        assert all.framework.lost == [None] and all.peer.recv(1) == b""


async def test_who_says_nothing_more_and_waits_for_nothing_is_gone_at_once() -> None:
    async with world() as all:
        all.adopt()
        all.peer.shutdown(socket.SHUT_WR)
        await until(lambda: all.framework.lost)
        assert all.framework.lost == [None]


async def test_an_end_of_file_of_a_socket_that_is_reset_meanwhile_is_no_error() -> None:
    async with world(tcp_pair) as all:
        proxy = all.adopt()
        all.turn()
        proxy.write_eof()
        all.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        all.peer.close()
        all.turn()
        assert all.framework.transport is all.real
        await until(lambda: all.framework.lost)


@pytest.mark.parametrize("wanted", ["abort", "real abort", "peer", "both in one turn"])
async def test_an_end_is_told_once(wanted: str) -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"x" * 100_000)
        all.turn(10)
        match wanted:
            case "abort":
                proxy.abort()
            case "real abort":
                all.real.abort()
            case "peer":
                all.peer.close()
            case _:
                proxy.close()
                proxy.abort()
        await until(lambda: all.framework.lost)
        assert len(all.framework.lost) == 1
        all.turn()
        assert all.proxies == {}
        proxy.close()
        proxy.abort()


async def test_nothing_follows_the_engine_s_own_close() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"0123456789")
        all.turn(5)
        proxy.adopted.end("closed", 1013)
        all.turn()
        assert proxy.closed_with == 1013
        proxy.write(b"and on")
        assert all.read() == b"01234"
        all.peer.send(b"still read")
        await until(lambda: all.framework.came == b"still read")
        proxy.close()
        await until(lambda: all.framework.lost)
        assert all.read() == b"01234"


async def test_what_the_framework_waits_for_comes_also_where_nobody_writes_any_more() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"x" * 100_000)
        assert all.framework.is_paused
        proxy.adopted.end("closed", 1013)
        all.turn()
        assert not all.framework.is_paused and not all.framework.lost


async def test_a_socket_that_broke_is_given_up() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"0123")
        proxy.adopted.end("broken", 32)
        all.turn()
        await until(lambda: all.framework.lost)


async def test_the_engine_ends_before_it_has_told() -> None:
    async with world() as all:
        proxy = all.adopt()
        proxy.write(b"0123")
        all.turn()
        proxy.adopted.end("ended", 0)
        proxy.write(b"4567")
        await all.arrives(b"01234567")
        assert all.framework.transport is all.real


async def test_attached_and_closed_in_one_turn() -> None:
    async with world() as all:
        all.adopt().close()
        await until(lambda: (all.turn(), all.framework.lost)[1])
        assert all.framework.lost == [None]


ACTS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 40_000)),
    st.tuples(st.just("turn"), st.integers(0, 50_000)),
    st.sampled_from([("adopt", 0), ("release", 0), ("read", 0), ("loop", 0)]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACTS, max_size=40))
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_all_arrives_once_and_in_its_order(loop: str, acts: list[tuple[str, int]]) -> None:
    async def run() -> None:
        wanted = bytearray()
        async with world() as all:
            proxy: Proxy | None = None
            for number, (act, count) in enumerate(acts):
                match act:
                    case "write":
                        data = (b"%03d." % number * (count // 4 + 1))[:count]
                        all.framework.transport.write(data)
                        wanted += data
                    case "turn":
                        all.turn(count)
                    case "adopt":
                        if not all.proxies:
                            proxy = all.adopt()
                    case "release":
                        if proxy is not None:
                            proxy.release()
                    case "read":
                        all.read()
                    case "loop":
                        await checkpoint()
            await all.arrives(bytes(wanted))
            await until(lambda: (all.turn(), not all.framework.is_paused)[1])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(run())
