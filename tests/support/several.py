"""A relay over several workers, as a whole program; its clients, and how it stands in each worker."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from support.raw import frame, open_socket, read_frame, read_head, request_text
from support.waiting import until_in_thread
from support.workers import Program, started

PROGRAM = """
import dataclasses, json, logging, os, sys
import fanwire
from fanwire.relay.config import CallShare, Everyone, Lanes, MessageShare, QueryShare, RelayConfig
from fanwire.workers.seat import seat_of_process

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
workers, relays = int(sys.argv[1]), json.loads(sys.argv[2])
hub = fanwire.Hub(drain_timeout=1.0, backbone=(sys.argv[3:] or [None])[0])
KINDS = {"call": CallShare, "query": QueryShare, "message": MessageShare}
for relay in relays:
    shares = [KINDS[share.pop("kind")](**share) for share in relay.pop("share")]
    lanes, everyone = Lanes(**relay.pop("lanes", {})), Everyone(**relay.pop("everyone", {}))
    hub.relay(RelayConfig(share=tuple(shares), lanes=lanes, everyone=everyone, **relay))

@hub.method
def stands(client):
    "How the relays of this worker stand."
    lanes = [dataclasses.asdict(lane) for relay in hub.relay_stats() for lane in relay.lanes]
    return [seat_of_process().number, os.getpid(), lanes]

@hub.method
async def met(client):
    "How many workers this one knows, itself included."
    return [seat_of_process().number, len((await hub.stats_of_all()).workers)]

hub.run("127.0.0.1:0", workers=workers)
"""
SEPARATOR = "\x1e"
PATIENCE_S = 80.0


class Client:
    """One of a relay's, which keeps what comes."""

    def __init__(self, address: str, path: str = "/live", headers: dict[str, str] | None = None) -> None:
        url = f"ws://{address}{path}"
        connecting = connect(url, additional_headers=headers, compression=None, proxy=None, open_timeout=PATIENCE_S)
        self._stack = ExitStack()
        self.connection: ClientConnection = self._stack.enter_context(connecting)
        self.messages: list[Any] = []
        self.is_plain = not path.startswith("/live")
        if not self.is_plain:
            self.connection.send(json.dumps({"protocol": "json", "version": 1}) + SEPARATOR)
            assert self.connection.recv(timeout=PATIENCE_S) == "{}" + SEPARATOR
        self.is_open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(ConnectionClosed):
            for received in self.connection:
                records = [received] if self.is_plain else str(received).split(SEPARATOR)[:-1]
                self.messages += [message for message in map(json.loads, records) if message != {"type": 6}]
        self.is_open = False

    def call(self, target: str, *arguments: object, id: str = "1") -> None:
        """Call a method."""
        call = {"type": 1, "invocationId": id, "target": target, "arguments": arguments}
        self.connection.send(json.dumps(call) + SEPARATOR)

    def answer(self, id: str = "1") -> Any:
        """What a call was answered, once it was. Raises ConnectionClosed where it was closed before."""

        def found() -> list[Any]:
            return [one for one in self.messages if one.get("type") == 3 and one["invocationId"] == id]

        until_in_thread(lambda: found() or not self.is_open, PATIENCE_S)
        if not found():
            self.connection.recv(timeout=0)  # raises it
        return found()[0]

    def of(self, target: str) -> list[Any]:
        """First arguments of what came of it."""
        return [one["arguments"][0] for one in self.messages if one.get("target") == target]

    def end(self) -> None:
        """Close it."""
        self._stack.close()
        self._reader.join(PATIENCE_S)


class Workers(Program):
    """The program."""

    patience_s = PATIENCE_S

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        self.clients: list[Client] = []

    def client(self, path: str = "/live", headers: dict[str, str] | None = None) -> Client:
        """One more."""
        client = Client(self.address, path, headers)
        self.clients.append(client)
        return client

    def stands(self, count: int) -> dict[int, tuple[int, list[dict[str, Any]]]]:
        """How the lanes stand in each of so many workers, and its process."""
        return {number: (process, lanes) for number, (process, lanes) in self._asked("stands", count).items()}

    def have_met(self, count: int, all_count: int) -> bool:
        """Whether each of so many workers here knows so many of all machines."""
        return all(met == [all_count] for met in self._asked("met", count).values())

    def _asked(self, method: str, count: int) -> dict[int, list[Any]]:
        """What so many workers answer, without their numbers."""
        found: dict[int, list[Any]] = {}

        def ask() -> bool:
            with open_socket(self.address) as connection:
                connection.sendall(request_text())
                if read_head(connection).startswith("HTTP/1.1 101 "):
                    connection.sendall(frame(1, json.dumps({"call": method, "id": 1}).encode()))
                    number, *said = json.loads(read_frame(connection).payload)["result"]
                    found[number] = said
            return len(found) >= count

        until_in_thread(ask, PATIENCE_S)
        return found

    def in_all(self, count: int, make: Callable[[], Client], of_each: int = 2) -> list[Client]:
        """Clients, so many that each worker has some."""
        clients = [make() for _ in range(count * of_each * 2)]

        def watching() -> Counter[int]:
            stands = self.stands(count)
            return Counter({worker: lanes[0]["clients"] for worker, (_, lanes) in stands.items() if lanes})

        def are_there() -> bool:
            while len(counts := watching()) < count or min(counts.values()) < of_each:
                if sum(counts.values()) >= len(clients):
                    clients.append(make())
                else:
                    return False
            return True

        until_in_thread(are_there, PATIENCE_S)
        return clients

    def holder(self, count: int, state: str = "") -> tuple[int, int]:
        """Number and process of who holds the only lane, once all these workers say the same, and it is so there."""
        found: list[tuple[int, int]] = []

        def agree() -> bool:
            stands = self.stands(count)
            said = [(number, lane) for number, (_, lanes) in stands.items() for lane in lanes]
            numbers = {lane["worker"] for _, lane in said}
            if len(numbers) != 1 or not stands.keys() & numbers:
                return False
            (number,) = numbers
            found.append((number, stands[number][0]))
            return any(one == number and state in ("", lane["state"]) for one, lane in said)

        until_in_thread(agree, PATIENCE_S)
        return found[-1]

    def kill(self, process: int) -> None:
        """At once."""
        os.kill(process, signal.SIGKILL)

    def end(self) -> None:
        """All of it."""
        for client in self.clients:
            with suppress(Exception):
                client.connection.close_socket()
        super().end()


@contextmanager
def several(folder: Path, workers: int, *relays: dict[str, Any], backbone: str | None = None) -> Iterator[Workers]:
    """A program with these relays over so many workers; with a backbone it is a machine of several."""
    (folder / "app.py").write_text(PROGRAM)
    command = [sys.executable, "-u", "-W", "ignore", "app.py", str(workers), json.dumps(relays)]
    command += [] if backbone is None else [backbone]
    running = Workers(started(command, folder))
    try:
        yield running
    finally:
        running.end()
