"""The client manager for python-socketio: stock server and stock clients, over both transports."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import anyio
import pytest
import socketio
from aiohttp import ClientSession, web
from engineio.packet import MESSAGE, Packet
from fanwire.adopt.outlets import MANY
from fanwire.adopt.proxy import Proxy
from fanwire.compat import socketio as compat
from fanwire.compat.socketio import AsyncFanwireManager, Packets
from fanwire.stand_in import IS_STAND_IN
from socketio.async_pubsub_manager import AsyncPubSubManager
from support.raw import frame, read_frame, upgraded
from support.uvicorns import served
from support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """python-socketio's server is asyncio's alone."""
    return "asyncio"


SERVERS = ["auto", "fanwire.uvicorn:Protocol", "aiohttp"]
"""uvicorn's protocol hides its transport; the others' are written to directly."""
DIRECT = [*SERVERS[1:], "fanwire.uvicorn:Sansio"]

CONNECTS_WITHIN_S = 8
"""Its own second is too short for a loaded machine."""


class Program:
    """A server of python-socketio as a program would have it, and who connected to it."""

    def __init__(self, server: str = "auto", **options: Any) -> None:
        self.server = server
        self.manager = AsyncFanwireManager(**options.pop("manager", {}))
        mode = "aiohttp" if server == "aiohttp" else "asgi"
        self.sio = socketio.AsyncServer(async_mode=mode, client_manager=self.manager, **options)
        self.sids: list[str] = []
        self.left: list[str] = []

        @self.sio.event
        def connect(sid: str, environ: Any) -> None:
            self.sids.append(sid)

        @self.sio.event
        def disconnect(sid: str, reason: str) -> None:
            self.left.append(sid)

        @self.sio.event
        async def echo(sid: str, data: Any) -> Any:
            await self.sio.emit("echoed", data, to=sid)
            return data

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address."""
        if self.server == "aiohttp":
            app = web.Application()
            self.sio.attach(app)
            runner = web.AppRunner(app, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
                await self.sio.shutdown()
            finally:
                await runner.cleanup()
            return
        async with served(socketio.ASGIApp(self.sio), self.server) as address:
            yield f"http://{address}"
            await self.sio.shutdown()


@asynccontextmanager
async def client(url: str, *transports: str) -> AsyncIterator[tuple[socketio.AsyncClient, list[Any]]]:
    """A stock client, and what it heard."""
    http = ClientSession()
    sio, heard = socketio.AsyncClient(reconnection=False, http_session=http), []

    @sio.on("*")
    def hear(event: str, *arguments: Any) -> str:
        heard.append((event, *arguments))
        return f"had {event}"

    try:
        await sio.connect(url, transports=list(transports) or ["websocket"], wait_timeout=CONNECTS_WITHIN_S)
        yield sio, heard
    finally:
        if sio.connected:
            await sio.disconnect()
        await sio.eio.disconnect(abort=True)  # where the server has ended it: else its tasks go on
        for task in (sio.eio.read_loop_task, sio.eio.write_loop_task):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await http.close()


@pytest.mark.filterwarnings(
    "ignore:.*Connection.__del__"
)  # of the stock client, which leaves a poll's when it upgrades
@pytest.mark.parametrize("server", SERVERS)
async def test_all_rooms_and_single_clients_get_what_is_theirs_over_both_transports(server: str) -> None:
    program = Program(server)
    sio = program.sio
    async with (
        program.serving() as url,
        client(url) as (_, ann),
        client(url, "polling") as (_, bob),
        client(url, "polling", "websocket") as (_, cleo),
    ):
        await until(lambda: len(program.sids) == 3)
        one, two, three = program.sids
        await sio.enter_room(one, "room")
        await sio.enter_room(two, "room")
        await sio.emit("to all", {"a": [1, "ü"]})
        await sio.emit("to room", ("two", "arguments"), room="room")
        await sio.emit("but one", None, room=["room", "nowhere"], skip_sid=one)
        await sio.emit("but two", 1, skip_sid=[one, two])
        await sio.emit("binary", {"b": b"\x00\xff", "t": "x"})
        await sio.emit("to one", "x", to=three)
        await sio.emit("nobody", "x", namespace="/other")
        await sio.leave_room(one, "room")
        await sio.close_room("room")
        await sio.emit("closed", "x", room="room")
        await sio.emit("last")
        everybody, room = ("to all", {"a": [1, "ü"]}), ("to room", "two", "arguments")
        binary, last = ("binary", {"b": b"\x00\xff", "t": "x"}), ("last",)
        await until(lambda: all(heard and heard[-1] == last for heard in (ann, bob, cleo)))
        await sio.disconnect(two)  # a stock client that polls would wait for the end of its poll
        assert ann == [everybody, room, binary, last]
        assert bob == [everybody, room, ("but one",), binary, last]
        assert cleo == [everybody, ("but two", 1), binary, ("to one", "x"), last]


@pytest.mark.parametrize("server", SERVERS)
async def test_acknowledgements_and_what_a_client_asked_for_keep_their_order(server: str) -> None:
    program = Program(server)
    async with program.serving() as url, client(url) as (ann, heard):
        await until(lambda: program.sids)
        for number in range(5):
            assert await ann.call("echo", number) == number
            assert heard[-1] == ("echoed", number), "what was emitted before the answer came before it"
        told: list[Any] = []
        await program.sio.emit("ask", "x", to=program.sids[0], callback=lambda *answer: told.append(answer))
        await until(lambda: told)
        assert told == [("had ask",)]
        assert await program.sio.call("ask", "y", to=program.sids[0], timeout=100) == "had ask"


async def test_no_task_is_made_for_a_receiver_and_the_packet_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program()
    async with program.serving() as url, client(url) as (_, ann), client(url) as (_, bob):
        await until(lambda: len(program.sids) == 2)
        encoded = []
        encode = Packet.encode

        def counted(packet: Packet, b64: bool = False) -> Any:
            if not packet.encode_cache:
                encoded.append(packet.data)
            return encode(packet, b64)

        monkeypatch.setattr(Packet, "encode", counted)
        spawned = []
        create_task = asyncio.create_task
        monkeypatch.setattr(asyncio, "create_task", lambda *a, **k: (spawned.append(a), create_task(*a, **k))[1])
        await program.sio.emit("x", "data")
        assert spawned == []
        await until(lambda: ann and bob)
        assert encoded == ['2["x","data"]']


@pytest.mark.parametrize("server", DIRECT)
async def test_what_is_written_directly_and_what_is_queued_keep_one_order(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, written = Program(server), []
    write_frames = compat.write_frames
    monkeypatch.setattr(
        compat, "write_frames", lambda *arguments: (written.append(arguments), write_frames(*arguments))
    )
    draw = random.Random(7)
    async with program.serving() as url, client(url) as (_, heard):
        await until(lambda: program.sids)
        sid, expected = program.sids[0], []
        for number in range(80):
            size = draw.choice([1, 10, 200, 5_000, 200_000])
            data = draw.choice([f"{number}" + "x" * size, number, b"\xff" * (size // 10), {"b": [b"\x00", "t"]}])
            expected.append((f"n{number}", data))
            if draw.random() < 0.3:  # by the server's own way: through the queue, and its writer
                await program.sio.emit(f"n{number}", data, to=sid, callback=lambda *_: None)
            else:
                await program.sio.emit(f"n{number}", data)
            if draw.random() < 0.1:
                await until(lambda: len(heard) == len(expected))
        await until(lambda: len(heard) == len(expected))
        assert heard == expected
        assert len(written) > 10


@pytest.mark.parametrize("server", ["auto", *DIRECT])
async def test_many_clients_get_what_is_theirs_in_the_order_of_the_calls(server: str) -> None:
    program = Program(server, ping_interval=0.05)
    sio, draw = program.sio, random.Random(11)
    async with program.serving() as url, AsyncExitStack() as stack:
        clients: list[socketio.AsyncClient] = []
        heard: dict[str, list[Any]] = {}
        for number in range(MANY + 1):
            one, events = await stack.enter_async_context(client(url))
            await until(lambda number=number: len(program.sids) == number + 1)
            clients.append(one)
            heard[program.sids[number]] = events
            await sio.enter_room(program.sids[number], "room")
        here, expected = set(program.sids), {sid: [] for sid in program.sids}  # type: ignore[var-annotated]
        for number in range(200):
            size = draw.choice([1, 200, 200, 70_000])
            data = draw.choice([f"{number}" + "x" * size, b"\xff" * size, {"b": [b"\x00", "t"]}, ("two", number)])
            arguments = data if isinstance(data, tuple) else (data,)
            sid, to = draw.choice(program.sids), set(here)
            match draw.choice(["room"] * 6 + ["skip", "list", "ask", "moves", "call", "settle"]):
                case "room":
                    await sio.emit(f"n{number}", data, room="room")
                case "skip":
                    to = set(program.sids) - {sid, program.sids[0]}
                    await sio.emit(f"n{number}", data, skip_sid=[sid, program.sids[0]])
                case "list":
                    to = here | {sid}
                    await sio.emit(f"n{number}", data, to=["room", sid])
                case "ask":
                    to = {sid}
                    await sio.emit(f"n{number}", data, to=sid, callback=lambda *_: None)
                case "moves":
                    to = set()
                    await (sio.leave_room if sid in here else sio.enter_room)(sid, "room")
                    here ^= {sid}
                case "call":
                    to = set()
                    expected[sid].append(("echoed", number))
                    assert await clients[program.sids.index(sid)].call("echo", number) == number
                case "settle":
                    to = set()
                    await until(lambda: heard == expected)
            for one in to:
                expected[one].append((f"n{number}", *arguments))
        await until(lambda: all(len(heard[sid]) == len(expected[sid]) for sid in program.sids))
        assert heard == expected
        sockets = [program.sio.eio.sockets[program.manager.eio_sid_from_sid(sid, "/")] for sid in program.sids]
        standing = {type(getattr(*socket.watched.outlet.holder)) for socket in sockets}
        assert (standing == {Proxy}) == (server != "auto" and not IS_STAND_IN), "the engine writes where it can"
        assert program.left == []


@pytest.mark.parametrize("server", SERVERS[1:])
async def test_what_is_emitted_in_one_turn_is_one_write(server: str) -> None:
    program = Program(server)
    async with program.serving() as url, client(url) as (_, heard):
        await until(lambda: program.sids)
        socket = program.sio.eio.sockets[program.manager.eio_sid_from_sid(program.sids[0], "/")]
        await until(lambda: socket.watched.is_idle)
        foreign = socket.watched.outlet.foreign
        transport = foreign.pipe(foreign.connection)
        for number in range(40):
            await program.sio.emit("n", number)
        assert foreign.pipe(foreign.connection) is not transport, "what is behind the first waits for the turn's end"
        await until(lambda: heard == [("n", number) for number in range(40)])
        assert foreign.pipe(foreign.connection) is transport
        turned: list[bool] = []
        asyncio.get_running_loop().call_soon(turned.append, True)
        for number in range(200):
            await program.sio.emit("n", number)
        assert turned, "a task that emits without a pause lets the loop turn"


@pytest.mark.filterwarnings("ignore:.*Connection.__del__")  # as above
@pytest.mark.parametrize("server", SERVERS)
async def test_who_upgrades_while_events_come_misses_none_and_gets_them_in_order(server: str) -> None:
    program = Program(server)
    async with program.serving() as url, AsyncExitStack() as stack:
        others = [(await stack.enter_async_context(client(url)))[1] for _ in range(MANY)]
        counts, is_over = count(), anyio.Event()

        async def feed() -> None:
            while not is_over.is_set():
                for _ in range(3):
                    await program.sio.emit("n", last := next(counts))
                await until(lambda: len(others[0]) > last)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            for _ in range(4):
                _, heard = await stack.enter_async_context(client(url, "polling", "websocket"))
                seen = len(heard)
                await until(lambda heard=heard, seen=seen: len(heard) > seen + 10)
                others.append(heard)
            is_over.set()
        last = next(counts) - 1
        await until(lambda: all(heard[-1] == ("n", last) for heard in others))
        for heard in others:
            numbers = [number for _, number in heard]
            assert numbers == list(range(numbers[0], last + 1))


@pytest.mark.parametrize("server", DIRECT)
async def test_nothing_follows_a_close_frame_while_the_program_still_hears_of_the_end(server: str) -> None:
    program, may_go = Program(server, max_http_buffer_size=1000), anyio.Event()

    @program.sio.event
    async def disconnect(sid: str, reason: str) -> None:
        await may_go.wait()
        program.left.append(sid)

    async with program.serving() as url, client(url) as (_, ann):
        target = "/socket.io/?EIO=4&transport=websocket"
        with await anyio.to_thread.run_sync(upgraded, url.removeprefix("http://"), target) as raw:
            raw.sendall(frame(1, b"40"))
            await until(lambda: len(program.sids) == 2)
            raw.sendall(frame(1, b"4" + b"x" * 2000))  # too big: the server ends it
            received = await anyio.to_thread.run_sync(read_frame, raw)
            while received.opcode != 8:
                received = await anyio.to_thread.run_sync(read_frame, raw)
            for number in range(3):
                await program.sio.emit("n", number)
            await until(lambda: len(ann) == 3)
            raw.sendall(frame(8, received.payload))
            with pytest.raises((EOFError, ConnectionError)):
                await anyio.to_thread.run_sync(read_frame, raw)
        may_go.set()
        await until(lambda: program.left == program.sids[1:])


async def test_one_who_does_not_read_is_ended_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    program = Program(manager={"waiting_max": 20})
    async with program.serving() as url, client(url) as (_, ann), client(url) as (_, bob):
        await until(lambda: len(program.sids) == 2)
        stalled = program.sio.eio.sockets[program.manager.eio_sid_from_sid(program.sids[1], "/")]
        taken, stalled.queue = stalled.queue, program.sio.eio.create_queue()  # nobody takes what waits there
        for number in range(30):
            await program.sio.emit("n", number)
            await until(lambda number=number: len(ann) == number + 1)
        assert bob == []
        await until(lambda: program.left == [program.sids[1]])
        assert f"{stalled.sid}: more than 20 packets wait for this client, closing it" in caplog.text
        assert stalled.closed
        assert stalled.queue.qsize() <= 11
        taken.put_nowait(None)


@pytest.mark.parametrize("server", SERVERS[1:])
async def test_one_of_many_who_does_not_read_is_ended_and_the_others_go_on(server: str) -> None:
    program, big = Program(server, manager={"waiting_max": 20}), "x" * 30_000
    async with program.serving() as url, AsyncExitStack() as stack:
        address, target = url.removeprefix("http://"), "/socket.io/?EIO=4&transport=websocket"
        connect = partial(upgraded, address, target, receive_buffer=4096)
        with await anyio.to_thread.run_sync(connect) as stalled:
            stalled.sendall(frame(1, b"40"))
            await until(lambda: len(program.sids) == 1)
            heard = [(await stack.enter_async_context(client(url)))[1] for _ in range(MANY)]
            await until(lambda: len(program.sids) == MANY + 1)
            socket = program.sio.eio.sockets[program.manager.eio_sid_from_sid(program.sids[0], "/")]
            sent, most = 0, 0
            with anyio.fail_after(60):
                while not program.left:
                    for _ in range(5):
                        await program.sio.emit("n", (sent, big))
                        sent += 1
                    pipe = socket.watched.outlet.pipe(None)
                    most = max(most, 0 if pipe is None else pipe.get_write_buffer_size())
                    await until(lambda sent=sent: all(len(events) == sent for events in heard))
            assert program.left == program.sids[:1]
            # 64 and 32 KiB, an event each time that it was looked at, and what the framework's writer takes in advance.
            assert 0 < most < 1 << 20, "what waits for it is bounded"
            assert all([number for _, number, _ in events] == list(range(sent)) for events in heard)


async def test_a_client_that_is_gone_is_left_to_the_server_and_a_handler_that_fails_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = Program()
    async with program.serving() as url, client(url) as (_, ann), client(url):
        await until(lambda: len(program.sids) == 2)
        overdue = program.sio.eio.sockets[program.manager.eio_sid_from_sid(program.sids[1], "/")]
        overdue.last_ping = 1.0  # sent in 1970 and never answered

        @program.sio.event
        def disconnect(sid: str, reason: str) -> None:
            program.left.append(reason)

        await program.sio.emit("x")
        assert program.left == ["ping timeout"]
        await until(lambda: ann == [("x",)])

        async def fail(*_: Any) -> None:
            raise ValueError("a server's own way")

        class Own(socketio.AsyncServer):  # a server that sends in a way of its own is asked for each
            _send_eio_packet = fail

        program.manager.set_server(Own(async_mode="asgi", client_manager=program.manager))
        await program.sio.emit("y")
        assert "sending failed" in caplog.text
        program.manager.set_server(program.sio)


async def test_it_goes_below_one_that_joins_several_processes() -> None:
    published: list[Any] = []

    class Clients(AsyncPubSubManager, AsyncFanwireManager):
        async def _publish(self, data: Any) -> None:
            published.append(data)

        async def _listen(self) -> AsyncIterator[Any]:
            await anyio.sleep_forever()
            yield

    manager = Clients()
    assert manager.waiting_max == 4096
    program = Program()
    program.sio.manager = program.manager = manager
    manager.set_server(program.sio)
    async with program.serving() as url, client(url) as (_, ann):
        await program.sio.emit("x", "data")
        await until(lambda: ann == [("x", "data")])
        assert [one["method"] for one in published if one["method"] == "emit"] == ["emit"]
        manager.thread.cancel()


async def test_a_mixture_of_text_and_binary_is_made_anew_for_who_polls() -> None:
    program = Program()
    packets = Packets(program.sio, "x", b"\xff", "/")
    fresh = packets.of(is_upgraded=False)
    assert [packet.encode(b64=True) for packet in fresh] == ['451-["x",{"_placeholder":true,"num":0}]', "b/w=="]
    assert [packet.encode() for packet in packets.of(is_upgraded=True)][1] == b"\xff"
    assert packets.of(is_upgraded=True) is packets.of(is_upgraded=True)
    text = Packets(program.sio, "x", ("a", "b"), "/n")
    assert text.of(is_upgraded=True) is text.of(is_upgraded=False)
    assert (text.of(is_upgraded=True)[0].packet_type, text.of(is_upgraded=True)[0].encode()) == (
        MESSAGE,
        '42/n,["x","a","b"]',
    )
    with pytest.raises((TypeError, ValueError), match="waiting_max must be a whole number"):
        AsyncFanwireManager(waiting_max=0)
