"""The pure-Python stand-in for the engine gives clients what the engine gives them."""

import contextlib
import random
import select
import socket
from collections import defaultdict
from itertools import count, pairwise
from typing import Any

import pytest
from fanwire import _engine
from fanwire.errors import Overtaken
from fanwire.frames import CLOSE, Frames
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stand_in import load_stand_in

PURE = load_stand_in()
CHANNELS: dict[str, dict[str, Any]] = {
    "every": {"history": 4},
    "latest": {"policy": "latest", "history": 3, "backlog_frames": 6},
    "newest": {"policy": "latest"},
    "keyframe": {"policy": "keyframe", "backlog_frames": 6},
    "drop": {"policy": "drop", "backlog_frames": 5, "history": 2},
    "bounded": {"backlog_frames": 5},
}
TAGS: list[dict[str, Any] | None] = [None, {"n": 1, "word": "one"}, {"n": 2.0, "word": "two"}, {"n": 3, "on": True}]
FILTERS = ["null", '{"n":[1,2]}', '{"word":{"prefix":"o"}}', '{"n":{"min":2}}', '{"on":true,"n":{"max":3}}']
"""What is published with, and what clients want; most want all."""
ATTEMPTS = 1_500
NOTHING_S = 0.02
"""So often is looked, and so long waited, for what the engine's thread has yet to do."""


class World:
    """One engine with its clients."""

    def __init__(self, module: Any) -> None:
        self.module = module
        rules = [module.ChannelRule(name, **promise) for name, promise in CHANNELS.items()]
        self.engine = module.Engine(module.Settings(channels=rules))
        self.engine.start()
        self.clients: dict[int, tuple[socket.socket, Any]] = {}
        self.frames: dict[int, Frames] = defaultdict(Frames)
        self.got: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.numbers: dict[int, int] = {}
        self.released: dict[int, tuple[str, int, str]] = {}
        self.listener = self.engine.listen_to("*", 1)
        self.heard: dict[str, list[object]] = defaultdict(list)
        self.epochs = {name: self.engine.position(name).epoch for name in CHANNELS}

    def come(self, client: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            adopted = self.engine.adopt(theirs.fileno())
        ours.setblocking(False)
        self.clients[client] = ours, adopted
        self.numbers[adopted.connection] = client

    def do(self, what: str, *arguments: Any) -> Any:
        """One call; what it raises is what it gives."""
        try:
            return getattr(self, what)(*arguments)
        except ValueError as error:
            return type(error).__name__, str(error)

    def publish(self, channel: str, text: str, key: str | None, is_keyframe: bool, is_deferred: bool, tags: Any) -> int:
        published = self.engine.publish(channel, text, None, key, None, is_deferred, (), is_keyframe, tags)
        return int(published.offset)

    def remove(self, channel: str, text: str, key: str) -> int:
        return int(self.engine.remove(channel, text, key).offset)

    def attach(self, client: int, channel: str, since: int | None, start: str | None, filter: str) -> None:
        position = None if since is None else self.module.Position(self.epochs[channel], since)
        self.clients[client][1].subscribe(channel, position, start, self.module.Filter.parse(filter))

    def ask(self, client: int, what: str, *arguments: Any) -> None:
        getattr(self.clients[client][1], what)(*arguments)

    def hear(self) -> None:
        """What the program itself hears, as one that listens anew once it was overtaken."""
        try:
            for channel, position, *rest in self.listener.hear(1_000):
                self.heard[channel].append((position.offset, *rest))
        except Overtaken as error:
            self.heard[error.channel].append("overtaken")
            self.listener.end()
            self.listener = self.engine.listen_to("*", 1)

    def settle(self) -> None:
        """What is done is done, and what was written is read."""
        self.engine.flush()
        self.hear()
        for number in [*self.numbers, *self.numbers, *self.numbers][-3:]:
            self.engine.channels(number)  # waits for the shard's turn, which writes behind that: so more than once
        for event in self.engine.take_events(1000):
            if isinstance(event, self.module.Released):
                self.released[self.numbers[event.connection]] = event.why, event.code, event.reason
        for client, (ours, _) in self.clients.items():
            with contextlib.suppress(BlockingIOError):
                while data := ours.recv(65536):
                    for frame in self.frames[client].take(data):
                        text = "close" if frame.opcode == CLOSE else frame.payload.decode()
                        self.got[client][text.partition(" ")[0]].append(text)

    def seen(self) -> tuple[object, ...]:
        """What clients have got and the program has been told."""
        got = {client: {name: texts for name, texts in by.items() if texts} for client, by in self.got.items()}
        return got, self.released, self.heard, {name: self.engine.occupancy(name) for name in CHANNELS}

    def end(self) -> None:
        self.engine.stop()
        for ours, _ in self.clients.values():
            ours.close()


def compare(worlds: tuple[World, World], calls: object) -> None:
    """Both have given the same, once all is done."""
    for attempt in range(ATTEMPTS):
        for world in worlds:
            world.settle()
        compiled, pure = (world.seen() for world in worlds)
        if compiled == pure:
            return
        select.select([ours for ours, _ in worlds[0].clients.values()], [], [], NOTHING_S * (attempt > 0))
    assert pure == compiled, calls


def play(seed: int, steps: int) -> None:
    """The same random calls to both, and what comes of them."""
    chance = random.Random(seed)
    worlds = World(_engine), World(PURE)
    number, begun, there = count(), set[int](), list[int]()
    offsets: dict[str, int] = dict.fromkeys(CHANNELS, 0)
    held: dict[str, set[int]] = defaultdict(set)
    try:
        for _ in range(steps):
            channel = chance.choice(list(CHANNELS))
            what = chance.choices(
                ["publish", "burst", "remove", "come", "attach", "leave", "begin", "release"], [9, 2, 2, 2, 5, 2, 3, 1]
            )[0]
            calls: list[tuple[Any, ...]] = []
            if what in ("publish", "burst"):
                for _ in range(1 if what == "publish" else 8):
                    key = chance.choice(["a", "b", None])
                    is_keyframe = chance.random() < 0.2
                    text, tags = f"{channel} {next(number)}", chance.choice(TAGS)
                    calls.append(("publish", channel, text, key, is_keyframe, what == "burst", tags))
                    offsets[channel] += 1
            elif what == "remove":
                calls.append(("remove", channel, f"{channel} -{next(number)}", chance.choice("ab")))
                offsets[channel] += CHANNELS[channel].get("policy") == "latest"
            elif what == "come" and len(there) < 5:
                there.append(len(worlds[0].clients))
                calls.append(("come", there[-1]))
                if chance.random() < 0.6:
                    begun.add(there[-1])
                    calls.append(("ask", there[-1], "begin"))
            elif there:
                client = chance.choice(there)
                if what == "attach":
                    # How much more than promised is kept where somebody lags is the engine's to choose.
                    is_exact = not (held[channel] - begun)
                    since = chance.randint(0, offsets[channel]) if is_exact and chance.random() < 0.4 else None
                    start = chance.choice([None, "live", "keyframe", *["history"] * is_exact])
                    held[channel].add(client)
                    calls.append(("attach", client, channel, since, start, FILTERS[client % len(FILTERS)]))
                elif what == "leave":
                    calls.append(("ask", client, "unsubscribe", channel))
                elif what == "begin" and client not in begun:
                    begun.add(client)
                    calls.append(("ask", client, "begin"))
                elif what == "release":
                    there.remove(client)
                    calls.append(("ask", client, chance.choice(["release", "abort"])))
            for call in calls:
                results = [world.do(*call) for world in worlds]
                assert results[0] == results[1], call
            compare(worlds, calls)
    finally:
        for world in worlds:
            world.end()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 32))
