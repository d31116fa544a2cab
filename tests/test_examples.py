"""Each example runs as it stands."""

import json
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fanwire
import httpx
import jwt
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from support.chromium import CHROMIUM, chromium
from support.examples import EXAMPLES, before, example
from support.raw import frame, free_port, open_socket, read_frame, read_head, request_text, upgraded
from support.redis import Redis, needs_redis
from support.waiting import until_in_thread

pytestmark = pytest.mark.slow


def test_quickstart_tells_the_time() -> None:
    with example("quickstart.py", "127.0.0.1:0") as line:
        url = urlsplit(line)
        with upgraded(url.netloc, f"{url.path}?{url.query}") as connection:
            assert "now" in json.loads(read_frame(connection).payload)


def test_live_odds_serves_its_page_publishes_odds_and_takes_bets() -> None:
    with example("live_odds.py", "127.0.0.1:0", "0") as line:
        page = urlsplit(line)
        (hub,) = parse_qs(page.query)["hub"]
        assert "EventSource" in httpx.get(f"http://{page.netloc}/", trust_env=False).text
        with upgraded(hub, "/ws?channel=odds:7&user=joe") as connection:
            assert json.loads(read_frame(connection).payload)["home"] > 1
            connection.sendall(frame(1, b'{"call":"PlaceBet","args":["7",10],"id":1}'))
            replies = (json.loads(read_frame(connection).payload) for _ in range(20))
            assert next(reply for reply in replies if "id" in reply)["result"] == {"accepted": True, "bets": 1}


def test_signalr_odds_serves_its_page_sends_odds_and_takes_bets() -> None:
    with example("signalr_odds.py", "127.0.0.1:0", "0") as line:
        page = urlsplit(line)
        (hub,) = parse_qs(page.query)["hub"]
        assert "HubConnectionBuilder" in httpx.get(f"http://{page.netloc}/", trust_env=False).text
        negotiated = httpx.post(f"http://{hub}/odds/negotiate?negotiateVersion=1&user=joe", trust_env=False).json()
        with upgraded(hub, f"/odds?id={negotiated['connectionToken']}&user=joe") as connection:

            def send(**message: object) -> None:
                connection.sendall(frame(1, f"{json.dumps(message)}\x1e".encode()))

            def receive(wanted: int, target: str = "") -> Any:
                while True:
                    for record in read_frame(connection).payload.split(b"\x1e")[:-1]:
                        message = json.loads(record)
                        if message.get("type") == wanted and message.get("target", "") == target:
                            return message

            send(protocol="json", version=1)
            send(type=1, invocationId="1", target="watch", arguments=["7"])
            assert len(receive(3)["result"]) == 3
            assert receive(1, "odds")["arguments"][0] == "7"
            send(type=1, invocationId="2", target="place_bet", arguments=["7", 10])
            send(type=3, invocationId=receive(1, "confirm")["invocationId"], result=True)
            assert receive(1, "bet")["arguments"] == ["10 on match 7"]


@pytest.mark.parametrize("name", ["aiohttp_rooms.py", "websockets_rooms.py"])
def test_what_is_said_in_a_room_reaches_who_is_there(name: str) -> None:
    with example(name, "127.0.0.1:0") as line:
        url = urlsplit(line)
        with upgraded(url.netloc, url.path) as one, upgraded(url.netloc, "/rooms/8") as elsewhere:
            with upgraded(url.netloc, url.path) as other:
                other.sendall(frame(1, b"hello"))
                assert read_frame(one).payload == read_frame(other).payload == b"hello"
                elsewhere.sendall(frame(1, b"and here"))
                assert read_frame(elsewhere).payload == b"and here"
            one.sendall(frame(1, b"alone"))
            assert read_frame(one).payload == b"alone"


def test_a_mounted_hub_is_at_the_program_s_own_port_beside_its_routes() -> None:
    with example("mounted.py", "127.0.0.1:0") as line, httpx.Client(base_url=line, trust_env=False) as http:
        assert "EventSource" in http.get("/").text
        assert http.post("/goals/7", json="1-0").status_code == 401
        sent = http.post("/goals/7", json="1-0", headers={"Authorization": "Bearer editor"})
        assert (sent.status_code, sent.json()) == (200, 1), sent.text
        with http.stream("GET", "/live/events?channel=goals&start=history") as response:
            data = (text.removeprefix("data: ") for text in response.iter_lines() if text.startswith("data: "))
            goal = next(one for one in map(json.loads, data) if "match" in one)
        assert goal == {"match": "7", "score": "1-0", "by": "editor"}


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_rooms_of_django_channels_are_the_same_before_and_after(is_before: bool, tmp_path: Path) -> None:
    program = Path("channels_rooms.py")
    if is_before:
        program = tmp_path / "was.py"
        program.write_text(before("channels_rooms.py", "channels.md"))
        assert "fanwire" not in program.read_text()
        (tmp_path / "channels_rooms").symlink_to(EXAMPLES / "channels_rooms")
    with example(str(program), "127.0.0.1:0") as address, httpx.Client(base_url=address, trust_env=False) as http:
        url = urlsplit(address)
        assert "new WebSocket(" in http.get("/").text
        with joined(url.netloc, "/rooms/7") as one, joined(url.netloc, "/rooms/8") as elsewhere:
            with joined(url.netloc, "/rooms/7") as other:
                said = {"by": "ann", "text": "hällo"}
                other.sendall(frame(1, json.dumps(said).encode()))
                assert json.loads(read_frame(one).payload) == json.loads(read_frame(other).payload) == said
            assert http.post("/tell/7", content="from a view").status_code == 204
            assert json.loads(read_frame(one).payload) == {"by": "the program", "text": "from a view"}
            assert http.post("/tell/8", content="and here").status_code == 204
            assert json.loads(read_frame(elsewhere).payload)["text"] == "and here"


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_in_a_browser_the_page_of_the_channels_example_says_and_hears(tmp_path: Path) -> None:
    with example("channels_rooms.py", "127.0.0.1:0") as address, chromium(tmp_path) as tab:
        tab.open(f"{address}?name=ann&room=9")
        until_in_thread(lambda: tab.evaluate("typeof socket === 'object' && socket.readyState") == 1)
        tab.evaluate("byId('text').value = 'hello'; byId('say').requestSubmit()")
        shown = "[...document.querySelectorAll('#said li')].map(line => line.textContent)"
        until_in_thread(lambda: tab.evaluate(shown) == ["ann hello"])


