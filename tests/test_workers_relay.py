"""A relay over workers: one connection to the backend for each thing watched, whichever workers have clients."""

import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.raw import free_port
from support.scripted_backend import ScriptedBackend, Session, negotiate
from support.several import Client, Workers, several
from support.waiting import until_in_thread
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

pytestmark = [pytest.mark.slow]
SHARE = {"kind": "call", "subscribe": "Watch", "unsubscribe": "Unwatch", "snapshot": "Snapshot"}
WORKERS = 3


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    """A hub that answers who watches with a snapshot."""
    with ScriptedBackend() as backend:
        yield backend


def relay(backend: ScriptedBackend, **options: Any) -> dict[str, Any]:
    """One before it."""
    lanes = {"backoff_min": 0.05, "backoff_max": 0.1, "on_gap": "message", **options.pop("lanes", {})}
    chosen = {"path": "/live", "admit": "anyone", "share": [SHARE], "linger": 0.2, **options}
    return {"upstream": [f"http://{backend.address}/live"], "lanes": lanes, **chosen}


def watching(running: Workers, match: str = "m") -> Client:
    """A client that watches."""
    client = running.client()
    client.call("Watch", match)
    assert client.answer().get("error") is None, client.messages
    assert client.of("Snapshot") == [match]
    return client


def odds(backend: ScriptedBackend, *numbers: int, match: str = "m", more: str = "") -> None:
    """Published to who watches; with `more` behind each."""
    for session in backend.watching(match):
        session.say(*({"type": 1, "target": "Odds", "arguments": [number, more]} for number in numbers))


def until_one_watches(backend: ScriptedBackend, before: list[Session], match: str = "m") -> None:
    """Wait until one connection watches, and none of those before: whose end the backend may not have noticed yet."""

    def is_so() -> bool:
        now = backend.watching(match)
        return len(now) == 1 and not any(session in before for session in now)

    until_in_thread(is_so)


def until_one_is_open(open_now: set[ServerConnection], before: set[ServerConnection]) -> None:
    """The same of a plain backend."""
    until_in_thread(lambda: len(open_now) == 1 and not open_now & before)


def survivors(clients: list[Client], has_gone_on: Callable[[Client], object]) -> list[Client]:
    """Those that are still there when each is gone or has gone on."""
    until_in_thread(lambda: all(not client.is_open or has_gone_on(client) for client in clients))
    stay = [client for client in clients if client.is_open]
    assert 0 < len(stay) < len(clients)
    return stay


def assert_all_get(clients: list[Client], expected: list[int]) -> None:
    """Each these, in this order, once."""
    for client in clients:
        until_in_thread(lambda client=client: client.of("Odds")[-1:] == expected[-1:])  # type: ignore[misc]
        assert client.of("Odds") == expected


def test_a_lane_is_held_once_and_every_worker_has_what_comes(tmp_path: Path, backend: ScriptedBackend) -> None:
    with several(tmp_path, WORKERS, relay(backend)) as running:
        clients = running.in_all(WORKERS, lambda: watching(running))
        assert len(backend.watching("m")) == 1

        def is_held_once() -> bool:
            rows = [lane for _, lanes in running.stands(WORKERS).values() for lane in lanes]
            states = sorted(row["state"] for row in rows)
            return states == ["live", "mirrored", "mirrored"] and len({row["worker"] for row in rows}) == 1

        until_in_thread(is_held_once)
        odds(backend, *range(100))
        assert_all_get(clients, list(range(100)))
        late = watching(running)
        assert late.of("Odds") == list(range(100)) and late.messages[-1]["type"] == 3
        for client in clients:
            client.end()
        late.end()
        until_in_thread(lambda: not backend.watching("m"))


