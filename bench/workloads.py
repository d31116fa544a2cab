"""The table of workloads and of peers: what is measured, with which figures, and the bounds that fanwire must reach.

A :class:`Group` is one layout of clients; its workloads run one after another on the same connections, so that a
server is started and connected once for all of them. Nothing here starts a process.
"""

import itertools
import random
import sys
from bisect import bisect
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from peers.centrifugo_hub import connect_request

HERE = Path(__file__).resolve().parent
PEERS_DIR = HERE / "peers"


@dataclass(frozen=True)
class Workload:
    """One way to publish on a group's connections.

    Attributes:
        name: key in results.json and on the command line.
        title: for tables.
        rounds: measured rounds, each one burst.
        burst: publications back to back in a round.
        interval_s: seconds between rounds; the runner lengthens it where a server would be overloaded.
        payload_bytes: of one publication.
        warm_rounds: rounds before, not counted.
    """

    name: str
    title: str
    rounds: int
    burst: int
    interval_s: float
    payload_bytes: int = 128
    warm_rounds: int = 1

    @property
    def publications(self) -> int:
        """Measured publications."""
        return self.rounds * self.burst


@dataclass(frozen=True)
class Group:
    """One layout of clients and the workloads that run on it.

    Attributes:
        name: key; also selects the whole group with ``--only``.
        clients: connections.
        repeats: how often the peers take turns.
        peers: names from :func:`peers`, in their order of turns; one without channels sits out a group that has them.
        channels: 0: all clients watch ``c0``; else the number of channels, drawn by Zipf.
        subscriptions: channels a client watches, with `channels` > 0.
        zipf: exponent, for the subscriptions and for the publications alike.
        memory: measure idle memory and the storm of connects; where not, they are only by-catch.
        control: run again with the receiver's half of TCP on the other core.
    """

    name: str
    clients: int
    repeats: int
    peers: tuple[str, ...]
    workloads: tuple[Workload, ...]
    channels: int = 0
    subscriptions: int = 0
    zipf: float = 1.0
    memory: bool = False
    control: bool = False
    settle_s: float = 0.5


@dataclass(frozen=True)
class Peer:
    """A server program. `command` is completed with ``--port P``; `label` and `kind` are for tables and plots."""

    name: str
    label: str
    command: tuple[str, ...]
    kind: str = "python"
    has_channels: bool = True
    cores: tuple[int, ...] = (0,)
    query: str = ""
    """What its clients add to the path, which begins a query."""
    load: tuple[str, ...] = ()
    """Options of the load client."""
    packages: tuple[str, ...] = field(default_factory=tuple)


def _python(file: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, str(PEERS_DIR / file), *options)


def python_peer(name: str, label: str, file: str, *options: str) -> Peer:
    """A server program of bench/peers that this Python runs."""
    return Peer(name, label, _python(file, *options))


def centrifugo_peer(name: str, label: str, *options: str) -> Peer:
    """Centrifugo, whose clients say by their query what they watch, and get objects."""
    return Peer(
        name,
        label,
        _python("centrifugo_hub.py", *options),
        "go",
        has_channels=False,
        query=f"?cf_connect={quote(connect_request())}",
        load=("--envelopes",),
    )


