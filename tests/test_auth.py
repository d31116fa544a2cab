"""Who may connect and what they may watch."""

import gc
import logging
import weakref
from types import SimpleNamespace

import anyio
import fanwire
import pytest
from fanwire.auth import Headers, Query, identity_of
from support.clients import connected, refusal
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"


def request_of(target: str = "/ws", headers: tuple[tuple[str, str], ...] = ()) -> fanwire.Request:
    """A request without a connection."""
    opening = SimpleNamespace(
        subprotocols=[],
        connection=1,
        method="GET",
        target=target,
        headers=list(headers),
        peer="127.0.0.1:9",
        channels=[],
        protocol="raw",
    )
    return fanwire.Request(opening)  # type: ignore[arg-type]


class TestRequest:
    def test_the_query_keeps_every_value_and_gives_the_first(self) -> None:
        request = request_of("/a%20b?x=1&y=%C3%A9&x=2&empty=")
        assert request.path == "/a b"
        assert dict(request.query) == {"x": "1", "y": "é", "empty": ""}
        assert request.query.all("x") == ["1", "2"]
        assert request.query.all("z") == []
        assert request.query.get("X") is None

    def test_headers_have_no_case(self) -> None:
        headers = Headers([("x-a", "1"), ("X-A", "2")])
        assert headers["X-a"] == "1"
        assert headers.all("x-A") == ["1", "2"]
        assert "X-A" in headers

    def test_cookies_are_split_and_unquoted(self) -> None:
        request = request_of(headers=(("cookie", 'a=1; b="two"; a=3; junk; =x'), ("cookie", "c=4")))
        assert request.cookies == {"a": "1", "b": "two", "c": "4"}

    def test_no_repr_shows_a_token(self) -> None:
        request = request_of("/ws?token=SECRET", (("authorization", "Bearer SECRET"), ("cookie", "sid=SECRET")))
        identity = fanwire.Identity("joe", {"token": "SECRET"})
        shown = f"{request!r} {request.query!r} {request.headers!r} {identity!r} {Query([('token', 'SECRET')])}"
        assert "SECRET" not in shown
        assert "authorization" in shown


class TestIdentity:
    def test_a_str_is_an_id(self) -> None:
        assert identity_of("joe") == fanwire.Identity("joe")
        assert identity_of(None) is None

    @pytest.mark.parametrize(("answer", "error"), [("", ValueError), (7, TypeError), (True, TypeError)])
    def test_anything_else_is_refused(self, answer: object, error: type[Exception]) -> None:
        with pytest.raises(error):
            identity_of(answer)


class TestAuthenticate:
    async def test_it_sees_the_request_and_names_the_client(self, hub: fanwire.Hub) -> None:
        seen: list[fanwire.Request] = []
        clients: list[fanwire.Client] = []

        @hub.authenticate
        async def who(request: fanwire.Request) -> fanwire.Identity:
            await anyio.lowlevel.checkpoint()
            seen.append(request)
            return fanwire.Identity(request.cookies["user"], {"vip": True})

        hub.on_message(lambda client, data: clients.append(client))
        async with hub.serve(ANY) as serving:
            target = "/ws?channel=a&token=x%20y"
            async with connected(serving.address, target, additional_headers={"Cookie": "user=joe"}) as peer:
                hub.publish("a", "from the first byte")
                assert await peer.receive() == "from the first byte"
                await peer.send("x")
                await until(lambda: clients)
        assert clients[0].identity == fanwire.Identity("joe")
        assert clients[0].identity.claims == {"vip": True}
        request = seen[0]
        assert (request.method, request.path, request.protocol) == ("GET", "/ws", "raw")
        assert request.query["token"] == "x y"
        assert request.channels == ("a",)
        assert request.peer.startswith("127.0.0.1:")
        assert request.headers["upgrade"] == "websocket"

    async def test_refused_is_answered_with_its_status_and_reason(self, hub: fanwire.Hub) -> None:
        @hub.authenticate
        def who(request: fanwire.Request) -> None:
            raise fanwire.Refused("no token", status=403 if "banned" in request.query else 401)

        async with hub.serve(ANY) as serving:
            assert await refusal(serving.address) == (401, "no token")
            assert await refusal(serving.address, "/ws?banned=1") == (403, "no token")
            await until(lambda: hub.stats().connections == 0)

    async def test_a_reason_that_utf8_does_not_hold_is_sent_all_the_same(self, hub: fanwire.Hub) -> None:
        @hub.authenticate
        def who(request: fanwire.Request) -> None:
            if "bad" in request.query:
                raise fanwire.Refused("lone \ud800 surrogate")

        async with hub.serve(ANY) as serving:
            assert await refusal(serving.address, "/ws?bad=1") == (401, "lone ? surrogate")
            async with connected(serving.address, "/ws?channel=a"):
                await until(lambda: hub.occupancy("a") == 1)

    async def test_a_refused_client_is_forgotten(self, hub: fanwire.Hub) -> None:
        clients: list[weakref.ref[fanwire.Client]] = []

        @hub.authorize
        async def may_watch(client: fanwire.Client, channel: str) -> bool:
            clients.append(weakref.ref(client))
            return False

        async with hub.serve(ANY) as serving:
            assert (await refusal(serving.address, "/ws?channel=a"))[0] == 403
            await until(lambda: gc.collect() >= 0 and clients[0]() is None)

    async def test_another_exception_is_logged_and_tells_nothing(
        self, hub: fanwire.Hub, caplog: pytest.LogCaptureFixture
    ) -> None:
        @hub.authenticate
        async def who(request: fanwire.Request) -> None:
            raise ZeroDivisionError("internal detail")

        async with hub.serve(ANY) as serving:
            with caplog.at_level(logging.DEBUG):
                assert await refusal(serving.address, "/ws?token=SECRET") == (500, "internal error")
        assert "ZeroDivisionError: internal detail" in caplog.text
        assert "SECRET" not in "".join(record.getMessage() for record in caplog.records if "fanwire" in record.name)

    async def test_a_client_that_leaves_meanwhile_is_forgotten(self, hub: fanwire.Hub) -> None:
        from support.raw import open_socket, request_text

        asked, answer, answered = anyio.Event(), anyio.Event(), anyio.Event()

        @hub.authenticate
        async def who(request: fanwire.Request) -> None:
            asked.set()
            await answer.wait()
            answered.set()

        async with hub.serve(ANY) as serving:
            connection = open_socket(serving.address)
            connection.sendall(request_text("/ws?channel=a"))
            await asked.wait()
            connection.close()
            answer.set()
            await answered.wait()
            await until(lambda: hub.occupancy("a") == 0)
            async with connected(serving.address, "/ws?channel=a"):
                await until(lambda: hub.occupancy("a") == 1)


