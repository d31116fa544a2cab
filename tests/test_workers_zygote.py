"""Workers of ``fanwire serve`` are copies of one process: who dies, what is loaded, and which version of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from support.descriptors import all_listening_inodes, listening_inodes
from support.raw import open_socket
from support.waiting import until_in_thread
from support.workers import Program, runtime_of, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SETTINGS = """
[listen]
address = "127.0.0.1:0"
workers = 2

[[relay]]
path = "/live"
upstream = "http://127.0.0.1:9/live"
"""
FOR_THE_COMMAND_LINE = {"attrs", "cyclopts", "docstring_parser", "pygments", "rich", "fanwire.cli.app", "fanwire.demo"}


LOADS = """
import os
if "FANWIRE_ZYGOTE" in os.environ and os.path.exists("hold"):
    print("loading in", os.getpid(), flush=True)
    while os.path.exists("hold"):
        pass
"""
"""Zygotes are yet to load while the folder has a file ``hold``."""


@contextmanager
def starting(folder: Path, customized: str = "", workers: int = 2) -> Iterator[Program]:
    """`fanwire serve`, of whose processes each runs `customized` when it starts."""
    (folder / "fanwire.toml").write_text(SETTINGS)
    (folder / "sitecustomize.py").write_text(customized)
    command = [sys.executable, "-W", "ignore", "-m", "fanwire", "serve", "fanwire.toml", "--log-level", "debug"]
    running = Program(started([*command, "--workers", str(workers)], folder, folder))
    try:
        yield running
    finally:
        running.end()


@contextmanager
def served(folder: Path, customized: str = "") -> Iterator[Program]:
    """The same, once it serves."""
    with starting(folder, customized) as running:
        running.until(" with 2 workers")
        yield running


def loading(running: Program, count: int = 1) -> int:
    """The process of so many zygotes' last that is yet to load."""
    return int(running.until("^loading in ", count).split()[2])


def restarted(running: Program, folder: Path) -> subprocess.CompletedProcess[str]:
    """`fanwire restart`, to its end; others of this user may run at this moment."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_RUNTIME_DIR": runtime_of(folder)}
    command = [sys.executable, "-W", "ignore", "-m", "fanwire", "restart", address_of(running)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)


def processes(running: Program) -> dict[str, list[int]]:
    """Those of the supervisor's children, by what they are called."""
    parent = running.process.pid
    found: dict[str, list[int]] = {}
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just been buried
            found.setdefault(Path(f"/proc/{child}/comm").read_text().strip(), []).append(int(child))
    return found


def zygote_of(running: Program) -> int:
    (zygote,) = processes(running)["fanwire zygote"]
    return zygote


def address_of(running: Program) -> str:
    return running.until("serving on .* with 2 workers").partition("serving on ")[2].split()[0]


def health(connection: socket.socket) -> bytes:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
    return connection.recv(4_096).split(b"\r\n")[0]


