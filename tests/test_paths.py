"""Paths of a program's own: ``hub.path`` maps a URL to a channel, before and while the hub serves."""

import re
from collections.abc import Callable
from typing import Any

import fanwire
import pytest
from fanwire.relay import RelayConfig
from support.clients import connected, refusal
from support.loops import epoll_alone, without_uvloop
from support.raw import open_socket, read_head
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = without_uvloop
ANY = "127.0.0.1:0"


async def test_a_path_says_what_is_watched(hub: fanwire.Hub) -> None:
    hub.path("/ws/{room}", channel="odds:{room}")
    hub.path("/rooms/{room}", channel="odds:{room}", wire="events")
    hub.path("/socket")
    async with (
        hub.serve(ANY) as serving,
        connected(serving.address, "/ws/%C3%BC%207?channel=b&envelope=1") as peer,
        connected(serving.address, "/socket?channel=c") as plain,
    ):
        with open_socket(serving.address) as stream:
            stream.sendall(b"GET /rooms/%C3%BC%207 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert "text/event-stream" in read_head(stream)
            await until(lambda: hub.occupancy("odds:ü 7") == 2)
            hub.publish("odds:ü 7", "1.5")
            hub.publish("b", "2")
            assert [(await peer.receive_json())["channel"] for _ in range(2)] == ["odds:ü 7", "b"]
            heard = b""
            while b"data: 1.5" not in heard:
                heard += stream.recv(4096)
        hub.publish("c", "3")
        assert await plain.receive() == "3"


async def test_the_most_exact_path_answers(hub: fanwire.Hub) -> None:
    for path in ("/{any}", "/ws/{room}", "/ws/main"):
        hub.path(path, channel=f"of {path.translate({ord('{'): None, ord('}'): None})}")
    async with hub.serve(ANY) as serving:
        for target, channel in [("/ws/main", "of /ws/main"), ("/ws/7", "of /ws/room"), ("/x", "of /any")]:
            async with connected(serving.address, target):
                await until(lambda: hub.occupancy(channel) == 1)  # noqa: B023
        assert (await refusal(serving.address, "/ws/7/8"))[0] == 404


async def test_authorize_is_asked_for_the_channel_of_the_path(hub: fanwire.Hub) -> None:
    hub.path("/ws/{room}", channel="odds:{room}")
    asked: list[str] = []

    @hub.authorize
    def may(client: fanwire.Client, channel: str) -> bool:
        asked.append(channel)
        assert client.request.path.startswith("/ws/")
        return channel != "odds:secret"

    async with hub.serve(ANY) as serving, connected(serving.address, "/ws/a%3Ab?channel=x"):
        assert (await refusal(serving.address, "/ws/secret"))[0] == 403
        assert asked == ["odds:a:b", "x", "odds:secret"]


@pytest.mark.parametrize(
    ("segment", "why"),
    [("%00", "control characters"), ("%FF", "not UTF-8"), ("a%2A", r"must not hold \*"), ("x" * 252, "255 bytes")],
)
async def test_what_is_no_channels_name_is_refused_before_anybody_is_asked(
    hub: fanwire.Hub, segment: str, why: str
) -> None:
    hub.path("/ws/{room}", channel="odds:{room}")
    hub.authorize(lambda client, channel: pytest.fail(channel))
    async with hub.serve(ANY) as serving:
        status, text = await refusal(serving.address, f"/ws/{segment}")
        assert status == 400
        assert re.search(why, text)
        assert (await refusal(serving.address, "/ws/"))[0] == 404


async def test_paths_come_and_go_while_the_hub_serves(hub: fanwire.Hub) -> None:
    async with hub.serve(ANY) as serving:
        assert (await refusal(serving.address, "/ws/7"))[0] == 404
        hub.path("/ws/{room}", channel="odds:{room}")
        async with connected(serving.address, "/ws/7") as peer:
            await until(lambda: hub.occupancy("odds:7") == 1)
            hub.remove_path("/ws/{room}")
            assert (await refusal(serving.address, "/ws/7"))[0] == 404
            hub.publish("odds:7", "still there")
            assert await peer.receive() == "still there"
        hub.path("/again", channel="a")
    async with hub.serve(ANY) as serving, connected(serving.address, "/again"):
        await until(lambda: hub.occupancy("a") == 1)
    with pytest.raises(ValueError, match=r"no path '/ws/\{room\}' of hub.path to remove"):
        hub.remove_path("/ws/{room}")
    hub.remove_path("/again")


async def test_a_path_has_origins_and_a_bound_of_its_own(hub: fanwire.Hub) -> None:
    hub.path("/mine", origins=["https://a.example"], message_bytes_max=8)
    hub.on_message(lambda client, data: client.send(data))
    async with hub.serve(ANY) as serving:
        assert (await refusal(serving.address, "/mine", origin="https://b.example"))[0] == 403
        async with (
            connected(serving.address, "/ws", origin="https://b.example") as other,
            connected(serving.address, "/mine", origin="https://a.example") as peer,
        ):
            await other.send("123456789")
            assert await other.receive() == "123456789"
            await peer.send("12345678")
            assert await peer.receive() == "12345678"
            await peer.send("123456789")
            assert (await peer.closed())[0] == 1009


@pytest.mark.parametrize(
    ("path", "channel", "says"),
    [
        ("ws", None, "must begin with /"),
        ("/a//b", None, "must hold no empty segment"),
        ("/a/", None, "must not end with /"),
        ("/{a}/{a}", None, "must hold each placeholder once"),
        ("/a{b}", None, "a segment of its own"),
        ("/{a", None, "closed by a }"),
        ("/{a}", "x:{b}", r"channel 'x:\{b\}' of path '/\{a\}': the path has no \{b\}"),
        ("/{a}", "x*{a}", r"must not hold \*"),
        ("/ws", None, "'/ws' and '/ws' would hide each other"),
        ("/SIGNALR/negotiate", None, "and '/signalr' would hide each other"),
        ("/there/{x}", None, r"and '/there/\{room\}' would hide each other"),
        ("/feed", None, "and '/feed' would hide each other"),
        ("/chat", None, "and '/chat' would hide each other"),
    ],
)
async def test_a_path_that_cannot_be_is_refused_whether_it_serves_or_not(
    hub: fanwire.Hub, path: str, channel: str | None, says: str
) -> None:
    hub.path("/there/{room}", channel="{room}")
    hub.endpoint("/chat")
    hub.relay(RelayConfig(path="/feed", upstream=("ws://127.0.0.1:1",), protocol="websocket", ready="ignore"))
    with pytest.raises(ValueError, match=says.replace("'", "[\"']")):
        hub.path(path, channel=channel)
    async with hub.serve(ANY):
        with pytest.raises(ValueError, match=says.replace("'", "[\"']")):
            hub.path(path, channel=channel)


def test_what_comes_behind_a_path_must_not_hide_it(hub: fanwire.Hub) -> None:
    hub.path("/live/negotiate")
    with pytest.raises(ValueError, match="path '/live' and '/live/negotiate' would hide each other"):
        hub.endpoint("/live")
    with pytest.raises(ValueError, match="path '/live' and '/live/negotiate' would hide each other"):
        hub.relay(RelayConfig(path="/live", upstream=("ws://127.0.0.1:1",)))


@pytest.mark.parametrize("path", ["/WS", "/Metrics", "/healthZ"])
def test_a_hub_s_own_path_is_refused_to_signalr_where_it_is_named(path: str) -> None:
    for name in (lambda: fanwire.Hub(signalr_paths=[path]), lambda: fanwire.Hub().endpoint(path)):
        with pytest.raises(ValueError, match="be none of the hub's own paths, whatever the case"):
            name()


def test_whether_two_paths_are_apart_is_the_engine_s_to_say() -> None:
    hub = fanwire.Hub()
    hub.endpoint("/stra%C3%9Fe")
    hub.endpoint("/STRASSE")  # no request could mean both
    with pytest.raises(ValueError, match="a hub at '/STRA%c3%9fe' is registered already"):
        hub.relay(RelayConfig(path="/STRA%c3%9fe", upstream=("ws://127.0.0.1:1",), protocol="websocket"))
    with pytest.raises(ValueError, match="a hub at '/STRASSE/Negotiate' is registered already"):
        hub.relay(RelayConfig(path="/STRASSE/Negotiate", upstream=("ws://127.0.0.1:1",), protocol="websocket"))


FRENCH = ["/café", "/caf%C3%A9", "/caf%c3%a9"]


@pytest.mark.parametrize("written", FRENCH)
async def test_a_path_is_found_however_it_is_written(hub: fanwire.Hub, written: str) -> None:
    hub.path(written, channel="a")
    hub.path(f"{written}/{{room}}", channel="{room}", wire="events")
    hub.endpoint(f"{written}/hub")
    async with hub.serve(ANY, signalr_paths=[f"{written}/own"]) as serving:
        for asked in FRENCH[1:]:
            async with connected(serving.address, asked) as peer:
                await until(lambda: hub.occupancy("a") == 1)
                hub.publish("a", "1")
                assert await peer.receive() == "1"
            await until(lambda: hub.occupancy("a") == 0)
            for below in ("hub", "own", "h%75b"):
                with open_socket(serving.address) as stream:
                    stream.sendall(f"POST {asked}/{below}/negotiate HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    assert " 200 " in read_head(stream)
        for path in FRENCH:
            hub.publish_to_all("x", event="y", path=f"{path}/hub")
            with pytest.raises(ValueError, match="would hide each other"):
                hub.path(path)
        hub.remove_path(written)
        assert (await refusal(serving.address, FRENCH[1]))[0] == 404


async def test_a_relay_s_path_is_found_however_it_is_written(hub: fanwire.Hub) -> None:
    for path, protocol in [("/café", "websocket"), ("/CAF%c3%a9/hub", "signalr")]:
        hub.relay(RelayConfig(path=path, upstream=("ws://127.0.0.1:1",), protocol=protocol, ready="ignore"))  # type: ignore[arg-type]
    async with hub.serve(ANY) as serving:
        assert (await refusal(serving.address, "/caf%C3%A9"))[0] != 404
        assert (await refusal(serving.address, "/caf%C3%A9/hub"))[0] != 404
        assert (await refusal(serving.address, "/caf"))[0] == 404
    for path in ("/live/negotiate", "/live/n%65gotiate"):
        with pytest.raises(ValueError, match="must not end in /negotiate"):
            RelayConfig(path=path, upstream=("ws://127.0.0.1:1",))


async def test_no_encoding_leads_to_another_path_s_owner(hub: fanwire.Hub) -> None:
    hub.path("/rooms/{room}", channel="of:{room}")
    hub.path("/rooms/main", channel="main")
    watched: list[str] = []

    @hub.authorize
    def may(client: fanwire.Client, channel: str) -> bool:
        watched.append(channel)
        return True

    async with hub.serve(ANY) as serving:
        for path, channel in [
            ("/rooms/main", "main"),
            ("/rooms/m%61in", "main"),
            ("/%72ooms/%6dain", "main"),
            ("/rooms/m%2561in", "of:m%61in"),
            ("/rooms/..%2Fmain", "of:../main"),
            ("/rooms/a%2Fmain", "of:a/main"),
        ]:
            async with connected(serving.address, path):
                await until(lambda: hub.occupancy(channel) == 1)  # noqa: B023
            assert watched.pop() == channel
        for path in (
            "/rooms/..",
            "/rooms/%2e%2E",
            "/x/../rooms/main",
            "/rooms%2Fmain",
            "/rooms/./main",
            "/rooms//main",
        ):
            assert (await refusal(serving.address, path))[0] == 404, path
    assert watched == []


def test_one_path_too_many_is_refused_where_it_is_named(hub: fanwire.Hub) -> None:
    hub.endpoint("/chat")
    others = 6 + 1 + 1  # the hub's own, that of SignalR, the endpoint
    for number in range(1_024 - others):
        hub.path(f"/{number}")
    says = "path '/x' would be number 1,025 of the hub's paths, of which there may be 1,024"
    relayed = RelayConfig(path="/x", upstream=("ws://127.0.0.1:1",), protocol="websocket")
    for name in (lambda: hub.path("/x"), lambda: hub.endpoint("/x"), lambda: hub.relay(relayed)):
        with pytest.raises(ValueError, match=says):
            name()
    hub.remove_path("/7")
    hub.path("/x")


@pytest.mark.parametrize(
    "call",
    [
        lambda hub: hub.path(7),
        lambda hub: hub.path("/a", channel=7),
        lambda hub: hub.path("/a", wire=None),
        lambda hub: hub.path("/a", message_bytes_max="8"),
    ],
)
def test_an_argument_of_a_wrong_type_is_told(hub: fanwire.Hub, call: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        call(hub)
    with pytest.raises(ValueError, match="wire must be 'websocket', 'events' or 'metrics'"):
        hub.path("/a", wire="signalr")  # type: ignore[arg-type]
