"""What is registered is checked at once, or where its names are not there yet, when the hub serves."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pydantic
import pytest
from support.clients import connected
from support.hub_client import hub_client
from support.waiting import until

ANY = "127.0.0.1:0"


class Plain:
    """Nothing reads it."""


@pytest.mark.parametrize(
    ("name", "function", "says"),
    [
        ("authenticate", lambda: None, "authenticate is called as <lambda>(request), but it takes no 'request'"),
        (
            "authorize",
            lambda client: True,
            "called as <lambda>(client, channel), but it takes no 'channel'",
        ),
        ("on_connect", lambda client, more: None, "its parameter 'more' gets nothing and has no default"),
        ("on_disconnect", lambda client: None, "but it takes no 'gone'"),
        ("on_message", lambda client, *, data: None, "but it takes no 'data'"),
        ("on_presence", lambda change, *, more: None, "its parameter 'more' gets nothing and has no default"),
        ("method", lambda: None, "method '<lambda>' is called as <lambda>(client, …), but it takes no 'client'"),
        ("method", lambda client, *, stake: None, "its parameter 'stake' gets nothing and has no default"),
        ("on_message", 3, "on_message must be a function, not int"),
        ("method", 3, "method takes a function, or the name to register it by, a str, not 3"),
    ],
)
def test_parameters_are_checked_when_registered(name: str, function: Any, says: str) -> None:
    hub = fanwire.Hub()
    with pytest.raises(TypeError) as raised:
        getattr(hub, name)(function)
    assert says in str(raised.value)
    for rightly in (lambda *anything: None, print):
        getattr(fanwire.Hub(), name)(rightly)


def test_a_snapshot_and_a_method_of_an_endpoint_are_checked() -> None:
    hub = fanwire.Hub()
    with pytest.raises(TypeError, match=r"snapshot of 'a' is called as .*, but it takes no 'channel'"):
        hub.snapshot("a")(lambda: None)  # type: ignore[arg-type, misc]
    with pytest.raises(TypeError, match="but it takes no 'client'"):
        hub.endpoint("/chat").method("x")(lambda: None)  # type: ignore[arg-type, misc]


def test_what_has_defaults_or_takes_the_rest_may_be_registered() -> None:
    class Handler:
        def __call__(self, client: fanwire.Client, data: str | bytes, more: int = 0) -> None: ...

        def bound(self, client: fanwire.Client, channel: str) -> bool:
            return True

    hub = fanwire.Hub()
    hub.on_message(Handler())
    hub.authorize(Handler().bound)
    with pytest.raises(TypeError, match="has no name of its own"):
        hub.method(Handler())


@pytest.mark.parametrize("type_", [Plain, list[Plain], dict[str, Plain | None], complex, Callable[[], int]])
def test_an_annotation_that_nothing_can_read_names_the_parameter(type_: Any) -> None:
    def method(client: fanwire.Client, fine: int, thing: Any) -> None: ...

    method.__annotations__["thing"] = type_
    with pytest.raises(TypeError, match=r"method 'method': argument 'thing' cannot be of type .*: nothing reads a "):
        fanwire.Hub().method(method)


def test_an_annotation_inside_a_dataclass_or_a_stream_counts() -> None:
    @dataclass
    class Bet:
        on: Plain

    async def take(client: fanwire.Client, bet: Bet) -> None: ...
    async def stream(client: fanwire.Client, bets: AsyncIterator[Plain]) -> None: ...

    for function, parameter in ((take, "bet"), (stream, "bets")):
        with pytest.raises(TypeError, match=f"argument '{parameter}' cannot be of type .*nothing reads a .*Plain"):
            fanwire.Hub().method(function)


def later(client: fanwire.Client, bet: "Later", items: "list[Later]") -> int:
    """Its types are defined below."""
    return bet.stake + len(items)


def never(client: fanwire.Client, bet: "Never") -> None:  # type: ignore[name-defined] # noqa: F821
    """Its type is defined nowhere."""


EARLY = fanwire.Hub()
EARLY.method(later)


@dataclass
class Later:
    """Is defined after the method was registered."""

    stake: int


@pytest.mark.anyio
async def test_a_name_that_is_defined_later_is_read_when_the_hub_serves() -> None:
    async with EARLY.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send_json(call="later", args=[{"stake": 5}, [{"stake": 1}]], id=1)
        assert await peer.receive_json() == {"id": 1, "result": 6}
        await peer.send_json(call="later", args=[{"stake": "x"}, []], id=2)
        assert "Expected `int`, got `str` - at `$.stake`" in (await peer.receive_json())["error"]


@pytest.mark.anyio
async def test_a_name_that_is_defined_nowhere_is_an_error_when_the_hub_serves() -> None:
    hub = fanwire.Hub()
    hub.method(never)
    with pytest.raises(TypeError, match="argument 'bet' is annotated 'Never', but name 'Never' is not defined"):
        await hub.start(ANY)
    with pytest.raises(fanwire.HubStopped):
        hub.stats()


class Order(pydantic.BaseModel):
    """A model of pydantic's."""

    match: int
    stake: float = pydantic.Field(gt=0)


@pytest.mark.anyio
async def test_models_of_pydantic_are_read_by_pydantic() -> None:
    hub = fanwire.Hub()

    @hub.method
    def order(client: fanwire.Client, order: Order, more: list[Order]) -> list[Any]:
        assert isinstance(order, Order)
        return [order.match, order.stake, len(more)]

    async with hub.serve(ANY) as serving, connected(serving.address) as peer:
        await peer.send_json(call="order", args=[{"match": 7, "stake": 1.5}, [{"match": 8, "stake": 2}]], id=1)
        assert await peer.receive_json() == {"id": 1, "result": [7, 1.5, 1]}
        await peer.send_json(call="order", args=[{"match": "x", "stake": 0}, []], id=2)
        error = (await peer.receive_json())["error"]
        assert "argument 'order'" in error
        assert "match: Input should be a valid integer" in error
        assert "stake: Input should be greater than 0" in error


