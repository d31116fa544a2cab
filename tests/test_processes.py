"""Whole programs: signals, and descriptors that run out."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.raw import frame, open_socket, read_close, read_frame, read_head, request_text, upgraded
from support.scripted_backend import ScriptedBackend
from support.waiting import until_in_thread

pytestmark = pytest.mark.slow

SERVE = """
import logging, resource, sys
import fanwire
from fanwire.relay.config import CallShare, RelayConfig

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
soft = int(sys.argv[2])
if soft:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
hub = fanwire.Hub(poller=sys.argv[1])
if sys.argv[3]:
    hub.relay(RelayConfig(path="/live", upstream=(sys.argv[3],), admit="anyone", share=(CallShare(subscribe="Watch"),)))

@hub.method
def pauses(client):
    return hub.stats().accept_pauses

hub.run("127.0.0.1:0")
print("ended", flush=True)
"""


@contextmanager
def program(poller: str, descriptors: int = 0, upstream: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program that runs a hub, and its address."""
    # -u: the lines are read while it runs
    command = [sys.executable, "-u", "-c", SERVE, poller, str(descriptors), upstream]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        while line and not line.startswith("serving on "):
            line = process.stdout.readline()
        yield process, line.removeprefix("serving on ").partition(" ")[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_ends(poller: str, number: signal.Signals) -> None:
    with program(poller) as (process, address), upgraded(address) as connection:
        process.send_signal(number)
        assert read_close(connection)[0] == 1001
        connection.close()
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stdout.read().endswith("ended\n")


def test_a_second_signal_does_not_wait(poller: str) -> None:
    with program(poller) as (process, address), upgraded(address) as connection:
        process.send_signal(signal.SIGTERM)
        read_close(connection)  # it drains, and we do not answer
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_without_descriptors_accepting_pauses_and_then_goes_on(poller: str) -> None:
    with program(poller, descriptors=64) as (process, address), upgraded(address) as first:
        held = []
        for _ in range(80):  # more than it may have open; the rest waits in the kernel
            connection = open_socket(address)
            connection.sendall(request_text())
            held.append(connection)
        assert pauses(first) > 0
        assert process.poll() is None
        for connection in held[:70]:
            connection.close()
        assert "101" in read_head(held[-1])
        for connection in held[70:]:
            connection.close()


def test_clients_leave_descriptors_for_connections_to_backends(poller: str) -> None:
    with (
        ScriptedBackend() as backend,
        program(poller, 100, f"http://{backend.address}/live") as (_, address),
        upgraded(address, "/live") as client,
        upgraded(address) as other,
    ):
        client.sendall(frame(1, b'{"protocol":"json","version":1}\x1e'))
        assert read_frame(client).payload == b"{}\x1e"
        held = [open_socket(address) for _ in range(120)]  # the rest waits in the kernel
        assert pauses(other) > 0
        client.sendall(frame(1, b'{"type":1,"invocationId":"1","target":"Watch","arguments":["m"]}\x1e'))
        answers = b""
        while b'"type":3' not in answers:
            answers += read_frame(client).payload
        assert b"error" not in answers
        for connection in held[:60]:
            connection.close()
        for connection in held[60:]:  # none was taken only to be closed
            connection.sendall(request_text())
            assert "101" in read_head(connection)
            connection.close()


def pauses(connection: object) -> int:
    """How often accepting paused, asked of the program until it is more than never."""
    found = 0

    def ask() -> bool:
        nonlocal found
        connection.sendall(frame(1, b'{"call":"pauses","id":1}'))  # type: ignore[attr-defined]
        found = json.loads(read_frame(connection).payload)["result"]  # type: ignore[arg-type]
        return found > 0

    until_in_thread(ask)
    return found


def test_no_thread_of_python_is_left_by_importing() -> None:
    code = "import fanwire, threading; print(threading.active_count())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "1\n"
    assert threading.active_count() >= 1
    assert Path("/proc/self/task").is_dir()
