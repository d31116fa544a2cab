"""Where a hub listens: at a path, at all addresses of a name, and no longer than it should."""

import os
import select
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.descriptors import held_inodes, listening_inodes
from support.raw import open_socket, read_close, read_head, request_text, upgraded
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def is_refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=100).close()
    except ConnectionRefusedError:
        return True
    return False


@contextmanager
def forked(say: str = "") -> Iterator[list[str]]:
    """A child that stays until the end of the block; says which of the sockets that listen on port `say` it holds."""
    (reading, writing), (waiting, going) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(going)
        with os.fdopen(writing, "w") as pipe:
            pipe.write(" ".join(listening_inodes(int(say)) & held_inodes()))
        os.read(waiting, 1)
        os._exit(0)
    os.close(writing)
    os.close(waiting)
    try:
        with os.fdopen(reading) as pipe:
            yield pipe.read().split()
    finally:
        os.close(going)
        os.waitpid(child, 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("shards", [1, 2])
async def test_a_forked_child_holds_no_listening_socket_and_the_port_is_free_at_the_end(
    hub: fanwire.Hub, shards: int
) -> None:
    serving = await hub.start(ANY, shards=shards)
    port = serving.address.rpartition(":")[2]
    assert len(listening_inodes(int(port))) == shards
    with forked(port) as held:
        assert held == []
        async with connected(serving.address, "/ws?channel=a") as peer:
            hub.publish("a", "the parent still listens")
            assert await peer.receive() == "the parent still listens"
        await hub.stop()
        assert await run_sync(is_refused, serving.address)
        other = fanwire.Hub()
        async with other.serve(serving.address) as again, connected(again.address):
            pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_clients_who_are_cut_off_at_the_end_see_it_though_a_forked_child_holds_their_sockets(
    hub: fanwire.Hub,
) -> None:
    serving = await hub.start(ANY, drain_timeout=0.1, close_timeout=60)
    with await run_sync(upgraded, serving.address) as silent, forked("0"):
        await hub.stop()
        assert await run_sync(silent.recv, 100) == b"\x88\x02\x03\xe9"  # a Close frame of 1001, not answered
        assert await run_sync(silent.recv, 100) == b""


@pytest.mark.parametrize("what", ["regular file", "directory", "symbolic link", "socket that somebody serves"])
async def test_what_stands_at_a_path_is_left_alone_and_named(hub: fanwire.Hub, tmp_path: Path, what: str) -> None:
    path = tmp_path / "hub"
    server = socket.socket(socket.AF_UNIX)
    with server:
        match what:
            case "regular file":
                path.write_text("precious")
            case "directory":
                path.mkdir()
            case "symbolic link":
                path.symlink_to(tmp_path / "nowhere")
            case _:
                server.bind(str(path))
                server.listen()
        before = os.lstat(path)
        with pytest.raises(fanwire.ListenFailed, match=f"a {what} stands there"):
            async with hub.serve(f"unix:{path}"):
                pass
        assert os.lstat(path).st_ino == before.st_ino
    assert what != "regular file" or path.read_text() == "precious"


async def test_a_socket_that_nobody_serves_is_replaced(hub: fanwire.Hub, tmp_path: Path) -> None:
    path = tmp_path / "hub"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    async with hub.serve(f"unix:{path}"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "mode"), [({}, 0o660), ({"unix_mode": 0o600}, 0o600), ({"unix_mode": 0o666}, 0o666)]
)
async def test_the_permissions_of_a_socket_are_as_told_whatever_the_umask(
    tmp_path: Path, options: dict[str, int], mode: int
) -> None:
    path = tmp_path / "hub"
    async with fanwire.Hub(**options).serve(f"unix:{path}", shards=2):  # type: ignore[arg-type]
        assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_a_path_that_is_another_servers_by_now_is_left_alone(hub: fanwire.Hub, tmp_path: Path) -> None:
    path = tmp_path / "hub"
    async with hub.serve(f"unix:{path}"):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.mark.parametrize("shards", [1, 2])
