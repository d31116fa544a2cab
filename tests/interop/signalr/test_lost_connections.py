"""Stock clients whose connection is lost, or begins without a negotiate: they see the same as at the real hub."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from application import announce, application
from clients import Mode, missing, modes
from cutting_proxy import CuttingProxy, Loss
from stage import Hub, Seen

pytestmark = pytest.mark.timeout(60)
LOSS = {"signalrcore": Loss.CLOSED}
"""It takes a reset for the end. The others get one: .NET itself repeats a poll that ended in order."""

T = TypeVar("T")


def able(*features: str) -> pytest.MarkDecorator:
    """The modes that have these features, each skipped where its client can't run."""
    cases = []
    for mode in modes():
        # In a page MessagePack is the same library as in Node; it costs a browser.
        if not mode.lacks(list(features)) and (mode.kind.name, mode.protocol) != ("chromium", "messagepack"):
            reason = missing(mode.kind)
            cases.append(pytest.param(mode, id=str(mode), marks=[pytest.mark.skip(reason=reason)] if reason else []))
    return pytest.mark.parametrize("mode", cases)


def at_both(run: Callable[[Hub], T], reference: Hub, target: Hub) -> T:
    """What a run brings at the one and at the other, side by side: the same."""
    with ThreadPoolExecutor(2) as pool:
        expected, got = pool.map(run, (reference, target))
    assert got == expected
    return got


def kinds_of(life: list[dict[str, object]]) -> list[object]:
    """What happened to the connection, without the words for it."""
    return [event["ev"] for event in life]


