"""What clients that leave a lane are answered is learned with one's arguments: where those are bad, with another's."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import fanwire
import pytest
from support.hub_client import HubClient, hub_client
from support.loops import asyncio_alone, epoll_alone
from support.relaying import PATH, PATIENT, config, relayed, watch
from support.scripted_backend import ScriptedBackend, Session, answer
from support.waiting import until

pytestmark = pytest.mark.anyio
poller = epoll_alone
anyio_backend = asyncio_alone
FAILED = "Failed to invoke 'Unwatch' due to an error on the server. HubException: "
LOST = FAILED + "The connection to the backend was lost before it answered."
NOT_ANSWERED = FAILED + "The backend has not answered."
CLOSE = {"type": 7, "error": "Connection closed with an error."}
"""What ASP.NET Core says to a connection whose message it cannot take."""


def blame(session: Session) -> None:
    """End the connection for what came."""
    session.say(CLOSE)
    session.end()


def say_nothing(session: Session) -> None:
    """Never answer what came."""


class Gate:
    """Calls that leave, kept until they may go on; what is bad ends its connection then, each time that it comes."""

    def __init__(self, backend: ScriptedBackend, end: Callable[[Session], None], *, is_open: bool = False) -> None:
        self.kept: list[tuple[Session, dict[str, Any]]] = []
        self.tried: list[str] = []
        self._end = end
        self._is_open = is_open
        backend.answer = self._take

    def _take(self, session: Session, message: dict[str, Any]) -> None:
        if message.get("target") != "Unwatch":
            answer(session, message)
            return
        self.tried.append(message["arguments"][0])
        if self._is_open:
            self._go_on(session, message)
        else:
            self.kept.append((session, message))

    def _go_on(self, session: Session, message: dict[str, Any]) -> None:
        if message["arguments"][0].startswith("bad"):
            self._end(session)
        else:
            answer(session, message)

    def open(self) -> None:
        """From now on they do."""
        self._is_open = True
        for session, message in self.kept:
            self._go_on(session, message)


async def leave(client: HubClient, match: str) -> None:
    """Unwatch; what went before has had its turn then."""
    await client.send({"type": 1, "invocationId": match, "target": "Unwatch", "arguments": [match]})
    await client.send({"type": 1, "invocationId": "e", "target": "Echo", "arguments": [match]})
    assert (await client.receive())["invocationId"] == "e"


async def watching(stack: AsyncExitStack, address: str, *matches: str) -> HubClient:
    """A client that watches these."""
    client = await stack.enter_async_context(hub_client(address, PATH))
    for match in matches:
        assert await watch(client, match) == match
    return client


@pytest.mark.parametrize(("end", "told"), [(blame, {"error": LOST}), (Session.end, {"result": "m0"})])
async def test_a_call_at_which_the_connection_ends_costs_only_who_made_it(
    hub: fanwire.Hub,
    backend: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Session], None],
    told: dict[str, Any],
) -> None:
    """Two strangers' are bad, one of them several. A loss without a word of blame is tried again behind the others'."""
    monkeypatch.setattr("fanwire.relay.unsubscribing.ALONE_S", 60)  # a busy machine is no slow call
    gate = Gate(backend, end)
    async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
        strangers = [await watching(stack, address, *("bad0", "bad1")), await watching(stack, address, "bad2")]
        honest = [await watching(stack, address, f"m{number}") for number in range(3)]
        for client, match in ((strangers[0], "bad0"), (strangers[0], "bad1"), (strangers[1], "bad2")):
            await leave(client, match)
        for number, client in enumerate(honest):
            await leave(client, f"m{number}")
        await until(lambda: gate.tried == ["bad0"])
        gate.open()
        for number, client in enumerate(honest):
            assert await client.receive() == {"type": 3, "invocationId": f"m{number}", "result": "m0"}
        assert await strangers[0].receive() == {"type": 3, "invocationId": "bad0", **told}
        assert await strangers[0].receive() == {"type": 3, "invocationId": "bad1", "result": "m0"}
        assert await strangers[1].receive() == {"type": 3, "invocationId": "bad2", **told}
        assert gate.tried == ["bad0", "bad2", "m0"], "others come before what else a stranger has called"


async def test_a_call_that_loses_the_connection_without_a_word_is_tried_twice_and_no_more(
    hub: fanwire.Hub, backend: ScriptedBackend
) -> None:
    gate = Gate(backend, Session.end, is_open=True)
    async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
        stranger = await watching(stack, address, "bad0", "bad1")
        await stranger.send(
            *({"type": 1, "invocationId": id, "target": "Unwatch", "arguments": [id]} for id in ("bad0", "bad1"))
        )
        for id in ("bad0", "bad1"):
            assert await stranger.receive() == {"type": 3, "invocationId": id, "error": LOST}
        assert sorted(gate.tried) == ["bad0", "bad0", "bad1", "bad1"]
        honest = await watching(stack, address, "m")
        assert await honest.invoke("Unwatch", "m", id="2") == {"result": "m"}


async def test_a_call_that_is_never_answered_holds_up_the_others_for_a_moment(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next client's is tried beside it, and of one client never two at a time."""
    monkeypatch.setattr("fanwire.relay.unsubscribing.ALONE_S", 0.05)
    gate = Gate(backend, say_nothing, is_open=True)
    async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
        stranger = await watching(stack, address, *(f"bad{number}" for number in range(4)))
        honest = await watching(stack, address, "m")
        for number in range(4):
            await leave(stranger, f"bad{number}")
        await until(lambda: gate.tried == ["bad0"])
        assert await honest.invoke("Unwatch", "m", id="2") == {"result": "m"}
        assert gate.tried == ["bad0", "m"]
        for number in range(4):
            assert await stranger.receive() == {"type": 3, "invocationId": f"bad{number}", "result": "m"}
        await until(lambda: not any(session.watched == ["bad0"] for session in list(backend.sessions)))


