"""A supervisor and its workers, as whole programs: who dies, stops or is replaced, and who connects meanwhile."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path

import anyio
import fanwire
import pytest
from fanwire._engine import Engine, Sequencer, Settings, WorkerTold
from fanwire.cli.app import app
from support.raw import frame, open_socket, read_close, read_frame, read_head, request_text, upgraded
from support.waiting import until, until_in_thread
from support.workers import Program, runtime_of, serving, started
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PROGRAM = """
import logging, os, resource, subprocess, sys
import fanwire
from fanwire.workers.seat import seat_of_process

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
address, workers, timeout, trouble = sys.argv[1:5]
seat = seat_of_process()
if trouble == "few" and seat is not None and seat.number == 0:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
if trouble == "broken" and seat is not None or trouble == "odd" and seat is not None and seat.number:
    raise RuntimeError("the program is broken")
if trouble == "moved":
    os.chdir("/")
slow = {"drain_timeout": 60, "handshake_timeout": 60}  # the clients are, on a busy machine
kept = {"kept:*": fanwire.Channel(history=50_000)}
hub = fanwire.Hub(channels=kept, **slow if trouble == "slow" else {"drain_timeout": 0.5})

@hub.method
def worker(client):
    return [seat.number, os.getpid()]

@hub.method
def child(client):
    "What a child of the worker's takes itself for."
    code = "from fanwire.workers.seat import seat_of_process; print(seat_of_process())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout

@hub.method
async def say(client, channel, data):
    return list(await hub.publish(channel, data))

@hub.method
def crash(client):
    os.kill(os.getpid(), 11)

hub.run(address, workers=int(workers), worker_timeout=float(timeout))
try:
    hub.run(address, workers=int(workers))
except RuntimeError as error:
    os.write(1, b"refused: %s\\n" % str(error).encode())
