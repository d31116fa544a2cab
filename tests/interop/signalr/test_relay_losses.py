"""The relay between a real hub that is killed and clients that stay, and a relay that is killed itself."""

import asyncio
import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from application import application
from clients import Mode, missing, modes
from conftest import BACKEND_PORT, origin
from crowd import Control, Member, records, until
from relaying import relay, relay_process
from stage import Hub
from websockets.sync.client import connect

pytestmark = pytest.mark.timeout(60)
MATCHES = [f"m{number}" for number in range(1, 11)]
ON_GAP = {"nothing": 70, "message": 70, "close": 60}
"""How many clients a relay has that does this."""
KEYS = {"json": ("match", "s"), "messagepack": ("Match", "S")}
SOME = {("dotnet", "websockets", "json"), ("node", "websockets", "messagepack")}
MORE = {("dotnet", "longpolling", "messagepack"), ("node", "sse", "json")}
"""Stock clients that stand for the others: each is a process, and those cost."""


class Watcher:
    """A client of the crowd that watches one match."""

    def __init__(self, match: str, protocol: str) -> None:
        self.match = match
        self.protocol = protocol
        self.heard: list[Any] = []
        self.member = Member(match, protocol, self._hear)

    def _hear(self, member: Member, target: str, arguments: list[Any]) -> None:
        if target in ("Snapshot", "Odds"):
            match, s = (arguments[0][key] for key in KEYS[self.protocol])
            assert match == self.match
            self.heard.append((target, s))
        else:
            self.heard.append((target, arguments))

    async def enter(self, address: str) -> "Watcher":
        await self.member.enter(f"http://{address}/live")
        await self.member.invoke("Subscribe", self.match)
        assert self.heard == [("Snapshot", 0)]
        self.heard.clear()
        return self