async def test_who_goes_holds_up_nobody_any_more(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.unsubscribing.ALONE_S", 60)
    gate = Gate(backend, say_nothing, is_open=True)
    async with relayed(hub, config(backend)) as address, AsyncExitStack() as stack:
        honest = await watching(stack, address, "m")
        async with AsyncExitStack() as short:
            await leave(await watching(short, address, "bad"), "bad")
            await until(lambda: gate.tried == ["bad"])
            await leave(honest, "m")
        assert await honest.receive() == {"type": 3, "invocationId": "m", "result": "m"}


async def test_whose_call_had_no_turn_in_time_has_left_all_the_same(
    hub: fanwire.Hub, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanwire.relay.unsubscribing.ALONE_S", 0.01)
    gate = Gate(backend, say_nothing, is_open=True)
    lanes = replace(PATIENT, connect_timeout=2.5)
    async with relayed(hub, config(backend, lanes=lanes)) as address, AsyncExitStack() as stack:
        strangers = [await watching(stack, address, f"bad{number}") for number in range(6)]
        honest = await watching(stack, address, "m")
        for number, stranger in enumerate(strangers[:3]):
            await leave(stranger, f"bad{number}")
        await until(lambda: len(gate.tried) == 3)
        for number, stranger in enumerate(strangers[3:], 3):
            await leave(stranger, f"bad{number}")
        assert await honest.invoke("Unwatch", "m", id="2") == {}
        for stranger in strangers[:3]:
            assert (await stranger.receive())["error"] == NOT_ANSWERED
        assert "m" not in gate.tried


async def test_one_client_that_subscribes_and_leaves_for_ever_leaves_few_lanes(hub: fanwire.Hub) -> None:
    bounded = replace(PATIENT, per_client_max=3, subscribe_rate=1_000)
    with ScriptedBackend() as backend:
        async with relayed(hub, config(backend, linger=30.0, lanes=bounded)) as address:
            async with hub_client(address, PATH) as client:
                for index in range(12):
                    assert await watch(client, f"m{index}") == f"m{index}"
                    await client.send({"type": 1, "target": "Unwatch", "arguments": [f"m{index}"]})
                await until(lambda: len(hub.relay_stats()[0].lanes) == 3)
                assert await watch(client, "m11") == "m11", "the newest are there still"
            await until(lambda: sum(len(backend.watching(f"m{index}")) for index in range(12)) == 3)
            assert [len(backend.watching(f"m{index}")) for index in (9, 10, 11)] == [1, 1, 1]
