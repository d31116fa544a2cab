"""SignalR over workers: each request of a client comes to another worker, and workers die, end and are forged."""

import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest
from support.nginx import NGINX, keeping_nginx
from support.raw import frame, read_frame
from support.signalr_lines import END, HANDSHAKE, Line, Polled, close_lines, lines, turned
from support.waiting import until_in_thread
from support.workers import Program, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
WORKERS = 4
CLIENTS = 300

PROGRAM = """
import logging, os, sys
import fanwire
from fanwire.workers.seat import seat_of_process

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
seat = seat_of_process()
hub = fanwire.Hub(
    drain_timeout=0.5, handshake_timeout=30, signalr_disconnect_timeout=float(sys.argv[3]),
    signalr_paths=("/signalr", "/live"),
)

@hub.authenticate
def who(request):
    return fanwire.Identity(None, {"peer": request.peer})

@hub.method
def worker(client, *_):
    return [seat.number, os.getpid(), client.identity.claims["peer"]]

@hub.method
def size(client, text):
    return len(text)

hub.run(sys.argv[1], workers=int(sys.argv[2]))
"""


@contextmanager
def program(folder: Path, workers: int = WORKERS, disconnect_timeout: float = 15) -> Iterator[Program]:
    """A hub that workers serve."""
    with serving(folder, PROGRAM, "127.0.0.1:0", str(workers), str(disconnect_timeout)) as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Four workers that nobody harms."""
    with program(tmp_path_factory.mktemp("w"), disconnect_timeout=120) as running:
        yield running


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No connection is left."""
    yield
    close_lines()


@pytest.fixture
def ways(served: Program) -> list[Line]:
    """A connection to each of them."""
    return lines(served.address, WORKERS)


@pytest.mark.parametrize("home", range(WORKERS))
def test_posts_and_polls_find_their_connection_whichever_worker_they_come_to(served: Program, home: int) -> None:
    for first in range(WORKERS):
        ways = lines(served.address, WORKERS)  # those that were refused something are closed
        client = Polled(ways[home].negotiate())
        client.begin(*turned(ways, first))
        for turn in range(WORKERS):
            number, _, peer = client.call(turned(ways, turn), "worker")
            assert number == ways[first].worker, "the first transport stays where it lands"
            assert peer.startswith("127.0.0.1:")
        ended = [line.ask("DELETE", client.target).status for line in turned(ways, first + 1 - WORKERS)]
        assert ended == [202, 404, 404, 404]


def test_bodies_come_whole_however_they_are_cut(ways: list[Line]) -> None:
    client = Polled(ways[0].negotiate())
    client.begin(ways[1])
    text = "x" * 20_000
    body = json.dumps({"type": 1, "invocationId": "1", "target": "size", "arguments": [text]}).encode() + END
    many = body * 20
    for line, chunks in ((ways[0], False), (ways[2], True), (ways[3], False)):
        framing = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(many)}"
        head = f"POST {client.target} HTTP/1.1\r\nHost: x\r\n{framing}\r\nExpect: 100-continue\r\n\r\n"
        line.socket.sendall(head.encode())
        assert line.head() == "HTTP/1.1 100 Continue"
        for start in range(0, len(many), 33_333):
            part = many[start : start + 33_333]
            line.socket.sendall(b"%x\r\n%b\r\n" % (len(part), part) if chunks else part)
        line.socket.sendall(b"0\r\n\r\n" if chunks else b"")
        assert line.answer().status == 200
        results: list[object] = []
        while len(results) < 20:
            results += [told["result"] for told in client.poll(line)]
        assert results == [20_000] * 20
    broken = f"POST {client.target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    ways[0].socket.sendall(broken.encode())
    assert ways[0].answer().status == 400
    assert client.call([ways[1]], "size", "abc") == 3


def test_an_event_stream_stays_where_it_lands_and_posts_find_it(served: Program, ways: list[Line]) -> None:
    for first, stream in enumerate(lines(served.address, WORKERS)):
        target = f"/signalr?id={ways[first - 1].negotiate()}"
        stream.send("GET", target, accept="text/event-stream")
        assert "200 OK" in stream.head()
        assert ways[first - 2].ask("POST", target, HANDSHAKE).status == 200
        received = b""
        for line in ways:
            call = {"type": 1, "invocationId": f"at {line.worker}", "target": "worker", "arguments": []}
            assert line.ask("POST", target, json.dumps(call).encode() + END).status == 200
            while f'"at {line.worker}","result":[{stream.worker},'.encode() not in received:
                received += stream.some()