def test_the_bound_of_lanes_is_that_of_all_workers_and_lanes_that_linger_make_room(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    ids = map(str, itertools.count(2))

    def asked(client: Client, method: str, match: str) -> str:
        """How that failed."""
        id = next(ids)
        client.call(method, match, id=id)
        return str(client.answer(id).get("error", ""))

    def of_three() -> Client:
        client = running.client()
        assert [asked(client, "Watch", match) for match in "abc"] == [""] * 3
        return client

    with several(tmp_path, WORKERS, relay(backend, linger=60, lanes={"max": 3})) as running:
        clients = running.in_all(WORKERS, of_three)
        for client in clients:
            assert "4 lanes of all workers are over the bound of 3" in asked(client, "Watch", "d")
        for client in clients:
            assert asked(client, "Unwatch", "c") == ""
        until_in_thread(lambda: not asked(clients[0], "Watch", "d"))
        for client in clients:
            assert asked(client, "Unwatch", "b") == ""
        assert asked(clients[-1], "Unwatch", "a") == ""
        until_in_thread(lambda: not asked(clients[-1], "Watch", "e"))
        until_in_thread(lambda: [len(backend.watching(match)) for match in "abcde"] == [1, 0, 0, 1, 1])


def test_the_holder_is_killed_and_another_takes_over(tmp_path: Path, backend: ScriptedBackend) -> None:
    with several(tmp_path, WORKERS, relay(backend)) as running:
        clients = running.in_all(WORKERS, lambda: watching(running))
        odds(backend, 1, 2)
        assert_all_get(clients, [1, 2])
        _, process = running.holder(WORKERS)
        before = backend.watching("m")
        running.kill(process)
        stay = survivors(clients, lambda client: client.of("fanwire:gap"))
        assert len(stay) >= 4
        until_one_watches(backend, before)
        odds(backend, 3, 4)
        assert_all_get(stay, [1, 2, 3, 4])
        for client in stay:
            assert client.of("Snapshot") == ["m", "m"] and len(client.of("fanwire:gap")) == 1
        assert len(backend.watching("m")) == 1


def test_the_holder_is_killed_while_it_asks_and_while_the_backend_is_away(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    shake_hands, answer, is_away, is_mute = backend.shake_hands, backend.answer, threading.Event(), threading.Event()
    is_mute.set()

    def away(session: Session) -> None:
        if is_away.is_set():
            session.hang()
        shake_hands(session)

    def mute(session: Session, message: dict[str, Any]) -> None:
        if not is_mute.is_set():
            answer(session, message)

    backend.shake_hands, backend.answer = away, mute
    with several(tmp_path, WORKERS, relay(backend)) as running:
        clients = [running.client() for _ in range(30)]  # so many that each worker has some
        for client in clients:
            client.call("Watch", "m")
        until_in_thread(lambda: {lane["worker"] for _, lanes in running.stands(WORKERS).values() for lane in lanes})
        _, process = running.holder(WORKERS)
        running.kill(process)
        is_mute.clear()
        stay = survivors(clients, lambda client: client.of("Snapshot") and client.answer())
        assert all(client.answer().get("error") is None for client in stay)
        is_away.set()
        _, process = running.holder(WORKERS)
        for session in list(backend.sessions):
            session.reset()
        until_in_thread(lambda: not backend.watching("m"))
        running.kill(process)
        is_away.clear()
        until_one_watches(backend, [])
        stay = survivors(stay, lambda client: client.of("fanwire:gap"))
        odds(backend, 1)
        assert_all_get(stay, [1])


def test_a_refusal_reaches_the_clients_of_every_worker(tmp_path: Path, backend: ScriptedBackend) -> None:
    def refuse(session: Session, message: dict[str, Any]) -> None:
        if message["type"] == 1:
            session.say({"type": 3, "invocationId": message["invocationId"], "error": "closed to all"})

    backend.answer = refuse
    with several(tmp_path, WORKERS, relay(backend)) as running:
        clients = [running.client() for _ in range(9)]
        for client in clients:
            client.call("Watch", "m")
        assert [client.answer()["error"] for client in clients] == ["closed to all"] * 9


def test_newcomers_anywhere_have_the_backend_asked_again_once(tmp_path: Path, backend: ScriptedBackend) -> None:
    share = {**SHARE, "snapshot_messages_max": 2}
    with several(tmp_path, WORKERS, relay(backend, share=[share])) as running:
        clients = running.in_all(WORKERS, lambda: watching(running))
        before = sum(call["target"] == "Watch" for call in backend.calls if call["type"] == 1)
        odds(backend, 1, 2, 3)
        assert_all_get(clients, [1, 2, 3])
        late = watching(running)
        assert late.of("Odds") == []
        assert sum(call["target"] == "Watch" for call in backend.calls if call["type"] == 1) == before + 1
        odds(backend, 4)
        assert_all_get(clients, [1, 2, 3, 4])
        assert_all_get([late], [4])
        assert all(client.of("Snapshot") == ["m"] for client in clients), "it was asked for newcomers' sake"


def test_what_goes_to_all_comes_over_one_lane(tmp_path: Path, backend: ScriptedBackend) -> None:
    def greet(session: Session) -> None:
        session.say({}, {"type": 1, "target": "Hello", "arguments": ["you"]})

    backend.shake_hands = greet
    everyone = {"targets": ["News"], "welcome": ["Hello"]}
    with several(tmp_path, WORKERS, relay(backend, everyone=everyone)) as running:
        clients = [running.client() for _ in range(12)]
        for client in clients:
            until_in_thread(lambda client=client: client.of("Hello") == ["you"])  # type: ignore[misc]
        until_in_thread(lambda: len(backend.sessions) == 1)
        (session,) = backend.sessions
        session.say(*({"type": 1, "target": "News", "arguments": [number]} for number in range(10)))
        for client in clients:
            until_in_thread(lambda client=client: client.of("News")[-1:] == [9])  # type: ignore[misc]
            assert client.of("News") == list(range(10))
        session.reset()
        until_in_thread(lambda: session not in backend.sessions and len(backend.sessions) == 1)


def test_who_may_connect_is_asked_once(tmp_path: Path, backend: ScriptedBackend) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        if b"Bearer alice" in session.head:
            is_asked.set()
            assert may_answer.wait(60)
        negotiate(session)

    backend.negotiate = slow
    with several(tmp_path, WORKERS, relay(backend, admit="negotiate", negotiate=False)) as running:
        alice = {"Authorization": "Bearer alice"}
        threads = [threading.Thread(target=running.client, args=("/live", alice)) for _ in range(9)]
        assert running.address
        for thread in threads:
            thread.start()
        assert is_asked.wait(60)
        may_answer.set()
        for thread in threads:
            thread.join(20)
        for _ in range(6):
            running.client("/live", alice)
        assert sum(b"Bearer alice" in head for head in backend.heads) == 1


def test_a_rolling_restart_hands_lanes_over(tmp_path: Path, backend: ScriptedBackend) -> None:
    with several(tmp_path, WORKERS, relay(backend)) as running:
        running.in_all(WORKERS, lambda: watching(running))
        numbers = set(running.stands(WORKERS))
        running.process.send_signal(signal.SIGUSR2)
        running.until("worker 5: serving on")
        late = None
        while late is None:
            with suppress(ConnectionClosed):  # it may come to one that is about to end
                late = watching(running)
        running.until(f"restarted: {WORKERS} workers serve")
        assert numbers.isdisjoint(running.stands(WORKERS))
        watching(running)
        running.holder(WORKERS, "live")  # all know who it is now, so who is answered from here on has what comes
        last = watching(running)
        until_in_thread(lambda: len(backend.watching("m")) == 1)
        odds(backend, 7)
        assert_all_get([last], [7])


ORIGIN = Path(os.environ.get("SIGNALR_ORIGIN", "signalr-origin"))


needs_origin = pytest.mark.skipif(not ORIGIN.is_file(), reason="SIGNALR_ORIGIN names no file: a real hub is not here")


@contextmanager
def real_hub(**lanes: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """A real one: where it is, and a relay before it."""
    url = f"http://127.0.0.1:{free_port()}"
    hub = subprocess.Popen([str(ORIGIN), "serve", "--url", url], stdout=subprocess.PIPE, text=True)
    assert hub.stdout is not None
    try:
        assert "listening" in hub.stdout.readline()
        share = {**SHARE, "subscribe": "Subscribe", "unsubscribe": "Unsubscribe"}
        lanes = {"backoff_min": 0.05, "backoff_max": 0.1, **lanes}
        yield url, {"path": "/live", "upstream": [f"{url}/live"], "share": [share], "admit": "anyone", "lanes": lanes}
    finally:
        hub.kill()
        hub.wait()
        hub.stdout.close()


def assert_four_matches_are_five_connections(url: str, clients: list[Client]) -> None:
    """Each client watches one of four, and gets what is published there."""
    for index, client in enumerate(clients):
        client.call("Subscribe", f"m{index % 4}")
    for client in clients:
        assert client.answer().get("error") is None
    # Four lanes, and that for all.
    until_in_thread(lambda: httpx.get(f"{url}/stats", trust_env=False).json()["connected"] == 5)
    httpx.post(f"{url}/publish?matches=m0,m1,m2,m3&count=50", trust_env=False).raise_for_status()
    for client in clients:
        until_in_thread(lambda client=client: len(client.of("Odds")) == 50)  # type: ignore[misc]
        numbers = [odds["s"] for odds in client.of("Odds")]
        assert numbers == list(range(numbers[0], numbers[0] + 50))


@needs_origin
def test_a_real_hub_has_one_connection_for_each_match(tmp_path: Path) -> None:
    with real_hub() as (url, options), several(tmp_path, WORKERS, options) as running:
        assert_four_matches_are_five_connections(url, [running.client() for _ in range(12)])


PLAIN = {"path": "/feed", "protocol": "websocket", "admit": "anyone", "linger": 0.2}
LANES = {"backoff_min": 0.05, "backoff_max": 0.1, "on_gap": "message"}


@contextmanager
def plain_feed(kind: str) -> Iterator[tuple[set[ServerConnection], dict[str, Any]]]:
    """A plain backend: the connections that it has, and a relay's options, which shares by a query or a message."""
    open_now: set[ServerConnection] = set()

    def serve(connection: ServerConnection) -> None:
        open_now.add(connection)
        if kind == "query":
            connection.send('{"arguments": ["hello"], "target": "Hello"}')
        with suppress(ConnectionClosed):
            for message in connection:
                connection.send(json.dumps({"target": "Hello", "arguments": [json.loads(message)["watch"]]}))
        open_now.discard(connection)

    share = {"kind": "query", "query": ["match"]} if kind == "query" else {"kind": "message", "subscribe": "/watch"}
    with serve_websockets(serve, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host, port = server.socket.getsockname()[:2]
        yield open_now, {**PLAIN, "upstream": [f"http://{host}:{port}/feed"], "share": [share], "lanes": LANES}
        server.shutdown()
        thread.join()


def watching_feed(running: Workers, kind: str) -> Client:
    """A client that watches it."""
    client = running.client("/feed?match=m" if kind == "query" else "/feed")
    if kind == "message":
        client.connection.send('{"watch": "hello"}')
    return client


def feed(open_now: set[ServerConnection], *numbers: int) -> None:
    """Sent on the one connection that there is."""
    (connection,) = open_now
    for number in numbers:
        connection.send(json.dumps({"target": "Odds", "arguments": [number]}))


@pytest.mark.parametrize("kind", ["query", "message"])
def test_a_plain_backend_has_one_connection(tmp_path: Path, kind: str) -> None:
    with plain_feed(kind) as (open_now, options), several(tmp_path, WORKERS, options) as running:
        clients = running.in_all(WORKERS, lambda: watching_feed(running, kind))
        assert len(open_now) == 1
        assert all(client.of("Hello") in ([], ["hello"]) for client in clients)
        until_in_thread(lambda: any(client.of("Hello") == ["hello"] for client in clients))
        feed(open_now, *range(10))
        assert_all_get(clients, list(range(10)))
        _, process = running.holder(WORKERS)
        before = set(open_now)
        running.kill(process)
        stay = survivors(clients, lambda client: any("gap" in one for one in client.messages))
        until_one_is_open(open_now, before)
        feed(open_now, 10)
        assert_all_get(stay, list(range(11)))
