"""Plain WebSockets through `fanwire serve`, in front of a real ASP.NET Core backend's `/plain`."""

import json
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import BACKEND_PORT, origin
from relaying import CONFIGURATION, serving
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

pytestmark = pytest.mark.timeout(60)
WITHIN_S = 10.0
RELAYS = """
[[relay]]
path = "/by-query"
upstream = "{upstream}/plain"
protocol = "websocket"
linger = "0s"
admit = "anyone"

[[relay.share]]
query = ["match"]

[[relay]]
path = "/by-message"
upstream = "{upstream}/plain"
protocol = "websocket"
linger = "0s"

[[relay.share]]
subscribe = "/watch"
unsubscribe = "/unwatch"

[[relay]]
path = "/private"
upstream = "{upstream}/plain"
protocol = "websocket"

[[relay]]
path = "/nothing"
upstream = "{upstream}/no-such-path"
protocol = "websocket"
"""


class Feed:
    """The backend's control, the relay's address, and its log."""

    def __init__(self, control: httpx.Client, relay: str, log: Path) -> None:
        self.relay, self.log = relay, log
        self._client = control

    def stats(self) -> dict[str, Any]:
        """What it has seen."""
        stats: dict[str, Any] = self._client.get("/stats").json()
        return stats

    def publish(self, match: str, count: int) -> None:
        """So many back to back."""
        self._client.post("/publish", params={"matches": match, "count": count, "size": 300}).raise_for_status()

    def connections(self) -> int:
        """Those of `/plain`, now."""
        return int(self.stats()["by"].get("plain", 0))

    def client(self, stack: ExitStack, target: str, **options: Any) -> ClientConnection:
        """Connected until the stack ends."""
        return stack.enter_context(connect(f"ws://{self.relay}{target}", proxy=None, open_timeout=WITHIN_S, **options))


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feed]:
    """A backend of its own with a relay in front."""
    with origin(BACKEND_PORT) as hub:
        configuration = CONFIGURATION.format(address="127.0.0.1:0") + RELAYS.format(upstream=hub.url)
        folder = tmp_path_factory.mktemp("relay")
        with (
            serving(configuration, folder) as (_, address),
            httpx.Client(base_url=hub.url, trust_env=False) as control,
        ):
            yield Feed(control, address, folder / "relay.log")


@pytest.fixture(autouse=True)
def nobody(feed: Feed) -> None:
    """Each test begins with a backend that nobody is connected to."""
    until(lambda: feed.connections() == 0)


def until(condition: Callable[[], object]) -> None:
    """Return once it is true."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s"
        select.select([], [], [], 0.01)


def read(client: ClientConnection, count: int) -> list[Any]:
    """The next messages."""
    return [json.loads(client.recv(timeout=WITHIN_S)) for _ in range(count)]


def numbers(client: ClientConnection, match: str, count: int) -> list[int]:
    """The numbers of the next publications, which are of that match."""
    came = [message for message in read(client, count) if "s" in message]
    assert {message["match"] for message in came} <= {match}
    return [message["s"] for message in came]


def test_connections_that_ask_for_the_same_share_one(feed: Feed) -> None:
    with ExitStack() as stack:
        first = feed.client(stack, "/by-query?match=q1&user=1")
        assert read(first, 1)[0]["type"] == "snapshot"
        others = [feed.client(stack, f"/by-query?user={index}&match=q1") for index in range(20)]
        other = feed.client(stack, "/by-query?match=q2")
        assert read(other, 1)[0]["type"] == "snapshot"
        assert feed.connections() == 2
        feed.publish("q1", 100)
        came = numbers(first, "q1", 100)
        assert came == list(range(came[0], came[0] + 100))
        assert all(numbers(client, "q1", 100) == came for client in others)
        feed.publish("q2", 1)
        assert len(numbers(other, "q2", 1)) == 1


def test_messages_that_ask_for_the_same_share_one(feed: Feed) -> None:
    with ExitStack() as stack:
        clients = [feed.client(stack, "/by-message") for _ in range(10)]
        clients[0].send('{"watch": "w1"}')
        assert read(clients[0], 1)[0]["type"] == "snapshot"
        for client in clients[1:]:
            client.send('{"watch":"w1"}')
            client.send("done")
            assert client.recv(timeout=WITHIN_S) == "done"
        assert feed.stats()["watchers"]["w1"] == 1
        feed.publish("w1", 50)
        came = numbers(clients[0], "w1", 50)
        assert came == list(range(came[0], came[0] + 50))
        assert all(numbers(client, "w1", 50) == came for client in clients[1:])
        for client in clients:
            client.send('{"unwatch":"w1"}')
        until(lambda: "w1" not in feed.stats()["watchers"])


@pytest.mark.parametrize("target", ["/private?match=p1", "/by-query?match=p1", "/by-message"])
def test_what_is_nobody_else_s_is_echoed(target: str, feed: Feed) -> None:
    with ExitStack() as stack:
        clients = [feed.client(stack, target) for _ in range(3)]
        for index, client in enumerate(clients):
            client.send(f"hello {index}")
        for index, client in enumerate(clients):
            while (message := client.recv(timeout=WITHIN_S)) != f"hello {index}":
                assert isinstance(message, str) and '"snapshot"' in message


@pytest.mark.parametrize("target", ["/private?match=p1", "/by-query?match=p1", "/by-message"])
def test_the_subprotocol_is_the_backend_s_choice(target: str, feed: Feed) -> None:
    for offered, chosen in ((["x", "odds.v1"], "odds.v1"), (["x"], None), ([], None)):
        with ExitStack() as stack:
            subprotocols = [Subprotocol(name) for name in offered] or None
            assert feed.client(stack, target, subprotocols=subprotocols).subprotocol == chosen


def test_a_refusal_is_passed_on(feed: Feed) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    assert httpx.get(f"http://{feed.relay}/nothing", headers=upgrade, trust_env=False).status_code == 404


def test_log_says_no_query(feed: Feed) -> None:
    """Its own log: those of other relays of this run tell of lanes that are called so."""
    with ExitStack() as stack:
        client = feed.client(stack, "/by-query?match=told&access_token=secret")
        assert read(client, 1)[0]["type"] == "snapshot"
        client.send("hello")
    until(lambda: feed.connections() == 0)
    log = feed.log.read_text()
    assert "told" in log and "secret" not in log
