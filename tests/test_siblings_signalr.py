"""SignalR and a relay where another server starts the processes, whose hubs are one: ``Hub(workers="unix:PATH")``."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.raw import frame, free_port, read_frame
from support.scripted_backend import ScriptedBackend
from support.several import Client
from support.signalr_lines import END, HANDSHAKE, Line, Polled, close_lines, lines, turned
from support.waiting import until_in_thread
from support.workers import Program, started
from test_workers_relay import until_one_watches

pytest.importorskip("fastapi")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
COUNT = 3
PATIENCE_S = 80.0
SERVERS = {
    "uvicorn": "uvicorn site_of:app --workers {count} --port {port} --timeout-keep-alive 60",
    "hypercorn": "hypercorn site_of:app --workers {count} --bind 127.0.0.1:{port} --keep-alive 60",
    "gunicorn": "gunicorn site_of:app -w {count} -b 127.0.0.1:{port} -k uvicorn_worker.UvicornWorker --keep-alive 60",
    "granian": "granian site_of:app --interface asgi --workers {count} --port {port}",
}
SITE = """
import logging, os, sys
import fanwire
from fanwire.relay.config import CallShare, Lanes, RelayConfig
from fastapi import FastAPI

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
hub = fanwire.Hub(
    workers="unix:" + os.environ["MEET_AT"], channels={"*": fanwire.Channel(history=100)},
    signalr_disconnect_timeout=60.0, drain_timeout=0.5,
)
if "BACKEND" in os.environ:
    lanes = Lanes(backoff_min=0.05, backoff_max=0.1, on_gap="message")
    share = CallShare(subscribe="Watch", unsubscribe="Unwatch", snapshot="Snapshot")
    hub.relay(RelayConfig(
        path="/live", upstream=(os.environ["BACKEND"],), admit="anyone", share=(share,), lanes=lanes, linger=0.2
    ))

@hub.method
def process(client):
    return os.getpid()

@hub.method
def size(client, text):
    return len(text)

@hub.method
def watch(client, channel):
    client.subscribe(channel, start="history")
    return True

@hub.method
async def tell(client, channel, text):
    await hub.publish(channel, text)

app = FastAPI(lifespan=hub.lifespan)

@app.get("/lanes")
async def lanes():
    found = {
        number: [[lane.state, lane.worker, lane.clients] for one in relays for lane in one.lanes]
        for number, relays in (await hub.relay_stats_of_all()).items()
    }
    return [os.getpid(), found]

