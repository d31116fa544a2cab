"""One publish for channels, users, paths and clients; what it gives; and where a channel is."""

import ast
import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire import to
from support.clients import connected
from support.hub_client import hub_client
from support.hubs import MakeHub
from support.waiting import until

pytestmark = pytest.mark.anyio
ANY = "127.0.0.1:0"
PROMISES = (Path(__file__).parent.parent / "docs" / "promises.md").read_text()


@pytest.fixture
def users(hub: fanwire.Hub) -> fanwire.Hub:
    """A hub that takes a client's word for who it is."""
    hub.authenticate(lambda request: request.query.get("user"))
    return hub


class TestTo:
    async def test_a_user_has_it_on_each_connection_but_the_excluded(self, users: fanwire.Hub) -> None:
        async with (
            users.serve(ANY) as serving,
            connected(serving.address, "/ws?user=ann") as first,
            connected(serving.address, "/ws?user=ann") as second,
            connected(serving.address, "/ws?user=bob") as other,
        ):
            await until(lambda: len(users.clients()) == 3)
            (client,) = users.clients("bob")
            assert users.publish(to.user("ann"), {"a": 1}, event="news", ttl=5.0).offset == 1
            assert users.publish(to.user(fanwire.Identity("ann")), "2", exclude=users.clients("ann")[0]).offset == 2
            users.publish(to.user("ann"), "3")
            users.publish(to.client(client), "for bob", event="news")
            assert await first.receive_all(2) in (['{"a":1}', "3"], ['{"a":1}', "2"])
            assert await second.receive_json() == {"a": 1}
            assert await other.receive() == "for bob"

    async def test_all_are_those_of_a_path(self, hub: fanwire.Hub) -> None:
        hub.endpoint("/live")
        there: list[fanwire.Client] = []
        hub.on_connect(there.append)
        async with (
            hub.serve(ANY) as serving,
            hub_client(serving.address) as own,
            hub_client(serving.address, "/live") as live,
        ):
            await until(lambda: len(there) == 2)  # behind the handshake, which is when they are reached
            hub.publish(to.all(), 1, event="Own")
            hub.publish(to.all(path="/Live"), 2, event="Live")
            assert (await own.receive())["target"] == "Own"
            assert (await live.receive())["target"] == "Live"

    async def test_the_old_names_are_the_same(self, users: fanwire.Hub) -> None:
        async with users.serve(ANY):
            one = users.publish(to.user("ann"), "x")
            assert users.publish_to_user("ann", "x", exclude=()) == fanwire.Position(one.epoch, 2)
            one = users.publish(to.all(), "x")
            assert users.publish_to_all("x") == fanwire.Position(one.epoch, 2)

    async def test_what_means_nothing_for_a_target_is_refused_and_says_why(self, users: fanwire.Hub) -> None:
        async with users.serve(ANY) as serving, connected(serving.address, "/ws?user=ann") as peer:
            await until(users.clients)
            (client,) = users.clients()
            targets: list[Any] = [to.user("ann"), to.all(), to.client(client)]
            for target in targets:
                with pytest.raises(ValueError, match=rf"key means nothing to {re.escape(str(target))}: it conflates"):
                    users.publish(target, "x", key="k")
                with pytest.raises(ValueError, match=r"keyframe means nothing to .*: nobody begins there"):
                    users.publish(target, "x", keyframe=True)
                with pytest.raises(TypeError, match="event must be the name of an event"):
                    users.publish(target, "x", event=5)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match=r"ttl means nothing to .*: what is sent to one client is never left"):
                users.publish(to.client(client), "x", ttl=1.0)
            with pytest.raises(ValueError, match=r"exclude means nothing to .*: nobody else gets it"):
                users.publish(to.client(client), "x", exclude=client)
            for target in targets[:2]:
                with pytest.raises(ValueError, match="ttl must be a number of seconds over 0"):
                    users.publish(target, "x", ttl=0)
            users.publish(to.client(client), "last")
            assert await peer.receive() == "last"

    async def test_many_go_to_a_target_as_one_does(self, users: fanwire.Hub) -> None:
        async with (
            users.serve(ANY) as serving,
            connected(serving.address, "/ws?user=ann") as first,
            connected(serving.address, "/ws?user=ann") as second,
            hub_client(serving.address) as live,
        ):
            await until(lambda: len(users.clients("ann")) == 2)
            one, _ = users.clients("ann")  # in the order of their arrival
            given = users.publish_many(to.user("ann"), ["1", "2"], event="news", ttl=5.0, exclude=one)
            assert [publication.offset for publication in given] == [1, 2]
            assert await second.receive_all(2) == ["1", "2"]
            assert users.stats().writes == 1, "and one write"
            sent = users.publish_many(to.client(one), ["x", b"y", {"z": 1}], event="news")
            assert [repr(publication) for publication in sent] == ["Publication()"] * 3
            assert await first.receive_all(3) == ["x", b"y", '{"z":1}']
            users.publish_many(to.all(), iter([{"a": 1}, {"a": 2}]), event="News")
            assert [(await live.receive())["arguments"] for _ in range(2)] == [[{"a": 1}], [{"a": 2}]]

    async def test_many_go_to_a_channel_with_all_that_one_has(self, users: fanwire.Hub) -> None:
        async with users.serve(ANY) as serving, connected(serving.address, "/ws?channel=a") as peer:
            await until(users.clients)
            users.publish_many("a", ["1", "2"], exclude=users.clients())
            users.publish_many("a", ["3", "4"], keyframe=True)
            assert await peer.receive_all(2) == ["3", "4"]
            target = "/ws?channel=a&start=keyframe"
            async with connected(serving.address, target) as late:
                assert await late.receive() == "4", "each of them is a keyframe"

    async def test_what_means_nothing_for_many_is_refused_before_any_is_published(self, users: fanwire.Hub) -> None:
        async with users.serve(ANY) as serving, connected(serving.address, "/ws?user=ann"):
            await until(users.clients)
            client = users.clients()[0]
            for target in (to.user("ann"), to.all(), to.client(client)):
                with pytest.raises(ValueError, match=rf"key means nothing to {re.escape(str(target))}"):
                    users.publish_many(target, [], key="k")
            with pytest.raises(ValueError, match="exclude means nothing to"):
                users.publish_many(to.client(client), [], exclude=client)
            with pytest.raises(ValueError, match="path must be '/signalr' or None, not '/nope'"):
                users.publish_many(to.all("/nope"), [])
            with pytest.raises(fanwire.UnsupportedType) as caught:
                users.publish_many(to.client(client), ["x", object()])
            assert "raised by item 1 of publish_many" in caught.value.__notes__[0]
            assert users.publish(to.user("ann"), "x").offset == 1
        with pytest.raises(fanwire.HubStopped):
            users.publish_many(to.user("ann"), [])
        with pytest.raises(fanwire.HubStopped):
            users.publish_many("a", ["x"])

    @pytest.mark.parametrize(
        ("make", "error", "says"),
        [
            (lambda: to.user(5), TypeError, "user must be an Identity, or its id, a str, not 5"),  # type: ignore[arg-type]
            (lambda: to.user(""), ValueError, "user must be .* that is not empty"),
            (lambda: to.user(fanwire.Identity(None)), ValueError, "user must be a user's, not anonymous"),
            (lambda: to.all(5), TypeError, "path must be the path of a hub, a str, not 5"),  # type: ignore[arg-type]
            (lambda: to.client("ann"), TypeError, "client must be a Client, not 'ann'"),  # type: ignore[arg-type]
        ],
    )
    def test_a_target_is_checked_where_it_is_made(self, make: Any, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says):
            make()