class TestPlainGenerators:
    """As streams: SignalR clients get them item by item."""

    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", ["generator", "iterator", "async iterator"])
    async def test_they_are_streams(self, hub: fanwire.Hub, kind: str) -> None:
        def generated(client: fanwire.Client, count: int) -> Iterator[int]:
            yield from range(count)

        def returned(client: fanwire.Client, count: int) -> Iterator[int]:
            return iter(range(count))

        async def counting(count: int) -> AsyncIterator[int]:
            for number in range(count):
                yield number

        def returned_async(client: fanwire.Client, count: int) -> AsyncIterator[int]:
            return counting(count)

        functions: dict[str, Any] = {"generator": generated, "iterator": returned, "async iterator": returned_async}
        hub.method("count")(functions[kind])
        async with hub.serve(ANY) as serving, hub_client(serving.address) as client:
            await client.send({"type": 4, "invocationId": "1", "target": "count", "arguments": [3]})
            assert [await client.receive() for _ in range(4)] == [
                *({"type": 2, "invocationId": "1", "item": item} for item in range(3)),
                {"type": 3, "invocationId": "1"},
            ]

    @pytest.mark.anyio
    async def test_one_without_an_end_holds_up_nobody_and_is_closed(self, hub: fanwire.Hub) -> None:
        ended: list[str] = []

        @hub.method
        def forever(client: fanwire.Client) -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                ended.append("closed")

        hub.method("ping")(lambda client: "pong")
        async with hub.serve(ANY) as serving:
            async with hub_client(serving.address) as greedy, hub_client(serving.address) as other:
                await greedy.send({"type": 4, "invocationId": "1", "target": "forever", "arguments": []})
                assert (await greedy.receive())["item"] == 1
                with anyio.fail_after(60):
                    assert await other.invoke("ping") == {"result": "pong"}
                await anyio.to_thread.run_sync(greedy.peer.break_off)  # it reads no more, a close included
            await until(lambda: ended)


SNIPPET = """
from collections.abc import AsyncIterator
import fanwire
hub = fanwire.Hub()

@hub.authenticate
async def who(request: fanwire.Request) -> fanwire.Identity | None:
    return None

@hub.authorize
async def may(client: fanwire.Client, channel: str) -> bool:
    return True

@hub.on_connect
def greet(client: fanwire.Client) -> None: ...

@hub.on_message
async def take(client: fanwire.Client, data: str | bytes) -> None: ...

@hub.method
async def bet(client: fanwire.Client, match: str, stake: float = 1.0) -> dict[str, object]:
    return {}

@hub.method("Count")
async def count(client: fanwire.Client, to: int) -> AsyncIterator[int]:
    yield 1

@hub.snapshot("a")
def state(channel: str) -> object:
    return None

@fanwire.Hub().client
async def talk(client: fanwire.Client) -> None:
    async for message in client:
        said: str | bytes = message
        raise fanwire.Told("not so")

async def use(client: fanwire.Client) -> fanwire.Position:
    publication = hub.publish("odds:7", {"home": 1.5}, key="1x2", event="odds", keyframe=True, exclude=[client])
    hub.subscribe(client, "odds:7", since=publication)
    hub.publish(fanwire.to.user("ann"), "x", ttl=1.0)
    hub.publish(fanwire.to.all(path="/live"), "x", exclude=client)
    hub.publish(fanwire.to.client(client), b"x", event="y")
    await hub.delivered(hub.remove("odds:7", key="1x2"))
    async with hub.listen("odds:*") as publications:
        async for heard in publications:
            where: fanwire.Position = heard.position
            name: str = heard.channel
    position: fanwire.Position = publication.position
    return await publication if position < hub.position("odds:7") else position

reveal_type(bet)
"""
WRONG = """
import fanwire
hub = fanwire.Hub()

@hub.authorize
def without_channel(client: fanwire.Client) -> bool:
    return True

@fanwire.Hub().authorize
def gives_nothing(client: fanwire.Client, channel: str) -> None: ...

@fanwire.Hub().authorize
async def gives_text(client: fanwire.Client, channel: str) -> str:
    return ""

@hub.authenticate
def gives_int(request: fanwire.Request) -> int:
    return 1

@hub.on_disconnect
def without_gone(client: fanwire.Client) -> None: ...

@hub.method
def without_client() -> int:
    return 1

@hub.client
def not_async(client: fanwire.Client) -> None: ...

hub.publish(fanwire.to.user(5), "x")
hub.publish(7, "x")
hub.remove("odds:7")
"""


@pytest.mark.timeout(120)  # without a cache mypy reads all that fanwire imports: 9 s
@pytest.mark.slow
def test_mypy_strict_knows_a_wrong_callback_from_a_right_one(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(SNIPPET)
    (tmp_path / "wrong.py").write_text(WRONG)
    cache = f"--cache-dir={Path(__file__).parent.parent / '.mypy_cache' / 'snippets'}"
    run = [sys.executable, "-m", "mypy", "--strict", "--config-file=", cache, "right.py", "wrong.py"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("right.py") and ": error" in line] == [], done.stdout
    assert "def (client: fanwire.client.Client, match: str, stake: float =)" in done.stdout.replace("builtins.", "")
    wrong = sorted({int(line.split(":")[1]) for line in lines if line.startswith("wrong.py") and ": error" in line})
    assert wrong == [5, 9, 12, 16, 20, 23, 27, 30, 31, 32], done.stdout