def test_a_websocket_s_token_is_the_first_s_of_all_that_come_at_once(served: Program) -> None:
    home = lines(served.address, WORKERS)
    for turn in range(25):
        token = home[turn % WORKERS].negotiate()
        asking = lines(served.address, WORKERS)
        with ThreadPoolExecutor(WORKERS) as pool:
            barrier = threading.Barrier(WORKERS)

            def ask(line: Line, barrier: threading.Barrier = barrier, token: str = token) -> str:
                barrier.wait(60)
                return line.upgrade(token).partition(" ")[2][:3]

            answered = sorted(pool.map(ask, asking))
            # The others come to the same worker, before or after the first was accepted there.
            assert answered[0] == "101" and set(answered[1:]) <= {"404", "409"}, answered
    for line in home:
        line.close()


def say(line: Line, *messages: object) -> None:
    """Messages of a WebSocket's client."""
    for message in messages:
        line.socket.sendall(frame(1, json.dumps(message).encode() + END))


def heard(line: Line) -> list[dict[str, object]]:
    """Of one frame, pings left out."""
    while True:
        received = read_frame(line.socket)
        assert received.opcode == 1, received
        records = [json.loads(record) for record in received.payload.split(END)[:-1]]
        if told := [record for record in records if record != {"type": 6}]:
            return told


@pytest.mark.parametrize("away", range(1, WORKERS))
def test_a_stateful_client_comes_back_to_another_worker_and_misses_nothing(served: Program, away: int) -> None:
    ways = lines(served.address, WORKERS)
    back = lines(served.address, WORKERS)
    token = ways[1].negotiate("&useStatefulReconnect=true")
    assert ways[0].upgrade(token, "&useStatefulReconnect=true").endswith("101 Switching Protocols")
    say(ways[0], {"protocol": "json", "version": 2})
    assert heard(ways[0]) == [{}]
    say(ways[0], {"type": 1, "invocationId": "1", "target": "worker", "arguments": []})
    (first,) = heard(ways[0])
    ways[0].close()
    assert back[away].upgrade(token, "&useStatefulReconnect=true").endswith("101 Switching Protocols")
    told = heard(back[away])
    while len(told) < 2:
        told += heard(back[away])
    assert told == [{"type": 9, "sequenceId": 1}, first], "it had not acknowledged the first"
    say(back[away], {"type": 9, "sequenceId": 2})
    say(back[away], {"type": 1, "invocationId": "2", "target": "worker", "arguments": []})
    second = [one for one in heard(back[away]) if one["type"] == 3]
    while not second:
        second = [one for one in heard(back[away]) if one["type"] == 3]
    assert second[0]["result"] == first["result"], "the same worker, and the same address of the client"


def counter(served: Program, name: str) -> float:
    """Of all workers."""
    text = Line(served.address).ask("GET", "/metrics").body.decode()
    (found,) = [float(one.split()[1]) for one in text.splitlines() if one.startswith(f"{name} ")]
    return found


def test_forged_tokens_are_refused_and_counted(ways: list[Line], served: Program, tmp_path: Path) -> None:
    token = ways[0].negotiate()
    with program(tmp_path, 1) as other:
        line = Line(other.address)
        foreign = line.negotiate()
        line.close()
    forged = [token[:-1], token + "A", token[:30] + "AAA" + token[33:], "B" + token[1:], foreign, "A" * 22, "%00"]
    before = counter(served, "fanwire_tokens_refused_total")
    for wrong in forged:
        for method in ("GET", "POST", "DELETE"):
            line = Line(served.address)
            answer = line.ask(method, f"/signalr?id={wrong}")
            assert (answer.status, answer.body) == (404, b"No Connection with that ID"), (wrong, method)
            line.close()
    line = Line(served.address)
    assert line.ask("GET", f"/live?id={token}").status == 404, "it is another hub's"
    line.close()
    refused = len(forged) * 3 + 1  # what is scraped may be a second old
    until_in_thread(lambda: counter(served, "fanwire_tokens_refused_total") - before == refused)
    client = Polled(token)
    client.begin(*ways)


def test_a_flood_of_posts_for_one_connection_is_read_in_turn(served: Program, ways: list[Line]) -> None:
    client = Polled(ways[0].negotiate())
    client.begin(ways[1])
    flood = [Line(served.address) for _ in range(200)]
    call = {"type": 1, "target": "size", "invocationId": "", "arguments": ["x" * 5_000]}
    for number, line in enumerate(flood):
        line.send("POST", client.target, json.dumps({**call, "invocationId": str(number)}).encode() + END)
    answered = [line.answer().status for line in flood]
    assert answered == [200] * 200
    told: set[object] = set()
    while len(told) < 200:
        told |= {one["invocationId"] for one in client.poll(ways[2])}


def killed(process: int) -> None:
    """A worker dies."""
    os.kill(process, signal.SIGKILL)