class TestPublication:
    async def test_it_is_its_position_wherever_one_is_taken(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            publication = hub.publish("a", "x")
            position = publication.position
            assert (
                type(position) is fanwire.Position and position == publication and hash(position) == hash(publication)
            )
            assert [*publication] == [position.epoch, 1] and json.dumps([*publication]) == json.dumps([*position])
            assert publication < hub.publish("a", "y") and {position: 1}[publication] == 1
            assert repr(publication) == f"Publication(epoch={position.epoch}, offset=1)"
            assert pickle.loads(pickle.dumps(publication)) == copy.copy(publication) == position
            assert (await hub.delivered(publication)).subscribers == 0
            assert isinstance(hub.publish_many("a", ["z"])[0], fanwire.Publication)

    async def test_awaited_it_is_the_position_and_the_loop_turns(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY), anyio.create_task_group() as tasks:
            turned = anyio.Event()
            tasks.start_soon(_set, turned)
            publication = hub.publish("a", "x")
            with anyio.fail_after(60):
                while not turned.is_set():
                    assert await publication == publication.position
            with anyio.CancelScope() as scope:
                scope.cancel()
                await publication
                raise AssertionError("an await is a place to be cancelled at")

    async def test_what_goes_to_one_client_has_no_position(self, hub: fanwire.Hub) -> None:
        hub.on_connect(lambda client: None)
        async with hub.serve(ANY) as serving, connected(serving.address):
            await until(hub.clients)
            publication = hub.publish(to.client(hub.clients()[0]), "x")
            assert repr(publication) == "Publication()"
            with pytest.raises(LookupError, match="stands in no log, and has no position"):
                publication.position  # noqa: B018
            with pytest.raises(LookupError, match="stands in no log"):
                await publication


async def _set(event: anyio.Event) -> None:
    event.set()


class TestPosition:
    async def test_it_is_that_of_the_newest_publication(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            before = hub.position("a")
            assert before.offset == 0 and before.epoch > 0
            assert hub.publish("a", "x") == fanwire.Position(before.epoch, 1) == hub.position("a")
            assert await run_sync(hub.position, "a") == hub.position("a")

    async def test_a_page_and_what_follows_it_have_no_hole_between_them(self, make_hub: MakeHub) -> None:
        """The recipe of docs/promises.md, as it stands there."""
        text = PROMISES.split("## A page, and what follows")[1].split("```python\n")[1].split("```")[0]
        hub = make_hub({"odds:*": fanwire.Channel(history=100)})
        price = 0

        def change() -> None:
            nonlocal price
            price += 1
            hub.publish("odds:7", {"price": price})

        class Database:
            async def board(self, match: str) -> dict[str, int]:
                change()  # while the page is made
                state = {"price": price}
                await anyio.lowlevel.checkpoint()
                change()
                return state

        names: dict[str, Any] = {"hub": hub, "database": Database()}
        exec(compile(text, "promises.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        async with hub.serve(ANY) as serving:
            change()
            page = await names["page"]("7")
            change()  # before the page has connected
            epoch, offset = page["since"]
            target = f"/ws?channel=odds:7&since={epoch}-{offset}"
            async with connected(serving.address, target) as peer:
                assert (await peer.receive_json())["result"]["recovered"] == {"odds:7": True}
                change()
                prices = [(await peer.receive_json())["price"] for _ in range(4)]
        assert page["state"] == {"price": 2} and prices == [2, 3, 4, 5]


class TestRemove:
    async def test_who_watches_is_told_and_who_comes_later_gets_nothing_of_it(self, make_hub: MakeHub) -> None:
        promise = fanwire.Channel(policy="latest", history=100, start="history")
        hub = make_hub({"odds": promise})
        async with hub.serve(ANY) as serving:
            async with connected(serving.address, "/ws?channel=odds") as watching:
                await until(lambda: hub.occupancy("odds") == 1)
                before = hub.publish("odds", {"match": 7}, key="7")
                hub.publish("odds", {"match": 8}, key="8")
                assert await watching.receive_all(2) == ['{"match":7}', '{"match":8}']
                removal = hub.remove("odds", key="7", event="ended")
                assert removal == fanwire.Position(before.epoch, 3) == hub.position("odds")
                assert await watching.receive() == '{"removed":"7"}'
                hub.remove("odds", key="8", data="8 is over", exclude=())
                assert await watching.receive() == "8 is over"
            hub.publish("odds", {"match": 9}, key="9")
            ends = ['{"removed":"7"}', "8 is over"]
            for target in (
                "/ws?channel=odds",
                "/ws?channel=odds&envelope=1",
                f"/ws?channel=odds&since={before.epoch}-0",
            ):
                async with connected(serving.address, target) as late:
                    if "since" in target:
                        assert (await late.receive_json())["result"]["recovered"] == {"odds": True}
                    texts = [str(text) for text in await late.receive_all(3)]
                    assert not any('"match":7' in text or '"match":8' in text for text in texts)
                    if "envelope" in target:
                        assert [json.loads(text)["data"] for text in texts] == [{"removed": "7"}, ends[1], {"match": 9}]
                    else:
                        assert texts == [*ends, '{"match":9}']

    async def test_once_the_end_is_forgotten_who_had_the_value_is_told_that_something_is_lost(
        self, make_hub: MakeHub
    ) -> None:
        hub = make_hub({"odds": fanwire.Channel(policy="latest", history=2)})
        async with hub.serve(ANY) as serving:
            had = hub.publish("odds", "seven", key="7")
            end = hub.remove("odds", key="7")
            for value in range(5):
                hub.publish("odds", f"eight {value}", key="8")
            for since, recovered in ((had, False), (end, True)):
                target = f"/ws?channel=odds&since={since.epoch}-{since.offset}&start=history"
                async with connected(serving.address, target) as peer:
                    assert (await peer.receive_json())["result"]["recovered"] == {"odds": recovered}
                    assert await peer.receive() == "eight 4"

    async def test_a_key_that_is_none_or_a_channel_without_any_is_refused(self, hub: fanwire.Hub) -> None:
        async with hub.serve(ANY):
            with pytest.raises(ValueError, match='channel "goals" has policy "every": only "latest" keeps a value for'):
                hub.remove("goals", key="7")
            assert hub.position("goals").offset == 0
