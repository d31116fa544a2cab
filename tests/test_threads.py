"""What may be called from which thread: any verb from any, but for those that say otherwise first, and then refuse."""

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire import to
from fanwire.registering import Registering
from support.hub_client import hub_client
from support.hubs import MakeHub
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
IN_THE_LOOP = "In the event loop's thread"
LIFETIMES = {"start", "stop", "serve", "run", "stop_soon", "lifespan"}
"""Of ``Hub``: whoever begins to serve chooses the thread; tests/test_lifetimes.py has the others."""


def verbs_of(kind: type) -> set[str]:
    """The public calls of a class, but for those that register something."""
    called = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
    return called - {name for name in vars(Registering) if not name.startswith("_")} - LIFETIMES


def calls(hub: fanwire.Hub, client: fanwire.Client) -> dict[str, Callable[[], Any]]:
    """Each verb, with arguments that are right."""
    position = hub.publish("watched", "x")
    return {
        "Hub.adopt": partial(hub.adopt, object(), ["watched"]),
        "Hub.asgi": hub.asgi,
        "Hub.attach": partial(hub.attach, object(), ["watched"]),
        "Hub.clients": partial(hub.clients, "ann"),
        "Hub.delivered": partial(hub.delivered, position),
        "Hub.detach": partial(hub.detach, object()),
        "Hub.disconnect": partial(hub.disconnect, client, 1000, "bye"),
        "Hub.disconnect_user": partial(hub.disconnect_user, "nobody"),
        "Hub.listen": partial(hub.listen, "watched"),
        "Hub.occupancy": partial(hub.occupancy, "watched"),
        "Hub.occupancy_of_all": partial(hub.occupancy_of_all, "watched"),
        "Hub.position": partial(hub.position, "watched"),
        "Hub.presence": partial(hub.presence, "watched"),
        "Hub.publish": partial(hub.publish, to.user("ann"), "x"),
        "Hub.publish_many": partial(hub.publish_many, "watched", ["x"]),
        "Hub.publish_to_all": partial(hub.publish_to_all, "x"),
        "Hub.publish_to_user": partial(hub.publish_to_user, "ann", "x"),
        "Hub.relay_stats": hub.relay_stats,
        "Hub.relay_stats_of_all": hub.relay_stats_of_all,
        "Hub.remove": partial(hub.remove, "watched", key="k"),
        "Hub.send": partial(hub.send, client, "x"),
        "Hub.stats": hub.stats,
        "Hub.stats_of_all": hub.stats_of_all,
        "Hub.subscribe": partial(hub.subscribe, client, "watched"),
        "Hub.unsubscribe": partial(hub.unsubscribe, client, "watched"),
        "Client.close": client.close,
        "Client.invoke": partial(client.invoke, "ask"),
        "Client.send": partial(client.send, "x"),
        "Client.subscribe": partial(client.subscribe, "watched"),
        "Client.unsubscribe": partial(client.unsubscribe, "watched"),
    }


def in_another_thread(call: Callable[[], Any]) -> object:
    """What a call does there; an async one in an event loop of that thread."""
    if not inspect.iscoroutinefunction(getattr(call, "func", call)):
        return call()

    async def main() -> object:
        made: Awaitable[object] = call()
        return await made

    return anyio.run(main)


async def test_every_verb_may_be_called_from_any_thread_or_says_first_that_it_may_not(make_hub: MakeHub) -> None:
    hub = make_hub({"watched": fanwire.Channel(policy="latest", presence=True)})
    hub.authenticate(lambda request: "ann")
    hub.on_connect(lambda client: None)
    async with hub.serve(ANY) as serving, hub_client(serving.address):
        await until(lambda: hub.clients() and hub.clients()[0].connection_id)
        verbs = calls(hub, hub.clients()[0])
        assert verbs.keys() == {
            f"{kind.__name__}.{name}" for kind in (fanwire.Hub, fanwire.Client) for name in verbs_of(kind)
        }
        closing = ("Hub.disconnect", "Client.close")
        for name in sorted(verbs, key=lambda name: name in closing):
            kind, _, verb = name.partition(".")
            first = (getattr(getattr(fanwire, kind), verb).__doc__ or "").splitlines()[0]
            if first.startswith(IN_THE_LOOP):
                verb = {"adopt": "attach"}.get(verb, verb)  # which is its first half
                with pytest.raises(RuntimeError, match=rf"{verb} is for the thread of the event loop that serves"):
                    await run_sync(in_another_thread, verbs[name])
            else:
                there = await run_sync(in_another_thread, verbs[name])
                assert type(there) is type(verbs[name]()), name
