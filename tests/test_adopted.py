"""What the engine does with a connection that Python reads and frames for; its order is tested in Rust."""

import array
import gc
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fanwire import errors
from fanwire._engine import Adopted, Drained, Engine, Released, Settings
from support.descriptors import sockets

PATIENCE_S = 60.0
CLOSE = b"\x88\x02\x03\xe8"


def frame(text: bytes) -> bytes:
    """A short text frame as a server sends it."""
    return bytes([0x81, len(text)]) + text


@contextmanager
def running() -> Iterator[Engine]:
    engine = Engine(Settings(shards=1))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The framework's end of a connection, and its client's."""
    framework, client = socket.socketpair()
    client.settimeout(PATIENCE_S)
    with framework, client:
        yield framework, client


def take(client: socket.socket, expected: bytes) -> None:
    got = b""
    while len(got) < len(expected) and (more := client.recv(len(expected) - len(got))):
        got += more
    assert got == expected


def await_event(engine: Engine, kind: type[Drained] | type[Released]) -> Drained | Released:
    while True:
        readable, _, _ = select.select([engine.event_fd], [], [], PATIENCE_S)
        assert readable, "nothing was told"
        for event in engine.take_events():
            if isinstance(event, kind):
                return event


def await_released(engine: Engine, adopted: Adopted) -> tuple[str, int, str]:
    event = await_event(engine, Released)
    assert isinstance(event, Released)
    assert (event.connection, event.owner) == (adopted.connection, 0)
    return event.why, event.code, event.reason


def test_what_is_written_and_published_comes_in_the_order_of_the_calls() -> None:
    with running() as engine, pair() as (framework, client):
        adopted = engine.adopt(framework.fileno())
        adopted.subscribe("odds")
        framework.sendall(b"the framework's")
        adopted.begin()
        adopted.write(frame(b"one"))
        engine.publish("odds", "two", deferred=True)
        adopted.write(bytearray(frame(b"three")), wakes=False)
        engine.publish("odds", {"n": 4})
        assert adopted.write(memoryview(frame(b"five"))) is not None
        adopted.unsubscribe("odds")
        engine.publish("odds", "six")
        adopted.write(CLOSE, wakes=False)
        engine.flush()
        frames = [frame(text) for text in (b"one", b"two", b"three", b'{"n":4}', b"five")]
        take(client, b"the framework's" + b"".join(frames) + CLOSE)
        adopted.release()
        assert await_released(engine, adopted) == ("released", 0, "")
        assert adopted.write(b"late") is None
        assert adopted.waiting == 0
        framework.sendall(b"its own again")
        take(client, b"its own again")


def test_objects_go_out_as_messagepack_where_that_was_asked_for() -> None:
    with running() as engine, pair() as (framework, client):
        adopted = engine.adopt(framework.fileno(), msgpack=True)
        adopted.subscribe("odds")
        adopted.begin()
        engine.publish("odds", {"n": 4})
        take(client, b"\x82\x04\x81\xa1n\x04")


def test_who_waits_is_told_once_and_who_is_closed_learns_code_and_reason() -> None:
    with running() as engine, pair() as (framework, client):
        adopted = engine.adopt(framework.fileno())
        adopted.write(frame(b"held"))
        adopted.notify(0)
        assert adopted.waiting == len(frame(b"held"))
        adopted.begin()
        take(client, frame(b"held"))
        event = await_event(engine, Drained)
        assert (event.connection, event.owner) == (adopted.connection, 0)
        engine.disconnect(adopted.connection, 4001, "bye")
        assert await_released(engine, adopted) == ("closed", 4001, "bye")
        take(client, b"\x88\x05\x0f\xa1bye")


def test_a_peer_that_leaves_and_one_that_is_aborted_are_told_apart() -> None:
    with running() as engine, pair() as (framework, client), pair() as (other, peer):
        adopted = engine.adopt(framework.fileno())
        adopted.begin()
        client.shutdown(socket.SHUT_WR)
        assert await_released(engine, adopted) == ("ended", 0, "")
        adopted = engine.adopt(other.fileno())
        adopted.abort()
        assert await_released(engine, adopted) == ("aborted", 0, "")
        assert peer.recv(1) == b"", "it was shut down"


def test_one_that_is_forgotten_is_given_up_and_stays_the_frameworks() -> None:
    with running() as engine, pair() as (framework, client):
        before = sockets()
        adopted = engine.adopt(framework.fileno())
        adopted.begin()
        del adopted
        gc.collect()
        event = await_event(engine, Released)
        assert isinstance(event, Released)
        assert event.why == "aborted"
        assert sockets() == before
        framework.sendall(b"still there")
        take(client, b"still there")


def test_what_is_no_stream_socket_and_no_bytes_is_an_error_that_says_so() -> None:
    with running() as engine, pair() as (framework, _):
        with pytest.raises(OSError, match="descriptor -1 cannot be adopted"):
            engine.adopt(-1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(OSError, match="adopted"):
            engine.adopt(datagrams.fileno())
        adopted = engine.adopt(framework.fileno())
        for data in ("text", {"an": "object"}, None):
            with pytest.raises(TypeError, match="data must be bytes"):
                adopted.write(data)  # type: ignore[arg-type]
        assert adopted.write(array.array("B", frame(b"a buffer"))) == len(frame(b"a buffer"))  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidChannel):
            adopted.subscribe("")
        with pytest.raises(ValueError, match="start"):
            adopted.subscribe("odds", start="nowhere")


def test_after_the_engines_end_and_in_a_fork_it_refuses() -> None:
    engine = Engine(Settings(shards=1))
    engine.start()
    with pair() as (framework, client):
        adopted = engine.adopt(framework.fileno())
        adopted.begin()
        child = os.fork()
        if child == 0:
            try:
                adopted.write(b"from the child")
            except errors.HubStopped:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        engine.stop()
        for call in (adopted.begin, adopted.release, adopted.abort, lambda: adopted.write(b"late")):
            with pytest.raises(errors.HubStopped):
                call()
        framework.sendall(b"still there")
        take(client, b"still there")
