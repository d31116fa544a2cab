"""What `/readyz` says of several workers while some of them drain: a balancer that asks one asks for all."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from select import select
from socket import socket

import pytest
from support.descriptors import children, takers
from support.raw import open_socket, read_close, read_head, request_text
from support.waiting import until_in_thread
from support.workers import Program, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
WORKERS = 2
TAKEN_MAX = 512
PROGRAM = """
import logging, sys
import fanwire
from fanwire.relay.readiness import Readiness

def hear(self, worker, message, heard=Readiness._hear_of_drain):
    heard(self, worker, message)
    logging.info(f"has heard that worker {worker} drains")

Readiness._hear_of_drain = hear
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
hub = fanwire.Hub(drain_timeout=60, handshake_timeout=60)
hub.run("127.0.0.1:0", workers=2)
"""


class Taken:
    """Connections that the workers have taken, before they drain: each worker has some of either kind."""

    def __init__(self, running: Program) -> None:
        self._running = running
        self.silent: list[socket] = []
        self.opened: list[socket] = []
        # By either: which process has taken it.
        self.by: dict[socket, int] = {}
        until_in_thread(self._take)

    def _take(self) -> bool:
        """A few more, where the kernel has not given some to each."""
        address = self._running.address
        assert len(self.by) < TAKEN_MAX, "one worker takes all"
        self.silent += [open_socket(address) for _ in range(8)]
        # These answer no Close frame, so that their workers drain for as long as they may.
        self.opened += [open_socket(address) for _ in range(4)]
        for one in self.opened[-4:]:
            one.sendall(request_text())
            assert read_head(one).startswith("HTTP/1.1 101 ")
        until_in_thread(self._have_all)
        return all(len({self.by[one] for one in kind}) == WORKERS for kind in (self.silent, self.opened))

    def _have_all(self) -> bool:
        port = int(self._running.address.rpartition(":")[2])
        by = takers(port, children(self._running.process.pid))
        self.by = {one: by.get(one.getsockname()[1], 0) for one in self.silent + self.opened}
        return all(self.by.values())

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
    with closing(Taken(running)) as taken:
        running.process.send_signal(signal.SIGUSR2)  # it waits for the first worker, which waits for its clients
        left, _, _ = select(taken.opened, [], [], running.patience_s)
        assert left and read_close(left[0])[0] == 1001
        drains = taken.by[left[0]]
        for one in taken.silent:
            assert readyz(one) == ("200", "close" if taken.by[one] == drains else "kept")
        with closing(open_socket(running.address)) as one:
            assert readyz(one) == ("200", "kept"), "who comes is taken by those that serve"


def test_workers_that_all_drain_are_not_ready(running: Program) -> None:
    with closing(Taken(running)) as taken:
        running.process.send_signal(signal.SIGTERM)
        for one in taken.opened:
            assert read_close(one)[0] == 1001
        # Until then a worker may take the other for one that serves.
        running.until("has heard that worker . drains", WORKERS)
        for one in taken.silent:
            assert readyz(one) == ("503", "close")