async def crowd_at(address: str, count: int) -> list[Watcher]:
    """So many, who watch."""
    some = [Watcher(MATCHES[index % len(MATCHES)], list(KEYS)[index // len(MATCHES) % 2]) for index in range(count)]
    return list(await asyncio.gather(*(one.enter(address) for one in some)))


def test_a_hub_is_killed_and_comes_back_under_a_crowd(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = ExitStack()
        hub = first.enter_context(origin(BACKEND_PORT))
        stack.callback(first.close)
        relays, logs = {}, {}
        for on_gap in ON_GAP:
            directory = tmp_path / on_gap
            directory.mkdir()
            more = f'[relay.lanes]\non_gap = "{on_gap}"\nbackoff_max = "300ms"\n'
            relays[on_gap] = stack.enter_context(relay(hub.url, directory, paths=("/live",), more=more))
            logs[on_gap] = directory / "relay.log"
        asyncio.run(outlive(hub, first, stack, relays, logs))


async def outlive(hub: Hub, first: ExitStack, stack: ExitStack, relays: dict[str, str], logs: dict[str, Path]) -> None:
    crowds = {on_gap: await crowd_at(relays[on_gap], count) for on_gap, count in ON_GAP.items()}
    everyone = [one for crowd in crowds.values() for one in crowd]
    staying = crowds["nothing"] + crowds["message"]
    async with Control(hub.url) as control:
        await control.until_stats(connected=len(ON_GAP) * 2 * (len(MATCHES) + 1))
        await control.publish(*MATCHES, count=3)
        await until(lambda: all(len(one.heard) == 3 for one in everyone), lambda: [one.heard for one in everyone])
    assert all(one.heard == [("Odds", 1), ("Odds", 2), ("Odds", 3)] for one in everyone)
    for one in everyone:
        one.heard.clear()

    first.close()  # with -9
    lanes = 2 * len(MATCHES)
    down = re.compile(r"lane \S+ \(Subscribe .*\) is down")
    for log in logs.values():
        await until(lambda: len(down.findall(log.read_text())) == lanes, log.read_text)  # noqa: B023
    assert not any(one.member.is_closed for one in everyone)
    stack.enter_context(origin(BACKEND_PORT))
    await until(lambda: all(one.member.is_closed for one in crowds["close"]), lambda: "not closed")
    assert all(one.member.close_message == {"type": 7, "allowReconnect": True} for one in crowds["close"][:10])

    def has_all(one: Watcher) -> bool:
        return len(one.heard) == (1 if one in crowds["nothing"] else 2)

    await until(lambda: all(map(has_all, staying)), lambda: [one.heard for one in staying])
    async with Control(hub.url) as control:
        await control.until_stats(connected=len(ON_GAP) * 2 * (len(MATCHES) + 1))
        await control.publish(*MATCHES, count=2)
    await until(lambda: all(one.heard[-1] == ("Odds", 2) for one in staying), lambda: [one.heard for one in staying])
    for one in staying:
        assert not one.member.is_closed
        gap = [what for what in one.heard if what[0] == "fanwire:gap"]
        assert [what for what in one.heard if what not in gap] == [("Snapshot", 0), ("Odds", 1), ("Odds", 2)]
        assert len(gap) == (one in crowds["message"])
        if gap:
            (told,) = gap[0][1]
            assert told["call"] == "Subscribe"
            assert told["since"] <= told["until"]
    for on_gap in ("nothing", "message"):
        assert len(re.findall(r"is live again; a gap of \d+\.\d s, because", logs[on_gap].read_text())) == lanes
    await asyncio.gather(*(one.member.leave(is_rude=True) for one in everyone))


def some(wanted: set[tuple[str, str, str]]) -> list[Mode]:
    """Those of these clients that can run here."""
    able = [mode for mode in modes() if (mode.kind.name, mode.transport, mode.protocol) in wanted]
    able = [mode for mode in able if not missing(mode.kind)]
    if not able:
        pytest.skip("there is neither .NET's client nor Node's")
    return able


def test_a_relay_is_killed_and_stock_clients_return_by_themselves(reference_hub: Hub, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with ExitStack() as stack:
        with relay_process(reference_hub.url, tmp_path, paths=("/live",), address=address) as (process, _):
            apps = [
                stack.enter_context(application(mode, f"http://{address}/live", "reconnect")) for mode in some(SOME)
            ]
            for app in apps:
                app.start("Snapshot", "Odds")
                app.call("watch", "Subscribe", "killed")
                app.until("message", target="Snapshot")
            process.kill()
            for app in apps:
                app.until("reconnecting")
        stack.enter_context(relay(reference_hub.url, tmp_path, paths=("/live",), address=address))
        for app in apps:
            app.until("reconnected")
            app.call("watch again", "Subscribe", "killed")
            app.until("message", target="Snapshot", count=2)
        publish(reference_hub, "killed")
        for app in apps:
            app.until("message", target="Odds")
            app.do("stop")
            assert [event["ev"] for event in app.finish().life][-1] == "closed"


def publish(hub: Hub, match: str, count: int = 1) -> None:
    httpx.post(f"{hub.url}/publish", params={"matches": match, "count": count}, trust_env=False).raise_for_status()


def test_every_transport_and_protocol_watches_through_two_lanes(reference_hub: Hub, tmp_path: Path) -> None:
    able = some(SOME | MORE)
    with ExitStack() as stack:
        address = stack.enter_context(relay(reference_hub.url, tmp_path, paths=("/live",)))
        apps = [stack.enter_context(application(mode, f"http://{address}/live")) for mode in able]
        for app in apps:
            app.start("Snapshot", "Odds")
            app.call("watch", "Subscribe", "alike")
            app.until("message", target="Snapshot")
        stats = httpx.get(f"{reference_hub.url}/stats", trust_env=False).json()
        assert stats["subscribesOf"]["alike"] == len({mode.protocol for mode in able})
        publish(reference_hub, "alike", 5)
        for mode, app in zip(able, apps, strict=True):
            app.until("message", target="Odds", count=5)
            app.do("stop")
            odds = [message["args"][0] for message in app.finish().messages if message["target"] == "Odds"]
            match, s = KEYS[mode.protocol]
            assert [(one[match], one[s]) for one in odds] == [("alike", s) for s in range(1, 6)]


def test_doors_of_the_hub_are_those_of_the_relay(reference_hub: Hub, tmp_path: Path) -> None:
    with relay(reference_hub.url, tmp_path) as address:

        def negotiate(at: str, path: str, **headers: str) -> tuple[int, Any]:
            url = f"{at}{path}/negotiate?negotiateVersion=1"
            answer = httpx.post(url, headers=headers, trust_env=False)
            return answer.status_code, answer.json() if answer.content.startswith(b"{") else None

        through = f"http://{address}"
        bearer = f"Bearer {reference_hub.token}"
        assert negotiate(through, "/broken") == negotiate(reference_hub.url, "/broken")
        assert negotiate(through, "/members")[0] == negotiate(reference_hub.url, "/members")[0] == 401
        assert negotiate(through, "/members", Authorization=bearer)[0] == 200
        assert negotiate(through, "/members", Authorization=f"Bearer x{reference_hub.token}")[0] == 401
        assert negotiate(through, "/elsewhere")[0] == 200
        who = {path: identity(address, path) for path in ("/live", "/elsewhere")}
        who["/members"] = identity(address, f"/members?access_token={reference_hub.token}")
        assert {path: one["user"] for path, one in who.items()} == {
            "/live": None,
            "/elsewhere": "redirected",
            "/members": "alice",
        }
        for one in who.values():
            assert one["forwardedFor"] == "192.0.2.1, 127.0.0.1"
            assert (one["userAgent"], one["custom"]) == ("a test", "passed on")
    log = (tmp_path / "relay.log").read_text()
    assert "level=debug" in log
    assert reference_hub.token not in log
    assert reference_hub.token.rpartition(".")[2] not in log


def identity(address: str, path: str) -> Any:
    """Who a client is that skips the negotiation."""
    headers = {"X-Forwarded-For": "192.0.2.1", "X-Custom": "passed on", "Cookie": "secret=cookie"}
    with connect(
        f"ws://{address}{path}", compression=None, proxy=None, additional_headers=headers, user_agent_header="a test"
    ) as connection:
        connection.send('{"protocol":"json","version":1}\x1e')
        assert connection.recv(5) == "{}\x1e"
        connection.send('{"type":1,"target":"Subscribe","arguments":["secret"]}\x1e')
        connection.send('{"type":1,"invocationId":"1","target":"WhoAmI","arguments":[]}\x1e')
        while True:
            for record in records(connection.recv(5)):
                if record.get("invocationId") == "1":
                    return record["result"]