async def test_localhost_is_all_addresses_that_the_name_has(hub: fanwire.Hub, shards: int) -> None:
    try:
        with socket.socket(socket.AF_INET6) as six:
            six.bind(("::1", 0))
        hosts = {"127.0.0.1", "::1"}
    except OSError:
        hosts = {"127.0.0.1"}
    known = {str(info[4][0]) for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    async with hub.serve("localhost:0", shards=shards) as serving:
        port = serving.address.rpartition(":")[2]
        for host in hosts & known:
            assert not await run_sync(is_refused, f"{host}:{port}")


async def test_a_colon_and_a_port_are_all_addresses(hub: fanwire.Hub) -> None:
    async with hub.serve(":0") as serving:
        port = serving.address.rpartition(":")[2]
        assert not await run_sync(is_refused, f"127.0.0.1:{port}")


class TestMisleading:
    async def test_a_message_that_nobody_takes_is_answered_once_with_the_form(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY) as serving, connected(serving.address) as peer:
            await peer.send('{"action":"subscribe"}')
            said = await peer.receive()
            assert isinstance(said, str) and said.startswith('{"error":') and '{\\"subscribe\\":[\\"NAME\\"]}' in said
            await peer.send("hello?")
            await peer.send('{"subscribe":["a"],"id":1}')
            assert await peer.receive() == '{"id":1,"result":{"subscribed":["a"]}}'

    async def test_with_on_message_it_is_the_applications(self, hub: fanwire.Hub) -> None:
        hub.on_message(lambda client, data: client.send(f"got {data}"))
        async with hub.serve(ANY) as serving, connected(serving.address) as peer:
            await peer.send('{"action":"subscribe"}')
            assert await peer.receive() == 'got {"action":"subscribe"}'

    @pytest.mark.parametrize("path", ["/ws", "/events"])
    async def test_channels_in_the_query_is_told_what_it_is_called(self, hub: fanwire.Hub, path: str) -> None:
        async with hub.serve(ANY) as serving:
            host, _, port = serving.address.rpartition(":")

            def ask() -> str:
                upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                head = f"GET {path}?channels=a,b HTTP/1.1\r\nHost: x\r\n{upgrade if path == '/ws' else ''}\r\n"
                with socket.create_connection((host, int(port)), timeout=100) as stream:
                    stream.sendall(head.encode())
                    return stream.makefile().read()

            answer = await run_sync(ask)
            assert answer.startswith("HTTP/1.1 400 ") and "?channel=a&channel=b" in answer


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("unix:{folder}/none/hub", r"there is no folder {folder}/none \(errno 2\)"),
        ("none.invalid:80", "cannot listen on none.invalid:80: failed to lookup address information: [^(]*$"),
        ("192.0.2.1:80", r"Cannot assign requested address \(errno 99\)"),
        ("fd:999999", "cannot listen on fd:999999: descriptor 999999 is not open"),
        ("fd:{pipe}", "descriptor {pipe} is no socket"),
        ("fd:{datagrams}", "descriptor {datagrams} is no stream socket"),
        ("fd:{idle}", "descriptor {idle} does not listen"),
        ("systemd", "no socket was handed to this process: LISTEN_FDS is '' and LISTEN_PID ''"),
    ],
)
async def test_why_an_address_cannot_be_had_is_said(hub: fanwire.Hub, tmp_path: Path, address: str, says: str) -> None:
    with (
        socket.socket() as idle,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        (tmp_path / "file").open("w") as file,
    ):
        known = {
            "folder": tmp_path,
            "pipe": file.fileno(),
            "idle": idle.fileno(),
            "datagrams": datagrams.fileno(),
        }
        with pytest.raises(fanwire.ListenFailed, match=says.format(**known)):
            await hub.start(address.format(**known))