@able("skip-negotiation")
def test_a_client_that_skips_the_negotiation(mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    def visit(hub: Hub) -> tuple[Seen, list[str]]:
        with (
            CuttingProxy.before(hub.url) as proxy,
            application(mode, f"{proxy.url}/live", "skip-negotiation") as app,
        ):
            app.start("Snapshot", "Announcement")
            if not mode.lacks(["own-id"]):
                app.do("own-id", id="own id")
                app.until("result", id="own id")
            app.call("its id at the hub", "ConnectionId")
            app.call("watch", "Subscribe", "m1")
            app.until("message", target="Snapshot")
            announce(hub.url, "one", "two")
            app.until("message", target="Announcement", count=2)
            app.do("stop")
            return app.finish(), proxy.requests

    seen, requests = at_both(visit, reference_hub, target_hub)
    assert requests == ["GET /live"]
    assert mode.lacks(["own-id"]) or seen.by_id["own id"][0]["value"] is None
    assert seen.by_id["its id at the hub"][0]["value"] == "<connection id>"
    assert [message["target"] for message in seen.messages] == ["Snapshot", "Announcement", "Announcement"]


@able("reconnect")
def test_a_client_reconnects_and_watches_again(mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    def lose(hub: Hub) -> Seen:
        with CuttingProxy.before(hub.url) as proxy, application(mode, f"{proxy.url}/live", "reconnect") as app:
            app.start("Snapshot", "Announcement")
            first = app.call("first id", "ConnectionId")
            app.call("watch", "Subscribe", "m1")
            announce(hub.url, "before")
            app.until("message", target="Announcement")
            proxy.cut(LOSS.get(mode.kind.name, Loss.RESET), is_holding=True)
            announce(hub.url, "to nobody")
            proxy.release()
            app.until("reconnected")
            assert app.call("second id", "ConnectionId") != first
            app.call("is it watching", "Unsubscribe", "m1")
            app.call("watch again", "Subscribe", "m1")
            app.until("message", target="Snapshot", count=2)
            announce(hub.url, "after")
            app.until("message", target="Announcement", count=2)
            app.do("stop")
            return app.finish()

    seen = at_both(lose, reference_hub, target_hub)
    assert [event for event in kinds_of(seen.life) if event != "reconnecting"][:2] == ["started", "reconnected"]
    assert seen.by_id["is it watching"][0]["value"] is False
    said = [message["args"] for message in seen.messages if message["target"] == "Announcement"]
    assert said == [["before"], ["after"]]


def away_for_a_while(mode: Mode, loss: Loss, hub: str) -> Seen:
    """A stateful client's visit: there is much to say while it is cut off, in both directions."""
    with CuttingProxy.before(hub) as proxy, application(mode, f"{proxy.url}/live", "stateful", "reconnect") as app:
        app.start("Snapshot", "Announcement")
        app.call("watch", "Subscribe", "m1")
        announce(hub, "heard 1", "heard 2")
        app.until("message", target="Announcement", count=2)
        proxy.mute()
        app.do("invoke-later", id="answered to nobody", method="EchoText", args=["swallowed"])
        proxy.wait_for_swallowed(b"swallowed")
        announce(hub, "said to nobody")
        proxy.wait_for_swallowed(b"said to nobody")
        known = proxy.accepted
        proxy.cut(loss, is_holding=True)
        proxy.wait_for_connections(known + 1)
        announce(hub, "while it is away 1", "while it is away 2")
        app.do("invoke-later", id="asked of nobody", method="Add", args=[20, 22])
        proxy.release()
        app.until("result", id="answered to nobody")
        app.until("result", id="asked of nobody")
        app.until("message", target="Announcement", count=5)
        app.call("still watching", "Unsubscribe", "m1")
        announce(hub, "after")
        app.until("message", target="Announcement", count=6)
        app.do("stop")
        return app.finish()


def check_that_nothing_is_missed(seen: Seen) -> None:
    assert kinds_of(seen.life) == ["started", "closed"]
    said = [message["args"][0] for message in seen.messages if message["target"] == "Announcement"]
    assert said == ["heard 1", "heard 2", "said to nobody", "while it is away 1", "while it is away 2", "after"]
    assert {id: [event["value"] for event in events] for id, events in seen.by_id.items() if id != "watch"} == {
        "answered to nobody": ["swallowed"],
        "asked of nobody": [42],
        "still watching": [True],
    }


@pytest.mark.parametrize("loss", [Loss.RESET, Loss.CLOSED], ids=lambda loss: loss.name.lower())
@able("stateful")
def test_a_stateful_client_misses_nothing(mode: Mode, loss: Loss, reference_hub: Hub, target_hub: Hub) -> None:
    seen = at_both(lambda hub: away_for_a_while(mode, loss, hub.url), reference_hub, target_hub)
    check_that_nothing_is_missed(seen)


@able("stateful")
def test_a_stateful_client_comes_back_before_its_loss_is_noticed(mode: Mode, target_hub: Hub) -> None:
    """The real hub has it wait for five seconds, until it gives up the old socket, and may then lose the new one."""
    check_that_nothing_is_missed(away_for_a_while(mode, Loss.UNNOTICED, target_hub.url))


def sent_away_twice(mode: Mode, hub: str, *features: str) -> Seen:
    """A message that is too long ends the connection, and the client may come back; an abort is for good."""
    with application(mode, f"{hub}/live", *features) as app:
        app.start()
        app.do("invoke-later", id="too long", method="EchoText", args=["x" * 40_000])
        app.until("reconnected")
        app.call("here again", "Add", 1, 2)
        app.do("invoke-later", id="goodbye", method="Goodbye")
        app.until("closed")
        app.until("error", id="goodbye")
        return app.finish()


@able("reconnect", "final")
def test_a_hub_says_whether_to_come_back(mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    seen = at_both(lambda hub: sent_away_twice(mode, hub.url, "reconnect"), reference_hub, target_hub)
    assert kinds_of(seen.life) == ["started", "reconnecting", "reconnected", "closed"]
    assert seen.by_id["here again"][0]["value"] == 3


@able("stateful")
def test_a_stateful_client_is_told_so_too(mode: Mode, reference_hub: Hub, target_hub: Hub) -> None:
    seen = at_both(lambda hub: sent_away_twice(mode, hub.url, "stateful", "reconnect"), reference_hub, target_hub)
    assert kinds_of(seen.life) == ["started", "reconnecting", "reconnected", "closed"]