os.write(1, b"ended, a worker\\n" if seat else b"ended\\n")  # in one piece: several write here
"""


@contextmanager
def program(
    folder: Path, workers: int = 2, timeout: float = 20, trouble: str = "", address: str = "127.0.0.1:0"
) -> Iterator[Program]:
    """A program that has its hub served by workers."""
    with serving(folder, PROGRAM, address, str(workers), str(timeout), trouble) as running:
        yield running


def asked(connection: socket.socket, method: str = "worker") -> object:
    """What a method of the hub gives."""
    connection.sendall(frame(1, json.dumps({"call": method, "id": 1}).encode()))
    received = read_frame(connection)
    return json.loads(received.payload)["result"] if received.opcode == 1 else received.close


def worker_of(address: str, stack: ExitStack | None = None) -> tuple[int, int]:
    """Number and process of the worker that takes one more client."""
    with ExitStack() as own:
        connection = (stack or own).enter_context(open_socket(address))
        connection.sendall(request_text())
        assert read_head(connection).startswith("HTTP/1.1 101 ")
        number, process = asked(connection)  # type: ignore[misc]
        return number, process


def taken_by(workers: int, address: str, stack: ExitStack) -> Counter[tuple[int, int]]:
    """Clients that stay, until each of so many workers has ten: how the kernel deals them out is its own affair."""
    taken: Counter[tuple[int, int]] = Counter()

    def have_all() -> bool:
        taken[worker_of(address, stack)] += 1
        return len(taken) == workers and min(taken.values()) >= 10

    until_in_thread(have_all)
    return taken


@contextmanager
def connecting(address: str) -> Iterator[Counter[object]]:
    """One client after another, each answered; what could not connect is a key of its own."""
    counts: Counter[object] = Counter()
    is_over = threading.Event()

    def connect() -> None:
        while not is_over.is_set():
            try:
                counts[worker_of(address)[0]] += 1
            except (OSError, EOFError, AssertionError) as error:
                counts[f"{type(error).__name__}: {error}"] += 1

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def assert_nobody_is_refused(counts: Counter[object], cut_max: int = 4) -> None:
    """Of those that connect, the ones whom a worker had taken when it died are cut off, and no other."""
    failed = {key: count for key, count in counts.items() if isinstance(key, str)}
    assert sum(failed.values()) <= cut_max and not any("refused" in key for key in failed), failed


def test_workers_share_the_port_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with program(tmp_path, 3, trouble="moved") as running, ExitStack() as stack:
        address = running.address
        taken = taken_by(3, address, stack)
        assert running.until("worker 1: serving on").startswith(f"worker 1: serving on {address} with ")
        connection = stack.enter_context(upgraded(address))
        assert asked(connection, "child") == "None\n"
        with connecting(address) as counts:
            until_in_thread(lambda: sum(counts.values()) > 50)
            victim = next(process for number, process in taken if number == 1)
            os.kill(victim, signal.SIGKILL)
            running.until("worker 3: serving on")
            until_in_thread(lambda: min(counts[0], counts[2], counts[3]) > 5)
        assert re.search(r"worker 1 \(process \d+\) ended: SIGKILL; another is started", running.until("SIGKILL"))
        assert_nobody_is_refused(counts)


def test_a_signal_drains_all_and_a_second_does_not_wait(tmp_path: Path) -> None:
    with program(tmp_path, trouble="slow") as running, ExitStack() as stack:
        clients: dict[object, list[socket.socket]] = {}

        def each_has_some() -> bool:
            client = stack.enter_context(upgraded(running.address))
            clients.setdefault(str(asked(client)), []).append(client)
            return len(clients) == 2 and min(map(len, clients.values())) > 1

        until_in_thread(each_has_some)
        running.process.send_signal(signal.SIGTERM)
        for worker in children_of(running.process.pid):
            os.kill(int(worker), signal.SIGTERM)  # systemd tells all of a service; that is no second wish
        for client in [client for of_one in clients.values() for client in of_one[1:]]:
            assert read_close(client)[0] == 1001
            client.sendall(frame(8, b"\x03\xe9"))
            client.close()
        assert len(children_of(running.process.pid)) == 2
        running.process.send_signal(signal.SIGINT)  # the others would have some time to answer
        assert running.process.wait(40) == 0
        until_in_thread(lambda: len(running.said("^ended")) == 3)
        assert len(running.said("^refused: a program may run with workers once")) == 3
        assert running.lines[-1] == "ended"
        assert not list((Path(runtime_of(tmp_path), "fanwire")).iterdir())


def test_fanwire_serve_says_what_is_so_once_and_what_a_worker_does_with_its_number(tmp_path: Path) -> None:
    options = ["--upstream", "http://127.0.0.1:9/live", "--listen", "127.0.0.1:0", "--workers", "2"]
    running = Program(started([sys.executable, "-W", "ignore", "-m", "fanwire", "serve", *options], tmp_path))
    try:
        running.until('logger=fanwire.workers message="serving on 127.0.0.1:.* with 2 workers"')
        for once in ("relaying /live", "the limit of open files"):
            assert len(running.said(once)) == 1, running.lines
        for number in range(2):
            serves = f'logger=fanwire.hub message="worker {number}: serving on 127.0.0.1:'
            running.until(serves)
            assert len(running.said(serves)) == 1
        running.process.send_signal(signal.SIGHUP)
        running.until("SIGHUP is ignored")
        running.process.terminate()
        assert running.process.wait(60) == 0
    finally:
        running.end()


def test_one_that_is_stuck_is_replaced_while_others_serve(tmp_path: Path) -> None:
    with program(tmp_path, 2, timeout=5) as running, connecting(running.address) as counts:
        number, process = worker_of(running.address)
        os.kill(process, signal.SIGSTOP)
        until_in_thread(lambda: counts[1 - number] > 50)
        line = running.until("gave no sign")
        assert re.search(rf"\(process {process}\) ended: its loop gave no sign for 5 s, and it was killed", line)
        running.until("worker 2: serving on")
        until_in_thread(lambda: counts[2] > 5)
    assert_nobody_is_refused(counts)


def test_a_client_that_crashes_each_worker_it_meets_leaves_the_others_to_serve(tmp_path: Path) -> None:
    with program(tmp_path, 3) as running, ExitStack() as stack:
        with connecting(running.address) as counts:
            for number in range(3):
                with upgraded(running.address) as poison, suppress(OSError, EOFError):
                    asked(poison, "crash")
                line = running.until(r"ended: SIGSEGV; another is started in \d+\.\d s$", number + 1)
                assert re.search(r"worker \d \(process \d+\) ended: SIGSEGV", line)
                running.until(f"worker {number + 3}: serving on")
            until_in_thread(lambda: counts[5] > 5)
        assert_nobody_is_refused(counts, 3 * 4)
        assert 5 in {number for number, _ in taken_by(3, running.address, stack)}, "the newest among them"


def test_a_worker_that_crashes_before_it_serves_is_tried_ever_more_seldom_and_the_first_goes_on(tmp_path: Path) -> None:
    with program(tmp_path, 2, trouble="odd") as running:
        address = running.until("worker 0: serving on").split()[4]
        with connecting(address) as counts:
            for number in range(1, 5):
                running.until(
                    rf"worker {number} \(process \d+\) ended before it served: exit code 1; another is started"
                )
        waits = [float(line.split()[-2]) for line in running.said("another is started in")]
        assert waits[0] <= 0.3 and waits == sorted(waits) and waits[3] >= 1, waits
        assert counts.keys() == {0} and running.process.poll() is None, counts


def test_a_restart_replaces_all_and_no_connect_fails(tmp_path: Path) -> None:
    with program(tmp_path) as running, upgraded(running.address) as client:
        with connecting(running.address) as counts:
            until_in_thread(lambda: sum(counts.values()) > 20)
            running.process.send_signal(signal.SIGUSR2)
            running.until("^restarted: 2 workers serve")
            until_in_thread(lambda: min(counts[2], counts[3]) > 5)
        assert counts.keys() - {1001} == set(range(4)), counts  # some came just in time to be drained
        assert read_close(client)[0] == 1001


async def stay(address: str, counts: Counter[object], is_over: anyio.Event) -> None:
    """A client that stays, and comes back whenever it is drained or cut off."""
    while not is_over.is_set():
        read = b""
        try:
            async with await anyio.connect_tcp(*address.split(":")) as stream:  # type: ignore[arg-type]
                await stream.send(request_text())
                while not read.endswith(b"\x88\x02\x03\xe9"):
                    read += await stream.receive()
                    counts["connected"] += read.endswith(b"\r\n\r\n")
                counts["drained"] += 1
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            is_cut = isinstance(error, (anyio.EndOfStream, anyio.BrokenResourceError))
            counts["cut off" if is_cut else f"{type(error).__name__}: {error} behind {read[-60:]!r}"] += 1


def staying(running: Program, count: int, trouble: Callable[[Counter[object]], Awaitable[None]]) -> Counter[object]:
    """What became of so many clients that stay, while there is trouble."""

    async def main() -> Counter[object]:
        counts: Counter[object] = Counter()
        is_over = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(stay, running.address, counts, is_over)
            await until(lambda: counts["connected"] >= count, 60)
            await trouble(counts)
            is_over.set()
            tasks.cancel_scope.cancel()
        return counts

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    return anyio.run(main)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_restart_under_load_refuses_nobody_of_many(tmp_path: Path) -> None:
    """5,000 clients that stay and come back when they are drained, and others that come and go, over three restarts."""

    async def restarts(counts: Counter[object]) -> None:
        for number in range(1, 4):
            running.process.send_signal(signal.SIGUSR2)
            await until(lambda number=number: len(running.said("^restarted: ")) == number, 60)  # type: ignore[misc]
            await until(lambda number=number: counts["connected"] >= 5_000 * (number + 1), 60)  # type: ignore[misc]

    with program(tmp_path, 4, trouble="slow") as running, connecting(running.address) as fleeting:
        counts = staying(running, 5_000, restarts)
    assert counts.keys() == {"connected", "drained"}, counts
    assert counts["drained"] >= 15_000
    assert not [key for key in fleeting if isinstance(key, str)], fleeting


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_workers_that_are_killed_or_stopped_again_and_again_under_load_refuse_nobody(tmp_path: Path) -> None:
    """3,000 clients that stay: whom a worker takes with it comes back, and is served."""

    async def kills(counts: Counter[object]) -> None:
        for number in range(8):
            victim = int(children_of(running.process.pid)[0])  # the eldest
            os.kill(victim, signal.SIGSTOP if number % 2 else signal.SIGKILL)
            await until(lambda number=number: len(running.said("another is started")) == number + 1, 60)  # type: ignore[misc]
            await until(lambda number=number: running.said(f"worker {number + 4}: serving on"), 60)  # type: ignore[misc]
            await until(lambda: counts["connected"] >= 3_000 + counts["cut off"], 60)

    with program(tmp_path, 4, timeout=5, trouble="slow") as running, connecting(running.address) as fleeting:
        counts = staying(running, 3_000, kills)
    assert counts.keys() == {"connected", "cut off"}, counts
    assert counts["cut off"] >= 1_000
    assert_nobody_is_refused(fleeting, 8 * 4)


GONE = (ConnectionClosed, InvalidHandshake, InvalidMessage, EOFError, ConnectionResetError)
"""What a client sees of a worker that ends or is killed. Not that it is refused."""


async def follow(address: str, channel: str, got: list[int], last: int) -> None:
    """A client that comes back with its position until it has the last."""
    position: list[int] | None = None
    while not got or got[-1] != last:
        with suppress(*GONE):
            async with connect(
                f"ws://{address}/ws?envelope=1", proxy=None, open_timeout=60, compression=None
            ) as client:
                begin = {"since": {channel: position}} if position else {"start": "history"}
                await client.send(json.dumps({"subscribe": [channel], "id": 1, **begin}))
                while not got or got[-1] != last:
                    message = json.loads(await client.recv())
                    if "id" in message:
                        assert position is None or message["result"]["recovered"] == {channel: True}, message
                    else:
                        assert position is None or message["position"] == [position[0], position[1] + 1], message
                        position = message["position"]
                        got.append(message["data"]["n"])


async def say(address: str, channel: str, numbers: Iterator[int]) -> None:
    """A client that has each number published, once more where its worker is gone before it has answered."""
    number = next(numbers)
    while number >= 0:
        with suppress(*GONE):
            async with connect(f"ws://{address}/ws", proxy=None, open_timeout=60, compression=None) as client:
                while number >= 0:
                    message = {"call": "say", "args": [channel, {"n": number}], "id": 1}
                    await client.send(json.dumps(message))
                    assert "result" in json.loads(await client.recv())
                    number = next(numbers)
                    await anyio.wait_all_tasks_blocked()


def all_get_everything(running: Program, clients: int, trouble: Callable[[], Awaitable[None]]) -> None:
    """Whatever trouble there is, each client gets all that is published: once, in one order, and without a hole."""
    everything: list[list[int]] = [[] for _ in range(clients)]
    is_over = anyio.Event()
    last = 1_000_000

    def numbers() -> Iterator[int]:
        yield from takewhile(lambda _: not is_over.is_set(), count())
        yield last
        yield -1

    async def main() -> None:
        with anyio.fail_after(240):
            async with anyio.create_task_group() as tasks:
                for got in everything:
                    tasks.start_soon(follow, running.address, "kept:all", got, last)
                tasks.start_soon(say, running.address, "kept:all", numbers())
                await until(lambda: min(map(len, everything)) > 10, 60)
                await trouble()
                is_over.set()

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    anyio.run(main)
    first = everything[0]
    assert all(got == first for got in everything)
    once = list(dict.fromkeys(first))  # what was published again for want of an answer stands there twice
    assert once == [*range(len(once) - 1), last]


def test_over_restarts_and_kills_each_client_gets_all_that_is_published(tmp_path: Path) -> None:
    async def trouble() -> None:
        running.process.send_signal(signal.SIGUSR2)
        await until(lambda: running.said("^restarted: "), 60)
        os.kill(int(children_of(running.process.pid)[0]), signal.SIGKILL)
        await until(lambda: running.said("worker 4: serving on"), 60)

    with program(tmp_path) as running:
        all_get_everything(running, 60, trouble)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_over_restarts_and_kills_each_of_many_clients_gets_all_that_is_published(tmp_path: Path) -> None:
    async def trouble() -> None:
        for number in range(1, 4):
            running.process.send_signal(signal.SIGUSR2)
            await until(lambda number=number: len(running.said("^restarted: ")) == number, 60)  # type: ignore[misc]
            os.kill(int(children_of(running.process.pid)[0]), signal.SIGKILL)
            await until(lambda number=number: len(running.said(": serving on")) == 4 + 5 * number, 60)  # type: ignore[misc]

    with program(tmp_path, 4, trouble="slow") as running:
        all_get_everything(running, 1_000, trouble)


def test_restart_says_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime_of(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", runtime_of(tmp_path))  # others of this user may run at this moment

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit, match="1"):
            app(["restart", *arguments])
        return capsys.readouterr().err

    assert refused().startswith("fanwire: no supervisor of yours runs: one is `fanwire serve --workers N`")
    left = Path(runtime_of(tmp_path), "fanwire") / "99999999-a"  # no process has such a number
    left.mkdir(parents=True, mode=0o700)
    (Path(runtime_of(tmp_path), "fanwire")).chmod(0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left / "supervisor"))
    with program(tmp_path, 1) as running, program(tmp_path, 1) as other:
        addresses = {running.address, other.address}
        assert not left.exists()
        said = refused()
        assert "several supervisors run: say which address is meant" in said
        assert all(address in said for address in addresses)
        assert "none of your supervisors listens on 127.0.0.1:1; there are: " in refused("127.0.0.1:1")
        assert refused("nowhere").startswith("fanwire: address must be HOST:PORT")
        (tmp_path / "app.py").write_text("raise SystemExit('a new version that does not start')")
        assert f"{running.address}: the restart is broken off: worker 1" in refused(running.address)
        assert worker_of(running.address)[0] == 0
        (tmp_path / "app.py").write_text(PROGRAM)
        with suppress(SystemExit):
            app(["restart", running.address])
        assert capsys.readouterr().out == f"{running.address}: 1 worker restarted\n"
        assert worker_of(running.address)[0] == 2


def test_a_program_that_does_not_start_ends_with_the_reason(tmp_path: Path) -> None:
    with program(tmp_path, 2, trouble="broken") as running:
        assert running.process.wait(60) == 1
        until_in_thread(lambda: running.said("^fanwire: "))
        (line,) = running.said("^fanwire: ")
        assert re.search(
            r"ended before it served: exit code 1; so it was 5 times in a row, and no worker serves$", line
        )
        assert running.said("RuntimeError: the program is broken")


def test_a_worker_without_descriptors_leaves_who_comes_to_the_others(tmp_path: Path) -> None:
    with program(tmp_path, 2, trouble="few") as running, ExitStack() as stack:
        taken: Counter[int] = Counter()

        def pauses() -> object:
            taken[worker_of(running.address, stack)[0]] += 1
            return running.said(r"worker 0: shard 0: accepting pauses with \d+ connections: no descriptor is left")

        until_in_thread(pauses)
        assert 0 < taken[0] < 40, taken
        assert [worker_of(running.address, stack)[0] for _ in range(40)] == [1] * 40
        stack.close()
        until_in_thread(lambda: worker_of(running.address)[0] == 0, 60)  # it has some again


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    with program(tmp_path, 2, address=f"unix:{tmp_path}/hub") as running:
        running.until("^serving on")
        processes = {int(line.split()[0]) for line in children_of(running.process.pid)}
        assert len(processes) == 2
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/hub")
            client.sendall(request_text())
            assert read_head(client).startswith("HTTP/1.1 101 ")
            running.process.kill()
            assert read_close(client)[0] == 1001
        until_in_thread(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))
        assert running.until(r"worker .: the supervisor \(process \d+\) is gone: this worker ends", 2)


def children_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def test_systemd_hands_the_socket_in_and_is_told_what_goes_on(tmp_path: Path) -> None:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(60)
    (tmp_path / "app.py").write_text(PROGRAM)
    with told, socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        waiting = open_socket(address)  # it came before the service
        waiting.sendall(request_text())
        script = f"""exec 3<&{listener.fileno()}
            export LISTEN_PID=$$ LISTEN_FDS=1 NOTIFY_SOCKET={tmp_path}/notify WATCHDOG_USEC=200000
            exec {sys.executable} -u -W ignore app.py systemd 2 20 ''"""
        running = Program(started(["bash", "-c", script], tmp_path, pass_fds=(listener.fileno(),)))
        try:
            assert told.recv(200) == f"READY=1\nSTATUS=2 workers serve on {address}".encode()
            assert [told.recv(200) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            assert read_head(waiting).startswith("HTTP/1.1 101 ")
            waiting.close()
            running.process.terminate()
            until_in_thread(lambda: told.recv(200) == b"STOPPING=1")
            assert running.process.wait(40) == 0
        finally:
            running.end()
        open_socket(address).close()  # the socket is systemd's, and listens on


def test_a_fork_leaves_what_its_parent_shares_with_workers_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "sequencer")
    sequencer = Sequencer(Settings(), path)
    first, second = (Engine(Settings(worker=number, shards=1)) for number in range(2))
    try:
        for engine in (first, second):
            engine.start()
            engine.join(path)
        child = os.fork()
        if not child:
            try:
                sequencer.close()
                first.stop()
                second.stop()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert Path(path).is_socket()
        first.tell(1, b"the parent goes on")
        events: list[object] = []
        until_in_thread(lambda: events.extend(second.take_events()) or any(isinstance(e, WorkerTold) for e in events))
        assert sequencer.take_lines() == ([], None)
    finally:
        first.stop()
        second.stop()
        sequencer.close()
    assert not Path(path).exists()


@pytest.mark.parametrize("given", ["typed in", "thread"])
def test_what_can_have_no_workers_says_why(given: str) -> None:
    code = "import fanwire, threading\n"
    run = "fanwire.Hub().run('127.0.0.1:0', workers=2)"
    code += f"threading.Thread(target=lambda: {run}).start()" if given == "thread" else run
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", *(("-c", code) if given == "thread" else ())]
    done = subprocess.run(command, input=code, capture_output=True, text=True, env=environment, timeout=40, check=False)
    says = "workers need the program's main thread" if given == "thread" else "workers run the same program again"
    assert f"RuntimeError: {says}" in done.stderr


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_of(tmp_path)
    Path(runtime, "fanwire").mkdir()
    Path(runtime, "fanwire").chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    with pytest.raises(PermissionError, match=r"fanwire must be a folder of user \d+ that nobody else may write to"):
        fanwire.Hub().run("127.0.0.1:0", workers=1)
