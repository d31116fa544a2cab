"""Subprotocols and response headers: chosen by option or callback, set by callbacks, and tokens in no log."""

import logging
from typing import Any

import anyio
import fanwire
import httpx
import pytest
from anyio.to_thread import run_sync
from fanwire.testing import NotAccepted, serving
from support.clients import connected
from support.hub_client import hub_client
from support.waiting import until

pytestmark = pytest.mark.anyio
TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2VjcmV0"
NOT_CHOSEN = "a client offered subprotocols and none was chosen"


async def test_the_client_s_first_that_the_hub_knows_is_chosen(hub: fanwire.Hub) -> None:
    async with serving(hub, subprotocols=("chat.v1", "chat.v2")) as server:
        for offered, chosen in (
            (["chat.v2", "chat.v1"], "chat.v2"),
            (["other", "chat.v1"], "chat.v1"),
            (["msgpack", "chat.v1"], "msgpack"),
            ([], None),
        ):
            async with server.connect(subprotocols=offered) as client:
                assert client.subprotocol == chosen


async def test_a_token_of_a_browser_comes_in_and_never_out(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    @hub.authenticate
    async def who(request: fanwire.Request) -> str:
        match request.subprotocols:
            case ["access_token", token]:
                request.subprotocol = "access_token"
                seen.append((token, repr(request), str(request.response_headers)))
                return "ann"
        raise fanwire.Refused("sign in first")

    with caplog.at_level(logging.DEBUG):
        async with serving(hub) as server:
            async with server.connect("/ws?channel=a", subprotocols=["access_token", TOKEN]) as client:
                assert client.subprotocol == "access_token"
                assert client.response_headers["Sec-WebSocket-Protocol"] == "access_token"
                hub.publish("a", {"x": 1})
                assert await client.receive() == {"x": 1}
            with pytest.raises(NotAccepted, match="sign in first"):
                async with server.connect(subprotocols=["other", TOKEN]):
                    raise AssertionError
    assert [token for token, *_ in seen] == [TOKEN]
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("fanwire")]
    told = str(logged) + "".join(capfd.readouterr()) + str([rest for _, *rest in seen])
    assert TOKEN not in told


@pytest.mark.parametrize("is_asked", [False, True])
async def test_one_that_nobody_chose_is_told_of_once_without_its_name(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture, is_asked: bool
) -> None:
    if is_asked:
        hub.on_connect(lambda client: None)
    with caplog.at_level(logging.WARNING):
        async with hub.serve("127.0.0.1:0") as served:
            for _ in range(3):
                async with connected(served.address, additional_headers={"Sec-WebSocket-Protocol": f"x, {TOKEN}"}):
                    pass
            await until(lambda: NOT_CHOSEN in caplog.text)
            async with connected(served.address):
                pass
    assert caplog.text.count(NOT_CHOSEN) == 1
    assert "Hub(subprotocols=[...])" in caplog.text
    assert TOKEN not in caplog.text


async def test_what_cannot_be_chosen_is_an_error_that_shows_no_token(
    hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.authenticate
    def who(request: fanwire.Request) -> None:
        with pytest.raises(ValueError, match="only a subprotocol that the client offers") as raised:
            request.subprotocol = "mine"
        assert TOKEN not in str(raised.value)
        if "msgpack" in request.subprotocols:
            with pytest.raises(ValueError, match="msgpack is chosen"):
                request.subprotocol = TOKEN

    async with serving(hub) as server, server.connect(subprotocols=[TOKEN]):
        pass
    assert "raised" not in caplog.text


@pytest.mark.parametrize("names", [["a b"], [""], [7], ["a\r\nX: y"]])
def test_a_name_that_is_no_token_is_refused(names: list[Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"subprotocols\[0\] must be a token"):
        fanwire.Hub(subprotocols=names)
    with pytest.raises(TypeError, match="must be a list of tokens"):
        fanwire.Hub(subprotocols="chat")


async def test_a_signalr_client_s_upgrade_has_the_chosen_one_too(hub: fanwire.Hub) -> None:
    hub.method("ping")(lambda client: "pong")
    async with (
        hub.serve("127.0.0.1:0", subprotocols=["chat"]) as served,
        hub_client(served.address, subprotocols=["chat"]) as client,
    ):
        assert await client.invoke("ping") == {"result": "pong"}
        assert client.peer.subprotocol == "chat"


class TestResponseHeaders:
    async def test_they_stand_in_the_answer_of_each_way_to_connect(self, hub: fanwire.Hub) -> None:
        @hub.authenticate
        async def who(request: fanwire.Request) -> str:
            request.response_headers["X-Node"] = "0"
            request.response_headers["x-node"] = "7"
            request.response_headers.add("Set-Cookie", "a=1; HttpOnly")
            request.response_headers.add("Set-Cookie", "b=2")
            return "ann"

        def look(url: str, method: str) -> httpx.Headers:
            with httpx.stream(method, url, timeout=100) as response:
                assert response.status_code == 200
                return response.headers

        async with serving(hub, "127.0.0.1:0") as server:
            async with server.connect() as client:
                assert client.response_headers["X-Node"] == "7"
                assert client.response_headers.all("set-cookie") == ["a=1; HttpOnly", "b=2"]
            for url, method in (("/events?channel=a", "GET"), ("/signalr/negotiate?negotiateVersion=1", "POST")):
                headers = await run_sync(look, server.url(url), method)
                assert headers["x-node"] == "7"
                assert headers.get_list("set-cookie") == ["a=1; HttpOnly", "b=2"]

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_they_stand_in_a_refusal_too(self, hub: fanwire.Hub, is_async: bool) -> None:
        def refuse(request: fanwire.Request) -> None:
            request.response_headers["WWW-Authenticate"] = 'Bearer realm="odds"'
            raise fanwire.Refused("sign in first", status=401)

        async def refuse_later(request: fanwire.Request) -> None:
            await anyio.lowlevel.checkpoint()
            refuse(request)

        hub.authenticate(refuse_later if is_async else refuse)
        async with serving(hub) as server:
            with pytest.raises(NotAccepted) as raised:
                async with server.connect():
                    raise AssertionError
        assert raised.value.status == 401
        assert raised.value.headers.all("WWW-Authenticate") == ['Bearer realm="odds"']

    async def test_authorize_sets_them_through_the_client(self, hub: fanwire.Hub) -> None:
        @hub.authorize
        def may(client: fanwire.Client, channel: str) -> bool:
            client.request.response_headers["Retry-After"] = "60"
            return False

        async with serving(hub) as server:
            with pytest.raises(NotAccepted) as raised:
                async with server.connect("/ws?channel=a"):
                    raise AssertionError
        assert (raised.value.status, raised.value.headers["Retry-After"]) == (403, "60")

    @pytest.mark.parametrize(
        "header", [("X-A", "1\r\nX-B: 2"), ("Content-Length", "5"), ("Sec-WebSocket-Protocol", "x"), ("a b", "c")]
    )
    async def test_one_that_would_forge_an_answer_is_the_callback_s_error(
        self, hub: fanwire.Hub, header: tuple[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        @hub.authenticate
        def who(request: fanwire.Request) -> None:
            request.response_headers.add(*header)

        async with serving(hub) as server:
            with pytest.raises(NotAccepted) as raised:
                async with server.connect():
                    raise AssertionError
        assert raised.value.status == 500
        assert "authenticate 'who', on the opening of client" in caplog.text
        assert "X-B" not in raised.value.headers