def peers(floor: Path) -> dict[str, Peer]:
    """All peers by name; `floor` is the path of the bare loop's binary."""
    node = ("node", str(PEERS_DIR / "node" / "node_ws.js"))
    fanwire = "fanwire_hub.py"
    table = [
        Peer("floor-uring", "bare loop, io_uring", (str(floor), "--via", "uring"), "floor", has_channels=False),
        Peer("floor-send", "bare loop, send", (str(floor), "--via", "send"), "floor", has_channels=False),
        Peer("fanwire", "fanwire", _python(fanwire), "fanwire"),
        Peer("fanwire-epoll", "fanwire, epoll", _python(fanwire, "--poller", "epoll"), "fanwire"),
        Peer("fanwire-2", "fanwire, 2 shards", _python(fanwire, "--shards", "2"), "fanwire", cores=(0, 1)),
        Peer("socketify", "µWebSockets (socketify)", _python("socketify_hub.py"), "native", packages=("socketify",)),
        Peer("picows", "picows", _python("picows_hub.py"), packages=("picows", "uvloop")),
        Peer("websockets", "websockets", _python("websockets_asyncio.py"), packages=("websockets",)),
        Peer(
            "websockets-uvloop",
            "websockets, uvloop",
            _python("websockets_asyncio.py", "--uvloop"),
            packages=("websockets", "uvloop"),
        ),
        Peer("aiohttp", "aiohttp", _python("aiohttp_hub.py"), packages=("aiohttp", "uvloop")),
        Peer("fastapi", "FastAPI on uvicorn", _python("fastapi_hub.py"), packages=("fastapi", "uvicorn", "uvloop")),
        Peer("node-ws", "Node ws", node, "node"),
        centrifugo_peer("centrifugo", "Centrifugo"),
        centrifugo_peer("centrifugo-joined", "Centrifugo, joined", "--joined"),
    ]
    return {peer.name: peer for peer in table}


MAIN = ("floor-uring", "fanwire", "socketify")
NEAR = ("floor-uring", "fanwire", "socketify", "floor-send", "fanwire-epoll", "fanwire-2")
"""Those whose ratios are near the bounds: more turns and longer ones, each beside its neighbour in the order."""
FAR = ("picows", "websockets", "websockets-uvloop", "aiohttp", "fastapi", "node-ws", "centrifugo", "centrifugo-joined")
ALL = (*NEAR, *FAR)


def _bursts(single: int, burst5: int, burst20: int, burst100: int) -> tuple[Workload, ...]:
    """The four bursts, so often each. Intervals leave a peer at 12 µs a delivery under half a core."""
    return (
        Workload("single", "one at a time", single, 1, 0.025, warm_rounds=5),
        Workload("burst5", "burst of 5", burst5, 5, 0.05, warm_rounds=2),
        Workload("burst20", "burst of 20", burst20, 20, 0.1),
        Workload("burst100", "burst of 100", burst100, 100, 0.25),
    )


def short() -> tuple[Group, ...]:
    """The short form: under ten minutes on two cores."""
    goal = Workload("goal", "goal: one message a second", 3, 1, 1.0)
    crowd = Workload("burst20-crowd", "burst of 20, many clients", 3, 20, 0.25)
    markets = Workload("markets", "markets", 20, 20, 0.05, warm_rounds=2)
    return (
        Group("bursts", 1_000, 5, NEAR, _bursts(80, 24, 10, 5), control=True),
        Group("bursts-far", 1_000, 2, FAR, _bursts(40, 8, 3, 1)),
        Group("crowd", 8_000, 3, MAIN, (crowd,)),
        Group("markets", 2_000, 3, ("fanwire", "socketify", "picows", "websockets"), (markets,), 1_000, 10),
        Group(
            "goal",
            10_000,
            1,
            (*MAIN, "picows", "websockets", "aiohttp", "node-ws", "centrifugo"),
            (goal,),
            memory=True,
            settle_s=1.0,
        ),
    )


def full() -> tuple[Group, ...]:
    """The full form: the figures that are published. About an hour."""
    goal = Workload("goal", "goal: one message a second", 20, 1, 1.0, warm_rounds=2)
    crowd = Workload("burst20-crowd", "burst of 20, many clients", 5, 20, 0.25)
    crowd_others = (Workload("single-crowd", "one at a time, many clients", 10, 1, 0.2), crowd)
    markets = Workload("markets", "markets", 60, 20, 0.05, warm_rounds=5)
    return (
        Group("bursts", 1_000, 9, NEAR, _bursts(160, 48, 20, 10), control=True),
        Group("bursts-far", 1_000, 3, FAR, _bursts(120, 24, 9, 3)),
        Group("crowd", 8_000, 3, ALL, crowd_others),
        Group("markets", 2_000, 5, ALL, (markets,), 1_000, 10),
        Group("goal", 10_000, 3, ALL, (goal,), memory=True, settle_s=2.0),
    )


