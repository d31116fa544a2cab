"""Behind the proxies of deploy/proxies as their files stand: TLS, WebSockets, event streams, quiet, restarts."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import fanwire
import httpx
import pytest
from support.proxies import HAPROXY, KINDS, NGINX, Kind, proxy
from support.raw import frame, read_frame, read_head, request_text
from support.waiting import until, until_in_thread
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(90),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate"),
]
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE
STREAMS = 12
"""Twice what a browser opens to one host over HTTP/1.1."""

PROGRAM = """
import sys
import fanwire

hub = fanwire.Hub(drain_timeout=0.5)
hub.run(sys.argv[1], workers=2)
"""


def kinds(*all: Kind) -> pytest.MarkDecorator:
    """A test for each of these, skipped where the program is missing."""
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(
                each,
                id=each.name,
                marks=pytest.mark.skipif(each.program is None, reason=f"there is no {each.name}"),
            )
            for each in all
        ],
    )


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what is tested is the wire."""
    return "asyncio"


def client(port: int) -> connect:
    """A stock WebSocket client, which watches odds."""
    return connect(f"wss://127.0.0.1:{port}/ws?channel=odds", ssl=TRUSTING, proxy=None, open_timeout=20)


@asynccontextmanager
async def browser(port: int, *, http2: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps its connections, as browsers do."""
    base = f"https://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, http2=http2, verify=False, trust_env=False, timeout=100) as http:
        yield http


async def next_event(lines: AsyncIterator[str]) -> str:
    """The data of the next event of a stream."""
    async for line in lines:
        if line.startswith("data:"):
            return line
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("over", ["unix", "tcp"])
@kinds(*KINDS)
async def test_clients_are_served_as_the_file_stands(kind: Kind, over: str, tmp_path: Path) -> None:
    hub = fanwire.Hub()
    seen: set[tuple[str | None, ...]] = set()

    @hub.authenticate
    def who(request: fanwire.Request) -> None:
        seen.add(tuple(map(request.headers.get, ("host", "x-forwarded-proto", "x-forwarded-for"))))

    address = f"unix:{tmp_path}/hub" if over == "unix" else "127.0.0.1:0"
    async with hub.serve(address, drain_timeout=0.5) as serving:
        with proxy(kind, tmp_path, serving.address) as port:
            async with client(port) as peer, browser(port) as http:
                liar = {"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "gopher"}
                async with http.stream("GET", "/events?channel=odds", headers=liar) as stream:
                    lines = stream.aiter_lines()
                    for number in range(3):  # each comes while the stream is open: nothing is held back
                        hub.publish("odds", {"home": number})
                        assert await next_event(lines) == f'data: {{"home":{number}}}'
                    assert stream.headers["content-encoding"] == "gzip"  # as fanwire has it
                negotiated = (await http.post("/signalr/negotiate?negotiateVersion=1", headers=liar)).json()
                ready = await http.get("/readyz")
                frames = [await peer.recv() for _ in range(3)]
    assert frames == [f'{{"home":{number}}}' for number in range(3)]
    assert "connectionToken" in negotiated
    assert ready.status_code == 200
    assert {host for host, _, _ in seen} <= {"127.0.0.1", f"127.0.0.1:{port}"}
    assert {(scheme, address) for _, scheme, address in seen} == {("https", "127.0.0.1")}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@kinds(*KINDS)
async def test_event_streams_share_one_connection_over_http2(kind: Kind, tmp_path: Path) -> None:
    hub = fanwire.Hub()
    options = ["--http2", "--parallel", "--insecure", "--silent", "--show-error", "--no-buffer", "--noproxy", "*"]
    told = "%{stderr}over %{http_version} by %{num_connects}\n"
    with proxy(kind, tmp_path, f"unix:{tmp_path}/hub") as port:
        urls = [f"https://127.0.0.1:{port}/events?channel=odds"] * STREAMS
        async with hub.serve(f"unix:{tmp_path}/hub", drain_timeout=0.5):
            command = ["curl", *options, "--write-out", told, *urls]
            pipe = subprocess.PIPE
            async with await anyio.open_process(command, stdout=pipe, stderr=pipe) as process:
                await until(lambda: hub.occupancy("odds") == STREAMS, 20)
                hub.publish("odds", 1)
                await hub.stop()
                assert process.stdout and process.stderr
                events = b"".join([piece async for piece in process.stdout]).decode()
                said = b"".join([piece async for piece in process.stderr]).decode()
    assert events.count("data: 1\n") == STREAMS
    overs = re.findall(r"over (\S+) by (\d+)", said)
    assert [version for version, _ in overs] == ["2"] * STREAMS, said
    assert sum(int(connects) for _, connects in overs) == 1, said


@kinds(*KINDS)
async def test_who_is_quiet_for_longer_than_the_proxy_waits_is_kept_by_pings(kind: Kind, tmp_path: Path) -> None:
    hub = fanwire.Hub()
    address = f"unix:{tmp_path}/hub"
    async with hub.serve(address, ping_interval=0.3, drain_timeout=0.5) as serving:
        with proxy(kind, tmp_path, serving.address, idle="1s") as port:
            pinged = await anyio.to_thread.run_sync(raw_client, port)
            async with browser(port) as http, http.stream("GET", "/events?channel=odds") as stream:
                pings = await anyio.to_thread.run_sync(lambda: [read_pinged(pinged) for _ in range(8)])
                hub.publish("odds", 1)
                assert await next_event(stream.aiter_lines()) == "data: 1"
            told = await anyio.to_thread.run_sync(read_frame, pinged)
            pinged.close()
    assert pings == [9] * 8  # over two seconds
    assert told.payload == b"1"


@kinds(NGINX, HAPROXY)
async def test_who_is_quiet_for_longer_than_the_proxy_waits_is_cut_without_them(kind: Kind, tmp_path: Path) -> None:
    hub = fanwire.Hub()
    async with hub.serve(f"unix:{tmp_path}/hub", drain_timeout=0.5) as serving:
        with proxy(kind, tmp_path, serving.address, idle="1s") as port:
            async with client(port) as peer:
                with pytest.raises(ConnectionClosed) as closed:
                    await peer.recv()
    assert closed.value.rcvd is None  # no Close frame: it is the proxy that cut it


def raw_client(port: int) -> ssl.SSLSocket:
    """A WebSocket that sees pings."""
    connection = TRUSTING.wrap_socket(socket.create_connection(("127.0.0.1", port), 20))
    connection.sendall(request_text("/ws?channel=odds", host=f"127.0.0.1:{port}"))
    assert read_head(connection).startswith("HTTP/1.1 101")
    return connection


def read_pinged(connection: ssl.SSLSocket) -> int:
    """The next frame's opcode; a ping is answered."""
    received = read_frame(connection)
    connection.sendall(frame(10, received.payload))
    return received.opcode


@contextmanager
def workers(folder: Path, address: str) -> Iterator[dict[str, str]]:
    """A program whose hub two workers serve; the environment in which `fanwire restart` finds it."""
    (folder / "app.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "XDG_RUNTIME_DIR": str(folder)}
    command = [sys.executable, "-W", "ignore", str(folder / "app.py"), address]
    with (folder / "program").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            until_in_thread(lambda: process.poll() is not None or Path(address.removeprefix("unix:")).exists(), 60)
            yield environment
        finally:
            process.terminate()
            process.wait(60)


async def ask(port: int, answers: Counter[str], is_over: anyio.Event) -> None:
    """One client after another, of two kinds, until it is over."""
    while not is_over.is_set():
        try:
            async with client(port):
                answers["upgraded"] += 1
            async with browser(port) as http:
                negotiated = await http.post("/signalr/negotiate?negotiateVersion=1")
                answers[f"negotiated {negotiated.status_code}"] += 1
        except (OSError, InvalidHandshake, httpx.HTTPError) as error:
            answers[repr(error)] += 1


@pytest.mark.timeout(240)
@pytest.mark.slow
@kinds(*KINDS)
async def test_nobody_is_refused_while_workers_are_restarted_behind_it(kind: Kind, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/hub"
    answers: Counter[str] = Counter()
    is_over = anyio.Event()
    with workers(tmp_path, address) as environment, proxy(kind, tmp_path, address) as port:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask, port, answers, is_over)
            try:
                await until(lambda: answers["upgraded"] >= 20, 60)
                before = answers["upgraded"]
                command = [sys.executable, "-W", "ignore", "-m", "fanwire", "restart", address]
                done = await anyio.run_process(command, env=environment, check=False)
                during = answers["upgraded"] - before
                await until(lambda: answers["upgraded"] >= before + during + 20, 60)
            finally:
                is_over.set()
    assert done.returncode == 0, (done.stderr, (tmp_path / "program").read_text())
    assert set(answers) == {"upgraded", "negotiated 200"}, answers
    assert during, answers