def test_a_killed_worker_s_polls_and_posts_are_404_and_other_clients_stay(tmp_path: Path) -> None:
    with program(tmp_path) as served:
        ways = lines(served.address, WORKERS)
        # Theirs: the connection is at 0. The others': at 1, of which 0 has issued the token.
        theirs, stays = Polled(ways[2].negotiate()), Polled(ways[0].negotiate())
        theirs.begin(ways[0], ways[1])
        stays.begin(ways[1], ways[2])
        at, process, _ = theirs.call([ways[1], ways[2]], "worker")
        assert at == ways[0].worker
        ways[3].send("GET", theirs.target)
        until_in_thread(lambda: stays.call([ways[2]], "size", "x") == 1)
        killed(process)
        answer = ways[3].answer()
        assert (answer.status, answer.body) == (404, b"No Connection with that ID")
        for method in ("GET", "POST", "DELETE"):
            for line in lines(served.address, WORKERS - 1):
                assert line.ask(method, theirs.target, b"{}").status == 404
        ways = [ways[0], *lines(served.address, WORKERS - 1)]  # those that were refused something are closed
        for turn in range(1, 4):
            assert stays.call([ways[turn], ways[turn % 3 + 1]], "worker")[0] == ways[1].worker
        # The worker that comes in its place has heard of none of them.
        served.until("serving on .* with uring|serving on .* with epoll", WORKERS + 1)
        fresh = [line for line in lines(served.address, WORKERS) if line.worker >= WORKERS]
        assert stays.call(fresh, "worker")[0] == ways[1].worker


def test_a_token_whose_issuer_died_is_taken_once_and_only_while_it_is_fresh(tmp_path: Path) -> None:
    with program(tmp_path) as served:
        ways = lines(served.address, WORKERS)
        probe = Polled(ways[0].negotiate())
        probe.begin(ways[0])
        _, process, _ = probe.call([ways[0]], "worker")
        tokens = [ways[0].negotiate() for _ in range(20)]
        killed(process)
        taken = Counter[str]()
        for token in tokens:
            asking = [line for line in lines(served.address, 3) if line.worker != ways[0].worker]
            with ThreadPoolExecutor(3) as pool:
                taken.update(pool.map(lambda line: line.upgrade(token).partition(" ")[2][:3], asking))  # noqa: B023
        assert taken["101"] == 20, taken
        assert set(taken) <= {"101", "404", "409"}, taken


def test_a_restart_ends_a_client_with_its_own_worker_and_no_other(tmp_path: Path) -> None:
    """Its polls come in at workers that end before."""
    with program(tmp_path) as served:
        ways = lines(served.address, WORKERS)
        clients = [Polled(ways[home].negotiate()) for home in range(WORKERS)]
        for number, client in enumerate(clients):
            client.begin(ways[number])
            assert client.call([ways[number]], "size", "x") == 1
        # The last one's poll waits at the first worker, which is replaced first.
        ways[0].send("GET", clients[-1].target)
        served.process.send_signal(signal.SIGUSR2)
        answer = ways[0].answer()
        assert (answer.status, answer.body) == (200, b""), "it is to poll again"
        statuses = []
        while not statuses or statuses[-1] == 200:
            with suppress(AssertionError, ConnectionError):  # a worker may close it between two requests
                statuses.append(Line(served.address).ask("GET", clients[-1].target).status)
        assert statuses[-1] in (204, 404)
        served.until("^restarted")
        for client in clients:
            status = 200
            while status == 200:  # the last of the old ones may be about to end
                with suppress(AssertionError, ConnectionError):
                    status = Line(served.address).ask("GET", client.target).status
            assert status in (204, 404)
        again = Polled(Line(served.address).negotiate())
        again.begin(*lines(served.address, WORKERS))


@pytest.mark.skipif(NGINX is None, reason="there is no nginx")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate")
def test_hundreds_of_polling_clients_behind_one_nginx(served: Program, tmp_path: Path) -> None:
    with keeping_nginx(tmp_path, served.address) as address:
        own = [Line(address) for _ in range(CLIENTS)]
        polled = [Polled(line.negotiate()) for line in own]
        for client, line in zip(polled, own, strict=True):
            client.begin(line)
        posting = [Line(address) for _ in range(8)]
        at: Counter[object] = Counter()
        for _ in range(3):
            for client, line in zip(polled, own, strict=True):
                line.send("GET", client.target)
            for numbers in batched(range(CLIENTS), len(posting)):
                for number, line in zip(numbers, posting, strict=False):
                    call = {"type": 1, "invocationId": str(number), "target": "worker", "arguments": []}
                    line.send("POST", polled[number].target, json.dumps(call).encode() + END)
                assert {line.answer().status for _, line in zip(numbers, posting, strict=False)} == {200}
            for number, (client, line) in enumerate(zip(polled, own, strict=True)):
                (completion,) = client.told(line, line.answer())
                assert completion["invocationId"] == str(number), "what each asked, each was answered"
                at[completion["result"][0]] += 1
        assert sum(at.values()) == 3 * CLIENTS and len(at) > 1, at


def batched(numbers: Iterable[int], count: int) -> Iterator[list[int]]:
    """So many at a time."""
    left = iter(numbers)
    while some := list(islice(left, count)):
        yield some