def smoke() -> tuple[Group, ...]:
    """Proof that everything runs; the figures mean nothing."""
    bursts = (Workload("single", "one at a time", 5, 1, 0.02), Workload("burst20", "burst of 20", 2, 20, 0.05))
    goal = Workload("goal", "goal: one message a second", 2, 1, 0.1)
    markets = Workload("markets", "markets", 3, 20, 0.05)
    return (
        Group("bursts", 100, 2, ALL, bursts, control=True),
        Group("markets", 50, 1, ALL, (markets,), 100, 5),
        Group("goal", 200, 1, ALL, (goal,), memory=True),
    )


FORMS = {"short": short, "full": full, "smoke": smoke}


def zipf_order(channels: int, exponent: float, count: int, seed: int) -> list[int]:
    """`count` channel indices drawn by Zipf(`exponent`), the same for every peer with the same seed."""
    cumulative = list(itertools.accumulate((rank + 1) ** -exponent for rank in range(channels)))
    chance = random.Random(seed)
    return [min(bisect(cumulative, chance.random() * cumulative[-1]), channels - 1) for _ in range(count)]


@dataclass(frozen=True)
class Bound:
    """A promise: fanwire's `metric` on `workload`, divided by `against`'s where named, is at most `at_most`."""

    title: str
    workload: str
    metric: str
    at_most: float
    against: str | None = None
    peer: str = "fanwire"


BOUNDS = (
    Bound("one at a time, against the bare loop", "single", "cpu_us", 1.15, "floor-uring"),
    Bound("one at a time, against µWebSockets", "single", "cpu_us", 0.9, "socketify"),
    Bound("burst of 5, against the bare loop", "burst5", "cpu_us", 1.2, "floor-uring"),
    Bound("burst of 5, against µWebSockets", "burst5", "cpu_us", 0.8, "socketify"),
    Bound("burst of 20, against the bare loop", "burst20", "cpu_us", 1.2, "floor-uring"),
    Bound("burst of 20, against µWebSockets", "burst20", "cpu_us", 0.77, "socketify"),
    Bound("burst of 20, against websockets.broadcast", "burst20", "cpu_us", 0.05, "websockets"),
    Bound("burst of 100, against the bare loop", "burst100", "cpu_us", 1.4, "floor-uring"),
    Bound("burst of 100, against µWebSockets", "burst100", "cpu_us", 0.4, "socketify"),
    Bound("burst of 20 to 8,000 clients, against the bare loop", "burst20-crowd", "cpu_us", 1.2, "floor-uring"),
    Bound("burst of 20 to 8,000 clients, against µWebSockets", "burst20-crowd", "cpu_us", 0.9, "socketify"),
    Bound("one at a time, against Centrifugo", "single", "cpu_us", 1 / 2, "centrifugo"),
    Bound("burst of 20, against Centrifugo", "burst20", "cpu_us", 1 / 20, "centrifugo"),
    Bound("burst of 100, against Centrifugo", "burst100", "cpu_us", 1 / 60, "centrifugo"),
    Bound("markets, against µWebSockets", "markets", "cpu_us", 0.9, "socketify"),
    Bound("idle connection, KiB of user-space memory", "idle", "idle_kib", 0.5),
    Bound("idle connection, against Centrifugo", "idle", "idle_kib", 1 / 100, "centrifugo"),
    Bound("10,000 connects, seconds", "idle", "connect_s", 0.6),
    Bound("two shards, busiest thread against one shard's", "single", "busiest_us", 1 / 1.8, "fanwire", "fanwire-2"),
)
