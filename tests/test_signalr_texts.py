"""What SignalR clients are told, letter by letter as ASP.NET Core words it, and which transports they may use."""

import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from support.clients import connected
from support.hub_client import hub_client, negotiate
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
BINDING = (
    "InvalidDataException: Error binding arguments. Make sure that the types of the provided values match the types of"
    " the hub method being invoked."
)


async def request(method: str, url: str, **options: Any) -> httpx.Response:
    """A request, as any HTTP client makes it."""
    return await run_sync(partial(httpx.request, method, url, trust_env=False, timeout=100, **options))


def told(hub: fanwire.Hub) -> None:
    """Methods that raise, each in its way."""

    @hub.method("Add")
    def add(client: fanwire.Client, a: int, b: int) -> int:
        return a + b

    @hub.method("Crash")
    async def crash(client: fanwire.Client) -> None:
        raise RuntimeError("a secret")

    @hub.method("Fail")
    def fail(client: fanwire.Client) -> None:
        raise fanwire.HubError("text")

    @hub.method("Sum")
    async def total(client: fanwire.Client, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @hub.method("Break")
    async def broken(client: fanwire.Client) -> AsyncIterator[int]:
        yield 0
        raise LookupError("gone")

    @hub.method("Odd")
    def odd(client: fanwire.Client) -> object:
        return object()


# With EnableDetailedErrors, and without. The first is what signalr-origin --detailed-errors answers to the same calls,
# with the names of .NET's exceptions for Python's, and behind BINDING which argument it was.
ERRORS: list[tuple[str, list[Any], str, str]] = [
    (
        "crash",
        [],
        "An unexpected error occurred invoking 'Crash' on the server.",
        " RuntimeError: a secret",
    ),
    ("fail", [], "An unexpected error occurred invoking 'Fail' on the server. HubException: text", ""),
    (
        "absent",
        [],
        "Failed to invoke 'absent' due to an error on the server. HubException: Method does not exist.",
        "",
    ),
    (
        "add",
        [1],
        "Failed to invoke 'Add' due to an error on the server.",
        " InvalidDataException: Invocation provides 1 argument(s) but target expects 2.",
    ),
    (
        "add",
        [1, 2, 3],
        "Failed to invoke 'Add' due to an error on the server.",
        " InvalidDataException: Invocation provides 3 argument(s) but target expects 2.",
    ),
    (
        "ADD",
        ["x", 1],
        "Failed to invoke 'Add' due to an error on the server.",
        f" {BINDING} argument 'a': Expected `int`, got `str`",
    ),
]


@pytest.mark.parametrize("is_detailed", [False, True])
async def test_exceptions_are_told_as_the_hub_says(
    hub: fanwire.Hub, is_detailed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told(hub)
    caplog.set_level(logging.CRITICAL, "fanwire")
    async with (
        hub.serve(ANY, detailed_errors=is_detailed) as serving,
        hub_client(serving.address) as client,
    ):
        for target, arguments, text, detail in ERRORS:
            assert await client.invoke(target, *arguments) == {"error": text + detail * is_detailed}
        answer = (await client.invoke("odd"))["error"]
        unexpected = "An unexpected error occurred invoking 'Odd' on the server."
        assert answer.startswith(f"{unexpected} UnsupportedType: " if is_detailed else unexpected)
        await client.send({"type": 4, "invocationId": "s", "target": "break", "arguments": []})
        assert (await client.receive())["item"] == 0
        streaming = "An error occurred on the server while streaming results."
        assert (await client.receive())["error"] == streaming + " LookupError: gone" * is_detailed
        call = {"type": 1, "invocationId": "1", "target": "sum", "arguments": [], "streamIds": ["u"]}
        await client.send(call, {"type": 2, "invocationId": "u", "item": "x"})
        upload = (
            "An unexpected error occurred invoking 'Sum' on the server. HubException: Failed to bind Stream message."
        )
        detail = " InvalidDataException: item of 'numbers': Expected `int`, got `str`"
        assert (await client.receive())["error"] == upload + detail * is_detailed


@pytest.mark.parametrize("is_detailed", [False, True])
async def test_a_close_tells_what_the_hub_says(
    hub: fanwire.Hub, is_detailed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "fanwire")

    @hub.on_connect
    async def greet(client: fanwire.Client) -> None:
        await anyio.lowlevel.checkpoint()
        if client.identity is not None:
            raise ValueError("no room")

    hub.authenticate(lambda request: request.query.get("user"))
    closed = "Connection closed with an error."
    handshake = "An unexpected error occurred during connection handshake."
    async with hub.serve(ANY, detailed_errors=is_detailed) as serving:
        async with hub_client(serving.address, query="?user=ann") as client:
            error = closed + " ValueError: no room" * is_detailed
            assert await client.receive() == {"type": 7, "error": error}
        for bad, detail in [
            ('{"type":1,"target":"x"}', "arguments is missing"),
            ('{"type":3,"invocationId":""}', "invocationId is missing"),
        ]:
            async with hub_client(serving.address) as client:
                await client.peer.send(f"{bad}\x1e")
                error = closed + f" InvalidDataException: {detail}" * is_detailed
                assert await client.receive() == {"type": 7, "error": error, "allowReconnect": True}
        async with connected(serving.address, "/signalr") as peer:
            await peer.send('{"protocol":"json"}\x1e')
            error = handshake + " InvalidDataException: version is missing" * is_detailed
            assert await peer.receive() == f'{{"error":"{error}"}}\x1e'
        async with connected(serving.address, "/ws?user=bob") as peer:
            assert await peer.closed() == (1011, "internal error" + ": ValueError: no room" * is_detailed)


async def test_the_raw_protocol_tells_details_where_the_hub_does(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "fanwire")
    told(hub)

    @hub.on_message
    def message(client: fanwire.Client, data: str | bytes) -> None:
        raise OSError("disk full")

    for is_detailed in (False, True):
        async with hub.serve(ANY, detailed_errors=is_detailed) as serving, connected(serving.address) as peer:
            await peer.send('{"call":"Crash","args":[],"id":1}')
            text = "internal error" + ": RuntimeError: a secret" * is_detailed
            assert await peer.receive_json() == {"id": 1, "error": text}
            await peer.send("anything")
            assert await peer.receive_json() == {"error": "internal error" + ": OSError: disk full" * is_detailed}


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_refusal_is_told_without_a_line_s_end(hub: fanwire.Hub, is_async: bool) -> None:
    """The JavaScript client shows the body as it is: `Error: no such user: Status code '403'`."""
    if is_async:

        @hub.authenticate
        async def later(request: fanwire.Request) -> str:
            await anyio.lowlevel.checkpoint()
            raise fanwire.Refused("no such user", status=403)

    else:

        @hub.authenticate
        def refuse(request: fanwire.Request) -> str:
            raise fanwire.Refused("no such user", status=403)

    async with hub.serve(ANY) as serving:
        url = f"http://{serving.address}/signalr"
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        }
        for method, path, headers in [
            ("POST", "/negotiate?negotiateVersion=1", {}),
            ("GET", "", upgrade),
        ]:
            answer = await request(method, url + path, headers=headers)
            assert (answer.status_code, answer.text) == (403, "no such user")
            assert answer.headers["content-type"].startswith("text/plain")
        for method, path, status, text in [
            ("GET", "?id=abc", 404, "No Connection with that ID"),
            ("GET", "", 400, "Connection ID required"),
            ("POST", "", 400, "Connection ID required"),
            ("PUT", "", 405, ""),
        ]:
            answer = await request(method, url + path)
            assert (answer.status_code, answer.text) == (status, text)
        # Elsewhere text ends in a line's end, as shells like it.
        assert (await request("GET", f"http://{serving.address}/events?channel=a")).text == "no such user\n"


async def test_a_path_offers_the_transports_that_it_may(hub: fanwire.Hub) -> None:
    hub.endpoint("/sockets", transports=["WebSockets"])
    hub.endpoint("/polls", transports=["LongPolling"])
    hub.endpoint("/any", transports=["WebSockets", "ServerSentEvents", "LongPolling"])
    offered = {
        "/signalr": ["WebSockets", "ServerSentEvents"],
        "/sockets": ["WebSockets"],
        "/polls": ["LongPolling"],
        "/any": ["WebSockets", "ServerSentEvents", "LongPolling"],
    }
    async with hub.serve(ANY, signalr_transports=("ServerSentEvents", "WebSockets")) as serving:
        for path, names in offered.items():
            reply = await run_sync(negotiate, serving.address, path)
            assert [one["transport"] for one in reply["availableTransports"]] == names
            url = f"http://{serving.address}{path}?id={reply['connectionToken']}"
            for name in {"LongPolling", "ServerSentEvents"} - set(names):
                headers = {"Accept": "text/event-stream"} if name == "ServerSentEvents" else {}
                answer = await request("GET", url, headers=headers)
                text = f"{name} transport not supported by this end point type"
                assert (answer.status_code, answer.text) == (404, text)
            if "LongPolling" not in names:
                assert (await request("POST", url, content=b"{}")).status_code == 404
            if "WebSockets" in names:
                async with hub_client(serving.address, path) as client:
                    await client.send({"type": 7})
                    assert await client.receive() == {"type": 7}
            else:
                upgrade = {
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
                }
                answer = await request("GET", url.partition("?")[0], headers=upgrade)
                text = "WebSockets transport not supported by this end point type"
                assert (answer.status_code, answer.text) == (404, text)
        await until(lambda: hub.stats().connections == 0)


def test_transports_that_there_are_not_are_an_error() -> None:
    for transports, text in [
        (["Carrier"], r"transports\[0\] must be 'WebSockets', 'ServerSentEvents' or 'LongPolling', not 'Carrier'"),
        ([], "transports must be a non-empty list of transports"),
    ]:
        with pytest.raises(ValueError, match=text):
            fanwire.Hub(signalr_transports=transports)
        with pytest.raises(ValueError, match=text):
            fanwire.Hub().endpoint("/chat", transports=transports)
    with pytest.raises(TypeError, match="signalr_transports must be a non-empty list of"):
        fanwire.Hub(signalr_transports="WebSockets")


async def test_why_on_connect_turns_a_client_away_is_told_in_full(hub: fanwire.Hub) -> None:
    """The bound of 123 bytes is a WebSocket close frame's; a Close message has none such."""
    why = "no more than so many clients of a kind may be connected at once, " * 20

    @hub.on_connect
    def turn_away(client: fanwire.Client) -> None:
        raise fanwire.HubError(why)

    async with hub.serve(ANY) as serving, hub_client(serving.address, "/signalr") as client:
        closed = await client.receive()
        assert closed == {"type": 7, "error": f"Connection closed with an error. HubException: {why}"}