@contextmanager
def listening(*places: tuple[socket.AddressFamily, object]) -> Iterator[list[socket.socket]]:
    """Sockets that listen, as another program hands them on."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket(family)) for family, _ in places]
        for each, (_, place) in zip(made, places, strict=True):
            each.bind(place)  # type: ignore[arg-type]
            each.listen(64)
        yield made


@pytest.mark.parametrize("shards", [1, 2])
async def test_inherited_sockets_are_served_by_all_who_have_them_and_ended_by_nobody(
    tmp_path: Path, shards: int
) -> None:
    first, second = fanwire.Hub(drain_timeout=0), fanwire.Hub(drain_timeout=0)
    with listening((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(tmp_path / "hub"))) as (one, other):
        address = f"fd:{one.fileno()},{other.fileno()}"
        serving = await first.start(address, shards=shards)
        port = serving.address.partition(",")[0]
        assert serving.address == f"127.0.0.1:{one.getsockname()[1]},unix:{tmp_path / 'hub'}"
        await second.start(address, shards=shards)

        def connect(count: int) -> ExitStack:
            """Clients that come one after another, and one more at the path."""
            stack = ExitStack()
            for _ in range(count):
                stack.enter_context(upgraded(port))
            at_path = stack.enter_context(socket.socket(socket.AF_UNIX))
            at_path.connect(str(tmp_path / "hub"))
            at_path.sendall(request_text())
            assert read_head(at_path).startswith("HTTP/1.1 101 ")
            return stack

        def totals() -> tuple[int, int]:
            return first.stats().connections_total, second.stats().connections_total

        while not all(totals()):  # on a busy machine a shard may not have come to listen yet
            (await run_sync(connect, 1)).close()
        before = totals()
        with await run_sync(connect, 40):
            assert sum(totals()) == sum(before) + 41  # to whom each goes is the kernel's affair
            await first.stop()
            before = (0, second.stats().connections_total)
            with await run_sync(connect, 10):
                assert second.stats().connections_total == before[1] + 11
            await second.stop()
        with await run_sync(open_socket, port) as waiting:  # nobody serves, and nobody is refused
            waiting.sendall(request_text())
            async with first.serve(address, shards=shards):
                assert (await run_sync(read_head, waiting)).startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_connection_of_which_only_somebody_else_was_told_is_taken(hub: fanwire.Hub) -> None:
    """The kernel wakes one of those who wait, which may be gone, or be stopped, before it has taken the connection."""
    with listening((socket.AF_INET, ("127.0.0.1", 0))) as (one,), select.epoll() as other:
        other.register(one.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        async with anyio.create_task_group() as tasks:
            told: list[object] = []
            tasks.start_soon(lambda: run_sync(lambda: told.extend(other.poll(8))))
            serving = await hub.start(f"fd:{one.fileno()}")
            while not told:  # it may not have waited yet
                with await run_sync(upgraded, serving.address):
                    pass
        await hub.stop()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_was_taken_before_a_drain_is_answered_where_others_go_on_with_the_port(hub: fanwire.Hub) -> None:
    with listening((socket.AF_INET, ("127.0.0.1", 0))) as (one,):
        serving = await hub.start(f"fd:{one.fileno()}", handshake_timeout=4)
        address = serving.address
        with (
            await run_sync(upgraded, address) as connected_client,
            await run_sync(open_socket, address) as late,
            await run_sync(open_socket, address) as silent,
        ):
            await until(lambda: hub.stats().connections == 3)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.stop)
                assert await run_sync(read_close, connected_client) == (1001, "")
                connected_client.close()
                late.sendall(request_text())
                assert (await run_sync(read_head, late)).startswith("HTTP/1.1 101 ")
                assert await run_sync(read_close, late) == (1001, "")
                late.close()
                assert await run_sync(silent.recv, 1) == b""


async def test_run_in_another_thread_raises_what_its_caller_can_see(hub: fanwire.Hub, tmp_path: Path) -> None:
    with pytest.raises(fanwire.ListenFailed):
        await run_sync(hub.run, f"unix:{tmp_path}/none/hub")
