"""The admin side of several workers: whichever is asked answers for all, and a worker that dies ends no list."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fanwire.cli.instance import Instance, NotAnswered
from support.raw import open_socket, read_head
from support.waiting import until_in_thread
from support.workers import Program, runtime_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PROGRAM = """
import logging, sys
import fanwire
from fanwire.admin import AdminConfig

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
hub = fanwire.Hub(channels={"kept": fanwire.Channel(history=100)}, admin=AdminConfig(listen="127.0.0.1:0"))
hub.run("127.0.0.1:0", workers=2, drain_timeout=0.5)
"""
CLIENTS = 24


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with serving(tmp_path, PROGRAM) as program:
        assert program.address
        yield program


@pytest.fixture
def instance(program: Program, tmp_path: Path) -> Instance:
    """By its local socket, which nothing but the folder tells."""
    return Instance(None, {"XDG_RUNTIME_DIR": runtime_of(tmp_path)})


def stream(address: str, channel: str) -> socket.socket:
    connection = open_socket(address)
    connection.sendall(f"GET /events?channel={channel} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    read_head(connection)
    return connection


def crowd(stack: ExitStack, program: Program, instance: Instance) -> list[socket.socket]:
    """Clients, of each of the two workers some."""
    streams = [stack.enter_context(stream(program.address, f"c{number}")) for number in range(CLIENTS)]

    def are_in_both() -> bool:
        rows = instance.get("/api/workers")["workers"]
        if len(rows) == 2 and all(row["connections"] for row in rows):
            return sum(row["connections"] for row in rows) == len(streams)
        streams.append(stack.enter_context(stream(program.address, "more")))
        return False

    until_in_thread(are_in_both, 60)
    return streams


def paged(instance: Instance, path: str, key: str, limit: int, **query: Any) -> Iterator[list[dict[str, Any]]]:
    after = None
    while True:
        page = instance.get(path, limit=limit, after=after, **query)
        yield page[key]
        after = page["next"]
        if after is None:
            return


def test_lists_and_numbers_are_of_both_and_each_client_is_reached(program: Program, instance: Instance) -> None:
    with ExitStack() as stack:
        streams = crowd(stack, program, instance)
        rows = [row for page in paged(instance, "/api/clients", "clients", 5) for row in page]
        assert len(rows) == len({row["client"] for row in rows}) == len(streams)
        assert {row["worker"] for row in rows} == {row["worker"] for row in instance.get("/api/workers")["workers"]}
        stats = instance.get("/api/stats")
        assert stats["connections"] == len(streams) and len(stats["workers"]) == 2 and stats["silent"] == []
        for row in rows:
            assert instance.get("/api/client", client=row["client"])["address"] == row["address"]
            instance.post("/api/subscribe", {"client": row["client"], "channel": "all"})
        until_in_thread(lambda: instance.get("/api/channel", channel="all")["subscribers"] == len(streams))
        (row,) = (one for one in instance.rows("/api/channels", "channels", 0) if one["channel"] == "all")
        assert (row["subscribers"], len(row["workers"])) == (len(streams), 2)
        names = [one["channel"] for page in paged(instance, "/api/channels", "channels", 3) for one in page]
        assert len(names) == len(set(names)) and set(names) >= {f"c{number}" for number in range(CLIENTS)}
        top = instance.get("/api/channels", sort="subscribers", limit=1)["channels"]
        assert [one["channel"] for one in top] == ["all"]
        instance.post("/api/publish", {"channel": "all", "data": "to all"})
        for connection in streams:
            came = b""
            while b"data: to all" not in came:
                came += connection.recv(65_536)
        for row in rows:
            assert instance.post("/api/disconnect", {"client": row["client"]}) == {"closed": 1}
        until_in_thread(lambda: instance.get("/api/stats")["connections"] == 0, 60)


def test_a_repetition_is_one_whichever_worker_it_comes_to(program: Program, instance: Instance) -> None:
    connection = instance._connection(60)
    positions = set()
    for _ in range(16):
        connection = instance._connection(60)
        headers = {"Content-Type": "application/json", "Idempotency-Key": "one"}
        connection.request("POST", "/api/publish", json.dumps({"channel": "kept", "data": 1}), headers)
        positions.add(json.loads(connection.getresponse().read())["position"])
        connection.close()
    assert len(positions) == 1


def test_a_worker_that_dies_while_a_list_is_paged_ends_no_list(program: Program, instance: Instance) -> None:
    with ExitStack() as stack:
        streams = crowd(stack, program, instance)
        workers = {row["worker"]: row["process"] for row in instance.get("/api/workers")["workers"]}
        pages = paged(instance, "/api/clients", "clients", 3)
        rows = list(next(pages))
        lost = max(workers)
        os.kill(workers[lost], signal.SIGKILL)
        program.until(f"worker {lost} .*(killed|ended|SIGKILL)")
        attempts = 0
        while True:
            try:
                rows += [row for page in pages for row in page]
                break
            except NotAnswered:  # the killed one had been asked, and had it in its hands
                attempts += 1
                assert attempts < 3
                pages = paged(instance, "/api/clients", "clients", 3)
                rows = []
        stayed = [row for row in rows if row["worker"] == min(workers)]
        assert len({row["client"] for row in stayed}) == len(stayed) > 0
        assert len(stayed) < len(streams)
        until_in_thread(lambda: len(instance.get("/api/workers")["workers"]) == 2, 60)


def test_the_shell_needs_to_be_told_where_several_run(program: Program, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    environment = {"XDG_RUNTIME_DIR": runtime_of(tmp_path)}
    address = program.until("^the admin side is at").split()[-3]
    assert Instance(address, environment).get("/api/stats")["workers"]
    process = str(program.process.pid)
    assert Instance(process, environment).address.startswith("unix:")
    with pytest.raises(NotAnswered, match="no hub of yours"):
        Instance(None, {"XDG_RUNTIME_DIR": str(other), "RUNTIME_DIRECTORY": ""} | {"TMPDIR": str(other)})