def test_clients_get_the_same_of_both(seed: int) -> None:
    """Fast readers, and some that do not read at all until they begin; the same games each time."""
    play(seed, 60)


def names(thing: Any) -> set[str]:
    """Its public names."""
    return {name for name in dir(thing) if not name.startswith("_")}


def test_it_has_the_names_of_the_engine() -> None:
    """Those of objects that the engine alone makes are left out."""
    assert set(PURE.__all__) == set(_engine.__all__)  # type: ignore[attr-defined]
    for name in ("Engine", "Adopted", "Encoder", "Filter", "Listener", "Position", "Publication", "Route"):
        compiled, pure = getattr(_engine, name), getattr(PURE, name)
        assert names(compiled) <= names(pure), name
    for name, value in vars(_engine.Stats).items():
        assert name.startswith("_") or not isinstance(value, property) or name in PURE.Stats.__slots__
    rows = [[getattr(row, name) for name in names(row)] for row in _engine.settings_table()]
    assert rows == [[getattr(row, name) for name in names(row)] for row in map(of_both, PURE.settings_table())]
    for kind in ("seconds", "bytes", "whole", "permissions"):
        for least, most in ((0, 86_400), (1, 2**31 - 1), (0.001, 31_622_400)):
            if least == int(least) or kind == "seconds":
                assert PURE.number_text(kind, least, most) == _engine.number_text(kind, least, most)


def of_both(row: Any) -> Any:
    """A row as the engine has it."""
    return next(one for one in PURE.settings_table() if one.name == row.name)


PATHS = ["/", "/a", "/a/{b}", "/a/{b}/{c}", "/A", "/a%2fb", "/caf\xe9", "/a/", "a", "/a//b", "/a?", "/{a}/{a}", "/x{a}"]
PATHS += ["/..", "/%2e", "/{", "/a b", "/a\\b", "/" + "x" * 255, "/" + "\xe4" * 60, "/a/negotiate"]


@pytest.mark.parametrize("wire", ["websocket", "signalr", "plain", "health", "none such"])
def test_paths_are_the_same(wire: str) -> None:
    def made(module: Any, path: str, channel: str | None = None) -> Any:
        try:
            route = module.Route(path, wire, channel=channel)
            return route.key, route.path
        except ValueError as error:
            return str(error)

    for path in PATHS:
        assert made(PURE, path) == made(_engine, path)
        for channel in ("a", "a:{b}", "{", "*", ""):
            assert made(PURE, path, channel) == made(_engine, path, channel), (path, channel)
    good = [path for path in PATHS if isinstance(made(_engine, path), tuple)]
    for one in good:
        for other in good:
            clash = [
                module.Route(one, wire).clashes_with(module.Route(other, "signalr" if "{" not in other else wire))
                for module in (_engine, PURE)
            ]
            assert clash[0] == clash[1], (one, other)