app.mount("/", hub.asgi())
"""


class Site(Program):
    """Processes that serve one port."""

    port = 0
    patience_s = PATIENCE_S

    @property
    def address(self) -> str:
        """Where they do."""
        return f"127.0.0.1:{self.port}"

    def lanes(self) -> tuple[int, dict[int, list[Any]]]:
        """The process that answers, and by the number of each: the state, the holder and the clients of its lanes."""
        process, found = httpx.get(f"http://{self.address}/lanes").json()
        return process, {int(number): lanes for number, lanes in found.items()}

    def is_one(self) -> bool:
        """Whether all are there, and know of each other."""
        assert self.process.poll() is None, self.lines
        with suppress(httpx.TransportError, ValueError):
            return len(self.lanes()[1]) == COUNT
        return False

    def process_of(self, number: int) -> int:
        """That of a number."""
        line = next(line for line in lines(self.address, COUNT) if line.worker == number)
        line.send("GET", "/lanes")
        return int(json.loads(line.answer().body)[0])


@contextmanager
def site(folder: Path, server: str = "uvicorn", **environment: str) -> Iterator[Site]:
    """Three processes of a server, each with a hub."""
    needed = {"gunicorn": ("gunicorn", "uvicorn_worker")}.get(server, (server,))
    if missing := [name for name in needed if find_spec(name) is None]:
        pytest.skip(f"there is no {missing[0]}")
    (folder / "site_of.py").write_text(SITE)
    variables = {"MEET_AT": str(folder / "meet"), **environment}
    os.environ.update(variables)
    try:
        port = free_port()
        command = [sys.executable, "-W", "ignore", "-m", *SERVERS[server].format(count=COUNT, port=port).split()]
        running = Site(started(command, folder, start_new_session=True))
        running.port = port
    finally:
        for name in variables:
            del os.environ[name]
    try:
        try:
            until_in_thread(running.is_one, PATIENCE_S)
        except TimeoutError as error:
            raise AssertionError(running.lines) from error
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(60)
        with suppress(ProcessLookupError):  # what a supervisor that died has left
            os.killpg(running.process.pid, signal.SIGKILL)
        running.end()


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three processes of each server."""
    with site(tmp_path_factory.mktemp("s"), request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No connection is left."""
    yield
    close_lines()


@pytest.fixture
def ways(served: Site) -> list[Line]:
    """A connection to each process."""
    return lines(served.address, COUNT)


@pytest.mark.parametrize("home", range(COUNT))
def test_negotiated_in_one_process_polled_and_posted_in_others(ways: list[Line], home: int) -> None:
    ring = turned(ways, home)
    client = Polled(ring[0].negotiate())
    client.begin(ring[1], ring[2], ring[0])
    processes = {client.call([ring[turn], ring[turn - 1]], "process") for turn in range(COUNT)}
    assert len(processes) == 1, "the first transport stays where it lands"
    assert client.call([ring[2], ring[0]], "size", "x" * 20_000) == 20_000
    assert ring[0].ask("DELETE", client.target).status == 202
    assert ring[2].ask("POST", client.target, b"{}").status == 404


def test_a_websocket_goes_to_the_process_that_has_its_client(ways: list[Line]) -> None:
    token = ways[0].negotiate("&useStatefulReconnect=true")
    more = "&useStatefulReconnect=true"
    assert ways[1].upgrade(token, more).startswith("HTTP/1.1 101 ")
    say(ways[1], {"protocol": "json", "version": 2})
    assert heard(ways[1]) == [{}]
    say(ways[1], {"type": 1, "invocationId": "1", "target": "process", "arguments": []})
    (first,) = heard(ways[1])
    ways[1].close()
    # Its client comes back: with another process than has it.
    assert ways[2].upgrade(token, more).startswith("HTTP/1.1 101 ")
    say(ways[2], {"type": 9, "sequenceId": 2})
    say(ways[2], {"type": 1, "invocationId": "2", "target": "process", "arguments": []})
    told: list[dict[str, Any]] = []
    while not (again := [one for one in told if one.get("invocationId") == "2"]):
        told += heard(ways[2])
    assert again[0]["result"] == first["result"]


def test_an_event_stream_and_posts_that_come_elsewhere(ways: list[Line]) -> None:
    target = f"/signalr?id={ways[0].negotiate()}"
    ways[1].send("GET", target, accept="text/event-stream")
    assert ways[1].head().startswith("HTTP/1.1 200 ")
    assert ways[2].ask("POST", target, HANDSHAKE).status == 200
    received = b""
    for line in (ways[0], ways[2]):
        call = {"type": 1, "invocationId": f"at {line.worker}", "target": "size", "arguments": ["abc"]}
        assert line.ask("POST", target, json.dumps(call).encode() + END).status == 200
        while f'"at {line.worker}","result":3'.encode() not in received:
            received += ways[1].some()


def test_what_one_process_publishes_reaches_a_client_that_polls_through_others(ways: list[Line]) -> None:
    clients = []
    for home in range(COUNT):
        client = Polled(ways[home].negotiate())
        client.begin(ways[home])
        assert client.call([ways[home - 1]], "watch", "goals") is True
        clients.append(client)
    assert clients[0].call([ways[1]], "size", "x") == 1
    post = {"type": 1, "target": "tell", "arguments": ["goals", "1:0"]}
    clients[2].post(ways[0], json.dumps(post).encode() + END)
    for home, client in enumerate(clients):
        assert [one["arguments"][-1] for one in client.poll(ways[home - 2])] == ["1:0"]


def test_a_killed_process_takes_its_own_clients_with_it(tmp_path: Path) -> None:
    with site(tmp_path) as running:
        ways = lines(running.address, COUNT)
        theirs, stays = Polled(ways[2].negotiate()), Polled(ways[0].negotiate())
        theirs.begin(ways[0], ways[1])
        stays.begin(ways[1], ways[2])
        os.kill(theirs.call([ways[1], ways[2]], "process"), signal.SIGKILL)
        until_in_thread(lambda: ways[1].ask("POST", theirs.target, HANDSHAKE).status == 404, PATIENCE_S)
        assert stays.call([ways[2], ways[2]], "size", "x") == 1
        # uvicorn starts another.
        until_in_thread(running.is_one, PATIENCE_S)
        again = Polled(lines(running.address, COUNT)[-1].negotiate())
        again.begin(*lines(running.address, COUNT))
        assert stays.call(lines(running.address, COUNT), "size", "xy") == 2


def test_a_lane_is_held_once_and_goes_to_another_process_when_its_own_is_killed(tmp_path: Path) -> None:
    clients: list[Client] = []
    with ScriptedBackend() as backend, site(tmp_path, BACKEND=f"http://{backend.address}/live") as running:
        try:
            watch_and_lose_the_holder(running, backend, clients)
        finally:
            for client in clients:
                client.connection.close_socket()


def watch_and_lose_the_holder(running: Site, backend: ScriptedBackend, clients: list[Client]) -> None:
    found: dict[int, list[Any]] = {}

    def all_have_some() -> bool:
        if len(clients) < 60:
            client = Client(running.address)
            clients.append(client)
            client.call("Watch", "m")
            assert client.answer().get("error") is None, client.messages
        found.clear()
        found.update(running.lanes()[1])
        if len(found) < COUNT or not all(lanes and lanes[0][2] > 1 for lanes in found.values()):
            return False
        return sorted(lanes[0][0] for lanes in found.values()) == ["live", "mirrored", "mirrored"]

    until_in_thread(all_have_some, PATIENCE_S)
    assert len(backend.watching("m")) == 1
    odds(backend, *range(20))
    all_get(clients, list(range(20)))
    (holder,) = {lanes[0][1] for lanes in found.values()}
    before = backend.watching("m")
    os.kill(running.process_of(holder), signal.SIGKILL)
    until_in_thread(lambda: all(not client.is_open or client.of("fanwire:gap") for client in clients), PATIENCE_S)
    stay = [client for client in clients if client.is_open]
    assert 0 < len(stay) < len(clients)
    until_one_watches(backend, before)
    odds(backend, 20)
    all_get(stay, list(range(21)))


def odds(backend: ScriptedBackend, *numbers: int) -> None:
    """To who watches."""
    for session in backend.watching("m"):
        session.say(*({"type": 1, "target": "Odds", "arguments": [number]} for number in numbers))


def all_get(clients: list[Client], expected: list[int]) -> None:
    """Each these, in this order, once."""
    for client in clients:
        until_in_thread(lambda client=client: client.of("Odds")[-1:] == expected[-1:], PATIENCE_S)  # type: ignore[misc]
        assert client.of("Odds") == expected


def say(line: Line, *messages: object) -> None:
    """Messages of a WebSocket's client."""
    for message in messages:
        line.socket.sendall(frame(1, json.dumps(message).encode() + END))


def heard(line: Line) -> list[dict[str, Any]]:
    """Of one frame, pings left out."""
    while True:
        received = read_frame(line.socket)
        assert received.opcode == 1, received
        records = [json.loads(record) for record in received.payload.split(END)[:-1]]
        if told := [record for record in records if record != {"type": 6}]:
            return told