class TestAuthorize:
    @pytest.fixture
    def guarded(self, hub: fanwire.Hub) -> fanwire.Hub:
        """A hub where nobody may watch what starts with ``secret``."""

        @hub.authorize
        async def may_watch(client: fanwire.Client, channel: str) -> bool:
            await anyio.lowlevel.checkpoint()
            if channel == "boom":
                raise ZeroDivisionError
            if channel == "refused":
                raise fanwire.Refused("members only", status=402)
            return not channel.startswith("secret")

        return hub

    async def test_a_denied_channel_of_the_query_is_403_and_named(self, guarded: fanwire.Hub) -> None:
        async with guarded.serve(ANY) as serving:
            assert await refusal(serving.address, "/ws?channel=a&channel=secret") == (
                403,
                "not authorized for channel 'secret'",
            )
            assert await refusal(serving.address, "/ws?channel=refused") == (402, "members only")
            assert await refusal(serving.address, "/ws?channel=boom") == (500, "internal error")
            async with connected(serving.address, "/ws?channel=a") as peer:
                guarded.publish("a", "x")
                assert await peer.receive() == "x"

    async def test_a_denied_subscription_is_told_and_the_allowed_ones_hold(self, guarded: fanwire.Hub) -> None:
        async with guarded.serve(ANY) as serving, connected(serving.address) as peer:
            await peer.send_json(subscribe=["a", "b"], id=1)
            assert await peer.receive_json() == {"id": 1, "result": {"subscribed": ["a", "b"]}}
            await peer.send_json(subscribe=["c", "secret"], id="two")
            assert await peer.receive_json() == {"id": "two", "error": "not authorized for channel 'secret'"}
            await peer.send_json(subscribe=["secret", "secret2"])
            assert await peer.receive_json() == {"error": "not authorized for channels 'secret', 'secret2'"}
            await peer.send_json(subscribe=["boom"], id=4)
            assert await peer.receive_json() == {"id": 4, "error": "internal error"}
            await peer.send_json(subscribe=["refused"], id=5)
            assert await peer.receive_json() == {"id": 5, "error": "members only"}
            assert [guarded.occupancy(channel) for channel in ("a", "b", "c", "secret")] == [1, 1, 1, 0]

    async def test_the_server_may_subscribe_without_asking(self, guarded: fanwire.Hub) -> None:
        guarded.on_message(lambda client, data: guarded.subscribe(client, "secret"))
        async with guarded.serve(ANY) as serving, connected(serving.address) as peer:
            await peer.send("let me in")
            await until(lambda: guarded.occupancy("secret") == 1)