WANTED = ['"x"', "1", "-0.0", "true", '["x",1]', "[]", "null", '{"prefix":"x"}', '{"min":1,"max":2}', "{}"]
WANTED += ['{"max":0.5}', '{"min":2,"max":1}', '{"min":"x"}', '{"prefx":1}', '{"min":1,"x":1}', "9007199254740993"]


@given(st.dictionaries(st.sampled_from(["a", "b", ""]), st.sampled_from(WANTED), max_size=2))
def test_filters_are_read_the_same(asked: dict[str, str]) -> None:
    text = "{" + ",".join(f'"{name}":{wanted}' for name, wanted in asked.items()) + "}"

    def read(module: Any) -> Any:
        try:
            return module.Filter.parse(text) is None
        except ValueError as error:
            return str(error)

    assert read(PURE) == read(_engine)


BAD_TAGS: list[Any] = [{"a": None}, {"": 1}, {"a\n": 1}, {"a": 1 << 60}, {"a": float("inf")}, {"a": "x" * 256}, 5]
BAD_TAGS += [{1: 2}, {str(number): number for number in range(17)}, {"x" * 65: 1}]


@pytest.mark.parametrize("tags", BAD_TAGS, ids=str)
def test_tags_are_refused_the_same(tags: Any) -> None:
    def refused(module: Any) -> Any:
        engine = module.Engine(module.Settings())
        engine.start()
        try:
            with pytest.raises((TypeError, ValueError)) as raised:
                engine.publish("a", "x", None, None, None, False, (), False, tags)
        finally:
            engine.stop()
        return type(raised.value).__name__, str(raised.value)

    assert refused(PURE) == refused(_engine)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_patterns_match_the_same(pattern: str, name: str) -> None:
    def matched(module: Any) -> Any:
        try:
            return module.matches(pattern, name)
        except ValueError as error:
            return str(error)

    assert matched(PURE) == matched(_engine)


def stalled(**promise: Any) -> tuple[list[str], Any, Any]:
    """What one gets that read nothing while much was published, the last of it, and the engine's word of it."""
    engine = PURE.Engine(PURE.Settings(channels=[PURE.ChannelRule("a", **promise)], close_timeout=5.0))
    engine.start()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        ours.settimeout(60)
        adopted = engine.adopt(theirs.fileno())
        theirs.close()
        adopted.begin()
        adopted.subscribe("a")
        for number in range(400):
            key = "odd" if number % 2 else "even"
            engine.publish("a", f"{number:04}" + "x" * 1_000, None, key, None, False, (), number % 50 == 0)
        lagging = engine.stats().lagging
        frames, got = Frames(), list[str]()
        while data := ours.recv(65_536):
            for frame in frames.take(data):
                got.append("close" if frame.opcode == CLOSE else frame.payload[:4].decode())
            if got and got[-1] == "0399":
                adopted.release()
        told = [event for event in engine.take_events() if isinstance(event, PURE.Released)]
        engine.stop()
        assert lagging == 1
        return got, told, engine.stats()


def test_who_does_not_read_is_dealt_with_as_the_policy_says() -> None:
    numbers = [f"{number:04}" for number in range(400)]
    assert stalled()[0] == numbers  # the backlog has all of it
    got, (released,), stats = stalled(backlog_frames=20)
    assert got[-1] == "close" and got[:-1] == numbers[: len(got) - 1]
    assert (released.why, released.code, released.reason) == ("closed", 1013, "too slow for channel a")
    assert stats.overtaken == 1 and stats.closes == {1013: 1}
    got, (released,), _ = stalled(policy="latest", backlog_frames=20)
    assert got[-2:] == numbers[-2:] and len(got) < 100 and released.why == "released"
    got, (released,), stats = stalled(policy="drop", backlog_frames=20)
    assert got[-1] == "0399" and got == sorted(set(got)) and stats.skipped["drop"] == 400 - len(got)
    got, (released,), stats = stalled(policy="keyframe", backlog_frames=60)
    jumps = [after for before, after in pairwise(got) if int(after) != int(before) + 1]
    assert jumps and all(int(after) % 50 == 0 for after in jumps) and got[-1] == "0399"


def test_who_is_closed_and_does_not_read_is_given_up_in_time() -> None:
    engine = PURE.Engine(PURE.Settings(channels=[PURE.ChannelRule("a", backlog_frames=5)], close_timeout=0.1))
    engine.start()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        adopted = engine.adopt(theirs.fileno())
        adopted.begin()
        adopted.subscribe("a")
        while not engine.stats().overtaken:
            engine.publish("a", "x" * 10_000)
        while not (told := engine.take_events()):
            select.select([engine.event_fd], [], [], 1)
        assert [(one.why, one.code) for one in told] == [("closed", 1013)]
        assert engine.occupancy("a") == 0
    engine.stop()
