"""A hub that listens nowhere: it serves all the same, and whoever comes is handed in as a socket."""

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire._engine import Engine, Settings
from support.descriptors import all_listening_inodes, held_inodes
from support.hubs import MakeHub
from support.raw import read_head, request_text
from support.waiting import until
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.anyio


def hand_in(engine: Engine, client: str = "") -> socket.socket:
    """Our end of a pair, whose other end `engine` has."""
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    engine.welcome(theirs.fileno(), client)
    theirs.detach()
    return ours


@contextmanager
def client_of(hub: fanwire.Hub, target: str, client: str = "") -> Iterator[ClientConnection]:
    """A stock client without a port."""
    engine = hub._link.require()
    with connect(f"ws://localhost{target}", sock=hand_in(engine, client), proxy=None) as peer:
        yield peer


async def test_without_an_address_nothing_listens_and_all_else_is_as_ever(make_hub: MakeHub) -> None:
    hub = make_hub({"room": fanwire.Channel(presence=True)})
    seen: list[str] = []

    @hub.authenticate
    def who(request: fanwire.Request) -> str:
        seen.append(request.peer)
        return "ann"

    @hub.method("Add")
    def add(client: fanwire.Client, one: int, other: int) -> int:
        return one + other

    before = held_inodes()
    async with hub.serve() as serving:
        assert (serving.address, serving.poller in ("epoll", "uring")) == ("", True)
        assert repr(hub).startswith("<fanwire.Hub serving without an address, 1 channel pattern")
        assert not (held_inodes() - before) & all_listening_inodes()
        async with hub.listen("room") as publications:
            hub.publish("room", {"n": 1})
            assert (await anext(aiter(publications))).data == {"n": 1}

        def talk() -> list[object]:
            with client_of(hub, "/ws?channel=room", "203.0.113.7:443") as peer:
                anyio.from_thread.run_sync(hub.publish, "room", "x")
                got: list[object] = [peer.recv(timeout=60)]
                peer.send('{"call":"Add","args":[2,3],"id":1}')
                anyio.from_thread.run(until, lambda: hub.presence("room") == ["ann"])
                return [*got, peer.recv(timeout=60)]

        assert await run_sync(talk) == ["x", '{"id":1,"result":5}']
        assert seen == ["203.0.113.7:443"]


async def test_it_is_stopped_from_any_task_and_clients_are_told(hub: fanwire.Hub) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hub.start)

    def wait_for_the_end() -> tuple[int, bytes]:
        with hand_in(hub._link.require()) as ours:
            ours.sendall(request_text("/ws?channel=a"))
            assert "101 Switching" in read_head(ours)
            anyio.from_thread.run_sync(hub.stop_soon)
            return ours.recv(1)[0], ours.recv(100)

    assert await run_sync(wait_for_the_end) == (0x88, b"\x02\x03\xe9")  # a Close frame with 1001
    await hub.stop()
    with pytest.raises(fanwire.HubStopped):
        hub.publish("a", "y")
    async with hub.serve(None):
        hub.publish("a", "z")


async def test_run_needs_an_address(hub: fanwire.Hub) -> None:
    with pytest.raises(TypeError, match="address must be HOST:PORT"):
        await run_sync(partial(hub.run, None))  # type: ignore[arg-type]
    async with hub.serve():  # and nothing was begun
        pass


async def test_a_descriptor_that_cannot_be_served_stays_the_callers() -> None:
    engine = Engine(Settings(descriptors_spare=256))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(fanwire.HubStopped):
            engine.welcome(theirs.fileno())
        engine.start()
        try:
            for fd, client, why in [
                (-1, "", "Bad file descriptor"),
                (engine.event_fd, "", "Socket operation on non-socket"),
                (theirs.fileno(), "a b", "262 bytes of visible ASCII"),
            ]:
                with pytest.raises(OSError, match=why):
                    engine.welcome(fd, client)
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            spare = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, soft - 256)
            with pytest.raises(OSError, match="Too many open files"):
                engine.welcome(spare)
            os.close(spare)  # it is still ours
            ours.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            engine.welcome(os.dup(theirs.fileno()), "unix:")
            theirs.close()
            assert "404 Not Found" in await run_sync(read_head, ours)  # no path was added
        finally:
            engine.stop()


async def test_who_is_handed_in_as_the_hub_drains_is_told(hub: fanwire.Hub) -> None:
    await hub.start(drain_timeout=60.0, close_timeout=60.0)
    engine = hub._link.require()

    def come_late() -> str:
        with hand_in(engine) as stays:
            stays.sendall(request_text())
            assert "101 Switching" in read_head(stays)
            anyio.from_thread.run_sync(hub.stop_soon)
            assert stays.recv(1)[0] == 0x88
            with hand_in(engine) as late:
                late.sendall(request_text())
                return read_head(late).splitlines()[0]

    assert await run_sync(come_late) == "HTTP/1.1 503 Service Unavailable"
    await until(lambda: not engine.stats().connections)
    await hub.stop()