def joined(address: str, target: str) -> socket:
    """A WebSocket of a page that the program itself serves."""
    connection = open_socket(address)
    connection.sendall(request_text(target, origin=f"http://{address}"))
    assert " 101 " in read_head(connection)
    return connection


TUTORIALS = """
class ConnectionManager:
    def __init__(self):
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        self.active_connections.remove(websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket):
        await websocket.send_text(message)

    async def broadcast(self, message: str):
        for connection in self.active_connections:
            await connection.send_text(message)
"""
"""The class of FastAPI's documentation, which programs have a copy of."""


@pytest.mark.parametrize("is_before", [True, False])
def test_the_tests_of_a_fastapi_program_are_the_same_before_and_after(is_before: bool) -> None:
    program = (EXAMPLES / "fastapi_rooms.py").read_text()
    if is_before:
        program = program.replace("from fanwire.fastapi import ConnectionManager\n", "")
        program = program.replace("\nSECRET = ", f"{TUTORIALS}\nSECRET = ", 1)
        assert "fanwire.fastapi" not in program
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(program, "program", "exec", dont_inherit=True), names)
    token = jwt.encode({"sub": "ann"}, names["SECRET"])
    with TestClient(names["app"]) as client:
        signed_in = f"/ws?token={token}"
        with client.websocket_connect(signed_in) as one, client.websocket_connect(signed_in) as two:
            one.send_text("hello")
            assert [one.receive_text(), one.receive_text()] == ["You wrote: hello", "ann: hello"]
            assert two.receive_text() == "ann: hello"
            one.close()
            assert two.receive_text() == "ann left"
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws?token=x"):
            pass


def test_a_chat_with_a_login_in_fastapi_serves_who_is_signed_in() -> None:
    with example("fastapi_rooms.py", "127.0.0.1:0") as line:
        url = urlsplit(line)
        with upgraded(url.netloc, f"{url.path}?{url.query}") as one, upgraded(url.netloc, f"/ws?{url.query}") as two:
            two.sendall(frame(1, b"hello"))
            assert read_frame(two).payload == b"You wrote: hello"
            assert read_frame(one).payload == read_frame(two).payload == b"ann: hello"


@pytest.mark.parametrize("name", ["aiohttp", "fastapi", "websockets"])
def test_what_a_page_says_that_differs_is_what_the_example_has(name: str) -> None:
    page = (EXAMPLES.parent / "docs" / f"{name}.md").read_text()
    difference = page.partition("```diff\n")[2].partition("```")[0]
    program = (EXAMPLES / f"{name}_rooms.py").read_text()
    after = [line[1:] for line in difference.splitlines() if line[:1] in "+ " and line.strip("+ ")]
    assert [line for line in after if line not in program] == []
    assert not [line for line in difference.splitlines() if line.startswith("-") and line[1:] in program]


def test_the_readme_shows_the_quickstart_as_it_is() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    assert f"```python\n{(EXAMPLES / 'quickstart.py').read_text()}```" in readme


def test_every_example_is_tested() -> None:
    source = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in source, path.name


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_to_run_it(path: Path) -> None:
    assert f"python examples/{path.name}" in path.read_text()


def first_event(address: str, last_event_id: str = "") -> tuple[str, str]:
    """Id and data of the first publication of an event stream."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with httpx.stream("GET", address, headers=headers, trust_env=False, timeout=60) as answer:
        found: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            found[name] = value
            if not line and "id" in found and "data" in found and "event" not in found:
                return found["id"], found["data"]
            found = found if line else {}
    raise AssertionError("the stream has ended")


@needs_redis
def test_a_client_of_one_machine_goes_on_at_another(redis: Redis) -> None:
    ports = [str(free_port(some)) for some in (range(26_000, 27_000), range(27_000, 28_000))]
    with (
        example("machines.py", ports[0], redis.url) as first,
        example("machines.py", ports[1], redis.url) as second,
        fanwire.Publisher(redis.url) as publisher,
    ):
        publisher.publish("odds:7", {"home": 1.85})
        until_in_thread(lambda: is_listening(ports[0]) and is_listening(ports[1]))
        position, data = first_event(f"{first}&start=history")
        assert json.loads(data) == {"home": 1.85}
        publisher.publish("odds:7", {"home": 1.9})
        _, data = first_event(second, position)
        assert json.loads(data) == {"home": 1.9}


def is_listening(port: str) -> bool:
    """Whether somebody can connect there."""
    with socket() as one:
        return one.connect_ex(("127.0.0.1", int(port))) == 0