def test_workers_are_children_of_the_supervisor_and_share_what_is_loaded(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        found = processes(running)
        assert {name: len(some) for name, some in found.items()} == {"fanwire zygote": 1, "fanwire worker": 2}
        for worker in found["fanwire worker"]:
            assert os.getpgid(worker) == worker
            told = dict(line.split(":") for line in Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()[1:])
            shared, own = (int(told[f"{whose}_Dirty"].split()[0]) for whose in ("Shared", "Private"))
            # What a worker has of its own differs by what it has done; another process would share nothing written.
            assert shared > own / 2, told
        running.process.terminate()
        assert running.process.wait(60) == 0
        until_in_thread(lambda: not any(Path(f"/proc/{one}").exists() for some in found.values() for one in some))
        assert not running.said("zygote"), running.lines


def test_a_worker_has_nothing_of_the_command_line(tmp_path: Path) -> None:
    tells = """
import atexit, json, os, sys
from pathlib import Path

def tell():
    Path(f"modules-{os.getpid()}").write_text(json.dumps(sorted(sys.modules)))

atexit.register(tell)
"""
    with served(tmp_path, tells) as running:
        workers = processes(running)["fanwire worker"]
        running.process.terminate()
        assert running.process.wait(60) == 0
        for worker in workers:
            modules = set(json.loads((tmp_path / f"modules-{worker}").read_text()))
            assert "fanwire.hub" in modules
            assert not modules & FOR_THE_COMMAND_LINE
        assert FOR_THE_COMMAND_LINE & set(json.loads((tmp_path / f"modules-{running.process.pid}").read_text()))


def test_a_zygote_that_is_killed_takes_no_worker_along_and_another_comes(tmp_path: Path) -> None:
    with served(tmp_path) as running, closing(open_socket(address_of(running))) as client:
        assert health(client) == b"HTTP/1.1 200 OK"
        zygote, (first, second) = zygote_of(running), processes(running)["fanwire worker"]
        os.kill(zygote, signal.SIGKILL)
        running.until(rf"the zygote \(process {zygote}\) ended: SIGKILL")
        assert processes(running) == {"fanwire worker": [first, second]}
        assert health(client) == b"HTTP/1.1 200 OK"
        os.kill(first, signal.SIGKILL)
        running.until(rf"worker \d \(process {first}\) ended: SIGKILL; another is started")
        running.until("worker 2: serving on")
        assert zygote_of(running) != zygote
        assert second in processes(running)["fanwire worker"]


def test_of_copies_that_wait_when_the_zygote_is_killed_one_is_lost_and_the_others_come_from_another(
    tmp_path: Path,
) -> None:
    with served(tmp_path) as running:
        zygote = zygote_of(running)
        os.kill(zygote, signal.SIGSTOP)
        for worker in processes(running)["fanwire worker"]:
            os.kill(worker, signal.SIGKILL)
        running.until("SIGKILL; another is started", 2)
        until_in_thread(lambda: len(running.said(r"starting worker \d")) == 4)
        os.kill(zygote, signal.SIGKILL)
        running.until(rf"worker \d \(process {zygote}\) ended before it served: SIGKILL")
        running.until(r"worker \d: serving on", 4)
        assert zygote_of(running) != zygote


def test_zygotes_that_are_killed_while_they_load_are_started_again_and_all_workers_come(tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    with starting(tmp_path, LOADS, workers=6) as running:
        for number in (1, 2):
            zygote = loading(running, number)
            os.kill(zygote, signal.SIGKILL)
            running.until(rf"worker \d+ \(process {zygote}\) ended before it served: SIGKILL; another is started in ")
        loading(running, 3)
        (tmp_path / "hold").unlink()
        running.until("serving on .* with 6 workers")
        found = processes(running)
        assert {name: len(some) for name, some in found.items()} == {"fanwire zygote": 1, "fanwire worker": 6}


def test_a_program_that_cannot_be_loaded_ends_all_with_the_reason_in_the_end(tmp_path: Path) -> None:
    fails = "import os\nif 'FANWIRE_ZYGOTE' in os.environ: print('loading in', os.getpid(), flush=True); os._exit(7)"
    with starting(tmp_path, fails, workers=6) as running:
        assert running.process.wait(60) == 1
        running.until(r"^fanwire: worker \d+ .* ended before it served: exit code 7; so it was 5 times in a row")
        assert len(running.said("^loading in ")) == 5


def test_a_zygote_that_is_killed_while_it_forks_leaves_nobody(tmp_path: Path) -> None:
    holds = """
import os
def hold():
    if os.path.exists("hold"):
        with open("held", "a") as file:
            file.write(f"{os.getpid()} ")
        while os.path.exists("hold"):
            pass

if "FANWIRE_ZYGOTE" in os.environ:
    os.register_at_fork(after_in_child=hold)
"""
    with served(tmp_path, holds) as running:
        zygote, (first, second) = zygote_of(running), processes(running)["fanwire worker"]
        (tmp_path / "hold").touch()
        os.kill(first, signal.SIGKILL)
        until_in_thread((tmp_path / "held").exists)
        os.kill(zygote, signal.SIGKILL)
        running.until(rf"worker 2 \(process {zygote}\) ended before it served: SIGKILL; another is started")
        (tmp_path / "hold").unlink()
        running.until("worker 3: serving on")

        def are_alone() -> bool:
            counts = {name: len(some) for name, some in processes(running).items()}
            return counts == {"fanwire zygote": 1, "fanwire worker": 2}

        until_in_thread(are_alone)
        assert second in processes(running)["fanwire worker"]


def test_a_zygote_that_is_stopped_ends_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        port = int(address_of(running).rpartition(":")[2])
        listening, found = listening_inodes(port), [one for some in processes(running).values() for one in some]
        for process in found:
            os.kill(process, signal.SIGSTOP)
        # The kernel lets go on, with a SIGHUP, what is stopped by then, and with all its threads: that takes its time.
        threads = [thread for one in found for thread in Path(f"/proc/{one}/task").glob("*/status")]
        until_in_thread(lambda: all("\nState:\tT" in thread.read_text() for thread in threads))
        running.process.kill()
        until_in_thread(lambda: not any(Path(f"/proc/{process}").exists() for process in found))
        assert listening
        until_in_thread(lambda: not listening & all_listening_inodes())  # nobody holds them


def test_all_end_with_the_supervisor(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        found = [process for some in processes(running).values() for process in some]
        assert len(found) == 3
        running.process.kill()
        until_in_thread(lambda: not any(Path(f"/proc/{process}").exists() for process in found), 60)


def test_a_restart_loads_the_program_as_it_is_now_and_one_that_fails_leaves_things_as_they_were(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        zygote, workers = zygote_of(running), processes(running)["fanwire worker"]
        (tmp_path / "fanwire.toml").write_text(SETTINGS + "nonsense")
        done = restarted(running, tmp_path)
        assert done.returncode == 1
        assert "the restart is broken off: worker 2 (process " in done.stderr
        assert "ended before it served: exit code 1" in done.stderr
        until_in_thread(lambda: processes(running) == {"fanwire zygote": [zygote], "fanwire worker": workers})
        os.kill(workers[0], signal.SIGKILL)  # the file cannot be read any more, and need not be
        running.until("worker 3: serving on")
        assert zygote_of(running) == zygote

        (tmp_path / "fanwire.toml").write_text(SETTINGS.replace("/live", "/other"))
        done = restarted(running, tmp_path)
        assert done.returncode == 0, done.stderr
        running.until("relaying /other")
        until_in_thread(lambda: not Path(f"/proc/{zygote}").exists())
        until_in_thread(lambda: len(processes(running)["fanwire worker"]) == 2)
        found = processes(running)
        assert not set(found["fanwire worker"]) & set(workers) and found["fanwire zygote"] != [zygote]


def test_a_program_with_threads_is_loaded_by_each_worker(tmp_path: Path) -> None:
    waits = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    with served(tmp_path, waits) as running:
        assert len(running.said("each worker loads the program by itself: it has 2 threads once it is loaded")) == 1
        assert set(processes(running)) == {"python"} or "fanwire zygote" not in processes(running)
        running.until(r"worker \d: serving on", 2)
        victim = next(iter(processes(running).values()))[0]
        os.kill(victim, signal.SIGKILL)
        running.until("worker 2: serving on")


def test_a_restart_refuses_nobody_and_asked_again_begins_again(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        address, is_over, counts = address_of(running), threading.Event(), Counter[str]()

        def connect() -> None:
            while not is_over.is_set():
                try:
                    with closing(open_socket(address)) as client:
                        counts[health(client).decode()] += 1
                except OSError as error:
                    counts[str(error)] += 1

        thread = threading.Thread(target=connect)
        thread.start()
        try:
            zygote = zygote_of(running)
            running.process.send_signal(signal.SIGUSR2)
            running.until("worker 2: serving on")
            running.process.send_signal(signal.SIGUSR2)
            running.until("restarted: 2 workers serve")
            assert len(processes(running)["fanwire worker"]) == 2
            until_in_thread(lambda: len(processes(running)["fanwire zygote"]) == 1)  # the others end now
            assert zygote_of(running) != zygote
        finally:
            is_over.set()
            thread.join()
        assert set(counts) == {"HTTP/1.1 200 OK"}, counts


def test_the_end_does_not_wait_for_copies_that_are_still_to_come(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        os.kill(zygote_of(running), signal.SIGSTOP)
        for worker in processes(running)["fanwire worker"]:
            os.kill(worker, signal.SIGKILL)
        until_in_thread(lambda: len(running.said(r"starting worker \d")) == 4)
        os.kill(zygote_of(running), signal.SIGCONT)
        running.process.terminate()
        assert running.process.wait(60) == 0
        assert not running.said("did not end within"), running.lines
