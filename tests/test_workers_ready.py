"""What `/readyz` says of several workers while some of them drain: a balancer that asks one asks for all."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import socket

import pytest
from support.raw import open_socket, read_close, read_head, request_text
from support.waiting import until_in_thread
from support.workers import Program, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
WORKERS = 2
PROGRAM = """
import logging, sys
import fanwire

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
hub = fanwire.Hub(drain_timeout=60, handshake_timeout=60)
hub.run("127.0.0.1:0", workers=2)
"""


class Taken:
    """Connections that the workers have taken, before they drain: whoever keeps some has such."""

    def __init__(self, address: str) -> None:
        self.silent = [open_socket(address) for _ in range(24)]
        # These answer no Close frame, so that their workers drain for as long as they may.
        self.opened = [open_socket(address) for _ in range(12)]
        for one in self.opened:
            one.sendall(request_text())
            assert read_head(one).startswith("HTTP/1.1 101 ")

    def ready(self) -> tuple[str, str]:
        """What `/readyz` says on the next one, and what becomes of the connection: one that is kept is asked again."""
        assert self.silent, "all that the workers had taken are closed"
        one = self.silent.pop(0)
        said = readyz(one)
        if said[1] == "kept":
            self.silent.append(one)
        else:
            one.close()
        return said

    def close(self) -> None:
        """All of them."""
        for one in self.silent + self.opened:
            one.close()


def readyz(one: socket) -> tuple[str, str]:
    """Its status, and what it says of the connection."""
    one.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    head = read_head(one).lower()
    return head.split()[1], "close" if "\r\nconnection: close" in head else "kept"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Program]:
    """Two workers."""
    with serving(tmp_path, PROGRAM) as running:
        yield running


def test_a_worker_that_drains_is_ready_while_others_serve(running: Program) -> None:
    with closing(Taken(running.address)) as taken:
        assert taken.ready() == ("200", "kept")
        running.process.send_signal(signal.SIGUSR2)  # it waits for the first worker, which waits for its clients
        running.until("serving on .* with uring|serving on .* with epoll", WORKERS + 1)
        said: set[tuple[str, str]] = set()
        until_in_thread(lambda: said.add(taken.ready()) or ("200", "close") in said)
        assert said <= {("200", "kept"), ("200", "close")}
        with closing(open_socket(running.address)) as one:
            assert readyz(one) == ("200", "kept"), "who comes is taken by those that serve"


def test_workers_that_all_drain_are_not_ready(running: Program) -> None:
    with closing(Taken(running.address)) as taken:
        running.process.send_signal(signal.SIGTERM)
        for one in taken.opened:
            assert read_close(one)[0] == 1001
        until_in_thread(lambda: taken.ready() == ("503", "close"))
        assert taken.ready() == ("503", "close")
