"""What scale.py measures, a function a phase; the bounds stand in scale_report.py, the processes in scale_stage.py."""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from measure import PROC, cpu_of, memory_of
from process import ChildFailed
from relay import Cost
from scale_floor import Floors
from scale_screen import Show
from scale_stage import (
    ALL_MATCHES,
    MATCHES,
    WITHIN_S,
    Backend,
    Feeder,
    Fleet,
    Workers,
    connections_to,
    pinned,
    processes_for,
    staged,
)
from signalr import Crowd, Server

SMALL = (1_000, 10_000, 100_000)
MIDDLE = 600_000
STORM = 100_000
DIRECT, DIRECT_MATCHES = 15_000, 15
"""As many at each match as a million have."""
STOCK_PING_S = 15
IDLE_LEAST_S = 30.0
FEED_RATE = 20.0 * MATCHES / 1_000
"""Publications a second, of all matches together: 20,000 messages a second to a million clients."""
FREE_ROUNDS, PAUSE_S = 2, 0.1
MATCH_ROUNDS, MATCH_EVERY_S = 200, 0.1
AWAY_S = 2.0
ADMISSION_S = 2.0


@dataclass
class Run:
    """What is asked for, and what is found."""

    clients: int
    keepalive_s: int
    floor: bool
    show: Show
    figures: dict[str, float] = field(default_factory=dict)
    message_bytes: int = 181
    """Of the last goal that went to everyone, without the frame's head: what the bare loop sends."""

    def add(self, **found: float) -> None:
        """Keep figures, and show them."""
        self.figures.update(found)
        self.show.found(found)


@dataclass
class Stage:
    """A relay with its crowd."""

    backend: Backend
    front: Workers
    fleet: Fleet


class Kernel:
    """What the kernel holds for all sockets of the machine, bytes; both ends of a connection are here."""

    def __init__(self) -> None:
        """Now."""
        lines = (line.split() for line in (PROC / "meminfo").read_text().splitlines())
        known = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
        self.slab = known["Slab"]
        self.available = known["MemAvailable"]
        tcp = (PROC / "net/sockstat").read_text().split("TCP:")[1].split()
        self.buffers = int(tcp[tcp.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")


def direct(run: Run) -> None:
    """What a publication costs the hub that holds its clients itself."""
    with ExitStack() as stack:
        backend = stack.enter_context(Backend())
        backend.listen()
        names = ",".join(ALL_MATCHES.split(",")[:DIRECT_MATCHES])
        server: Server = backend
        more = ["--subscribe", "Subscribe", "--matches", str(DIRECT_MATCHES), "--ping-every", str(STOCK_PING_S)]
        crowd = Crowd(server, DIRECT, "json", more=[*more, "--target", "Odds,Announcement", "--patience", "60"])
        crowd.cores = backend.cores
        stack.enter_context(crowd)
        crowd.connected()
        for _ in range(10):
            crowd.receive(5, partial(backend.publish, 5, names))
        cost = Cost(backend)
        for _ in range(5):
            crowd.receive(1, partial(backend.publish, 1, names))
            time.sleep(0.2)
        us, sent = cost.of_publication()
        run.add(direct_us=us, direct_bytes=sent, direct_clients=DIRECT)
        before = backend.stats()["bytesOut"]
        crowd.receive(1, backend.publish_all)
        run.add(direct_goal_bytes=backend.stats()["bytesOut"] - before)


def small(run: Run) -> None:
    """What a message to everyone costs where fewer are connected, with as many workers as it takes.

    All watch one match. What the hub sends to `Clients.All` comes over each of a thousand lanes as well, which is dear
    where there are no more clients than that.
    """
    for clients in SMALL:
        if clients > run.clients:
            continue
        run.show.note(f"{clients:,} clients")
        with staged(clients, run.keepalive_s, matches=1) as (backend, front, fleet):
            run.show.watch(backend, front, fleet)
            fleet.connect(clients)
            rounds = max(3, min(40, 400_000 // clients))
            goal(run, Stage(backend, front, fleet), rounds, partial(backend.publish, 1, "m1"))
            fleet.check(backend.published())
        if run.floor:
            bare(run, [clients], rounds)


def stock(run: Run) -> None:
    """What clients cost that ping as stock ones do, and are pinged so: every 15 s."""
    clients = min(SMALL[-1], run.clients)
    with staged(clients, STOCK_PING_S) as (backend, front, fleet):
        run.show.watch(backend, front, fleet)
        fleet.connect(clients)
        run.show.note(f"{clients:,} clients ping every {STOCK_PING_S} s, and are pinged")
        run.show.steady(STOCK_PING_S)
        share = resting(run, front, fleet, STOCK_PING_S)
        run.add(stock_percent=share, stock_clients=clients)


def resting(run: Run, front: Workers, fleet: Fleet, seconds: float) -> float:
    """Share of a core, %, that the workers take while nothing is published."""
    fleet.told()
    pings, before, began = fleet.total("pings_received"), cpu_of(front.pid), time.monotonic()
    run.show.steady(seconds)
    spent, passed = cpu_of(front.pid).since(before).total_ns, time.monotonic() - began
    fleet.told()
    run.add(pings_received=fleet.total("pings_received") - pings)
    return spent / 1e7 / passed


def goal(run: Run, stage: Stage, rounds: int, publish: Callable[[], object], idle_percent: float = 0.0) -> None:
    """One message to everyone: CPU of one to one client, servers on a core; seconds until the last has it, on all.

    Pings go on meanwhile. What they take, `idle_percent` of a core, is no delivery's: it is told apart.
    """
    clients = stage.fleet.clients
    stage.fleet.receive(1, publish, level=True)
    time.sleep(PAUSE_S)
    seconds = []
    for _ in range(FREE_ROUNDS):
        seconds.append(stage.fleet.receive(1, publish))
        time.sleep(PAUSE_S)
    spent, passed = 0, 0.0
    others = [stage.backend.pid, *(load.pid for load in stage.fleet.loads)]
    with pinned([stage.front.pid], others):
        stage.fleet.receive(1, publish)
        for _ in range(rounds):
            before, began = cpu_of(stage.front.pid), time.monotonic()
            stage.fleet.receive(1, publish)
            passed += time.monotonic() - began
            spent += cpu_of(stage.front.pid).since(before).total_ns
            time.sleep(PAUSE_S)
    us, pings_us = (one / 1e3 / (rounds * clients) for one in (spent, passed * idle_percent * 1e7))
    run.message_bytes = stage.fleet.message_bytes
    run.add(**{f"us_{clients}": us - pings_us, f"pings_us_{clients}": pings_us})
    run.add(**{f"goal_s_{clients}": median(seconds), f"workers_{clients}": stage.front.count})


def bare(run: Run, steps: list[int], rounds: int) -> None:
    """The same of the bare loop, with so many sockets, and then so many."""
    with Floors(processes_for(steps[-1])) as floors:
        for clients in steps:
            floors.connect(clients - floors.clients)
            run.show.note(f"the bare loop with {clients:,} sockets")
            _, seconds = floors.delivery(run.message_bytes, FREE_ROUNDS, PAUSE_S)
            with pinned(*floors.pids()):
                floors.delivery(run.message_bytes, 1, PAUSE_S)
                us, _ = floors.delivery(run.message_bytes, rounds, PAUSE_S)
            run.add(**{f"bare_us_{clients}": us, f"bare_s_{clients}": seconds})


def connect(run: Run, stage: Stage) -> None:
    """All but the storm's clients, with a look at 600,000 on the way; then the storm, while messages flow."""
    storm = min(STORM, run.clients // 10)
    calm = run.clients - storm
    kernel, memory = Kernel(), memory_of(stage.front.pid)
    run.add(workers=stage.front.count, worker_kib=memory.shared_out_bytes / 1024 / stage.front.count)
    before, connects_s = cpu_of(stage.front.pid), 0.0
    for aim in sorted({MIDDLE, calm} if calm > MIDDLE else {calm}):
        run.show.note(f"{aim:,} clients connect")
        connects_s += stage.fleet.connect(aim - stage.fleet.clients)["seconds"]
        run.add(**{f"connect_s_{aim}": connects_s})
        if aim == MIDDLE:
            spent = cpu_of(stage.front.pid).since(before).total_ns
            goal(run, stage, 2, stage.backend.publish_all, idle(run, stage))
            before = cpu_of(stage.front.pid)
            run.add(connect_us=spent / 1e3 / aim)
    run.add(connections_calm=stage.backend.stats()["connected"])
    run.show.note(f"{storm:,} log in, as fast as they are taken, while {FEED_RATE:g} publications a second flow")
    stage.fleet.take_ages()
    with Feeder(stage.backend, FEED_RATE):
        said = stage.fleet.connect(storm)
    ages = stage.fleet.take_ages()
    run.add(
        storm_clients=storm,
        storm_s=said["seconds"],
        storm_login_p99_s=said["p99_s"],
        storm_age_p99_ms=ages.quantile_ms(0.99),
        connect_s=connects_s + said["seconds"],
    )
    stage.fleet.check(stage.backend.published())
    time.sleep(ADMISSION_S)
    settled = Kernel()
    held = memory_of(stage.front.pid)
    stats = stage.backend.stats()
    load = sum(memory_of(one.pid).private_bytes for one in stage.fleet.loads)
    run.add(
        connect_failed=stage.fleet.failed,
        connections=stats["connected"],
        connections_peak=stats["connectedPeak"],
        negotiates=stats["negotiates"],
        user_kib=held.shared_out_bytes / 1024 / run.clients,
        user_more_kib=(held.shared_out_bytes - memory.shared_out_bytes) / 1024 / run.clients,
        load_kib=load / 1024 / run.clients,
        slab_kib=(settled.slab - kernel.slab) / 1024 / run.clients,
        all_kib=(kernel.available - settled.available) / 1024 / run.clients,
    )


def idle(run: Run, stage: Stage) -> float:
    """Nothing but pings, until each client has had one; half a minute at least. Gives % of a core."""
    time.sleep(ADMISSION_S)
    run.show.note(f"nothing but pings, every {run.keepalive_s} s both ways")
    seconds = max(IDLE_LEAST_S, float(run.keepalive_s))
    share = resting(run, stage.front, stage.fleet, seconds)
    run.add(idle_percent=share, ping_s=run.keepalive_s)
    return share


def everyone(run: Run, stage: Stage) -> None:
    """A goal that goes to all."""
    run.show.note(f"one goal to {stage.fleet.clients:,} clients")
    goal(run, stage, 2, stage.backend.publish_all, run.figures.get("idle_percent", 0.0))


def match(run: Run, stage: Stage) -> None:
    """A goal of one match, to its thousandth of the clients, while all else is quiet."""
    run.show.note(f"{MATCH_ROUNDS} goals, each of one match")
    stage.fleet.take_ages()
    received = stage.fleet.total("received")
    before = cpu_of(stage.front.pid)
    for number in range(MATCH_ROUNDS):
        began = time.monotonic()
        stage.backend.publish(1, f"m{(number * 37) % MATCHES + 1}")
        run.show.progress(number + 1, MATCH_ROUNDS)
        time.sleep(max(0.0, MATCH_EVERY_S - (time.monotonic() - began)))
    wanted = MATCH_ROUNDS * stage.fleet.clients / MATCHES
    aim = received + wanted - MATCH_ROUNDS
    stage.fleet.wait_until("all have theirs", lambda: stage.fleet.total("received") >= aim, 60.0)
    time.sleep(1.0)
    spent = cpu_of(stage.front.pid).since(before).total_ns
    ages = stage.fleet.take_ages()
    if abs(stage.fleet.total("received") - received - wanted) > MATCH_ROUNDS:
        raise ChildFailed(f"{stage.fleet.total('received') - received:,} messages arrived, {wanted:,.0f} are right")
    stage.fleet.check(stage.backend.published())
    run.add(match_p50_ms=ages.quantile_ms(0.5), match_p99_ms=ages.quantile_ms(0.99), match_max_ms=ages.quantile_ms(1))
    run.add(match_us=spent / 1e3 / wanted)


def publications(run: Run, stage: Stage) -> None:
    """One publication of each match: what the backend does for it, and that nothing is lost or doubled."""
    publish = partial(stage.backend.publish, 1, ALL_MATCHES)
    run.show.note("one publication of each match")
    with run.show.quiet():
        stage.fleet.receive(1, publish, level=True)
        cost, before, rounds = Cost(stage.backend), cpu_of(stage.front.pid), 2
        for _ in range(rounds):
            stage.fleet.receive(1, publish)
        us, sent = cost.of_publication()
    spent = cpu_of(stage.front.pid).since(before).total_ns
    run.add(backend_us=us, backend_bytes=sent, matches_us=spent / 1e3 / (rounds * stage.fleet.clients))
    faults = stage.fleet.check(stage.backend.published())
    messages = stage.fleet.total("received")
    run.add(faults=sum(faults.values()), messages=messages)


def killed(run: Run, stage: Stage, pid: int, name: str) -> None:
    """A worker is gone: until its clients are back, and its lanes."""
    fleet, backend = stage.fleet, stage.backend
    fleet.told()
    before = {one: fleet.total(one) for one in ("closed", "returned", "missed")}
    with Feeder(backend, FEED_RATE):
        time.sleep(1.0)
        began_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        lanes_s = _lanes_back(backend, began_ns)
        fleet.wait_until("all clients are back", lambda: _is_whole(run, fleet, before), 60.0)
        back_ns = max(load.tick["opened_ns"] for load in fleet.loads)
        time.sleep(1.0)
    time.sleep(1.0)
    fleet.told()
    lost = fleet.total("closed") - before["closed"]
    fleet.lost += lost
    faults = fleet.check(backend.published(), allowed=("told", "restarts"))
    run.add(
        **{
            f"{name}_clients": lost,
            f"{name}_s": (back_ns - began_ns) / 1e9,
            f"{name}_lanes_s": lanes_s,
            f"{name}_missed": fleet.total("missed") - before["missed"],
            f"{name}_told": faults["told"] + faults["restarts"],
            f"{name}_connections": backend.stats()["connected"],
        }
    )


def _is_whole(run: Run, fleet: Fleet, before: dict[str, int]) -> bool:
    run.show.progress(fleet.total("open"), fleet.clients)
    return fleet.total("open") == fleet.clients and fleet.total("closed") > before["closed"]


def _lanes_back(backend: Backend, began_ns: int) -> float:
    """Seconds until every match was watched without a break of a second, 0 where none was unwatched."""
    whole_ns = 0
    while (now := time.monotonic_ns()) - began_ns < WITHIN_S * 1e9:
        is_whole = backend.watched() >= MATCHES
        if not is_whole:
            whole_ns = 0
        elif not whole_ns:
            whole_ns = now
        elif now - whole_ns > 1e9 and now - began_ns > 2e9:
            return (whole_ns - began_ns) / 1e9
        time.sleep(0.02)
    return math.inf


def worker(run: Run, stage: Stage) -> None:
    """kill -9 of one worker."""
    run.show.note("kill -9 of one worker")
    killed(run, stage, stage.front.workers()[0], "worker")


def lane(run: Run, stage: Stage) -> None:
    """kill -9 of the worker that holds the most lanes."""
    run.show.note("kill -9 of the worker with the most lanes")
    held = connections_to(stage.backend.port, stage.front.workers())
    if not held:
        raise ChildFailed("no worker has a connection to the backend")
    pid, lanes = held.most_common(1)[0]
    run.add(lane_held=lanes)
    killed(run, stage, pid, "lane")


def backend_dies(run: Run, stage: Stage) -> None:
    """kill -9 of the backend, which comes back on its port; nobody may lose the connection."""
    fleet = stage.fleet
    run.show.note("kill -9 of the backend")
    fleet.told()
    closed = fleet.total("closed")
    began = time.monotonic()
    os.kill(stage.backend.pid, signal.SIGKILL)
    time.sleep(AWAY_S)
    with Backend(stage.backend.port) as back:
        back.listen()
        run.show.watch(back, stage.front, fleet)
        returned = time.monotonic()
        run.show.note("the backend is back")
        back.wait_until("all lanes", lambda found: len(found["watchers"]) >= MATCHES)
        lanes_s = time.monotonic() - returned
        time.sleep(5.0)  # the snapshots of a new life, to everyone
        seconds = fleet.receive(1, partial(back.publish, 1, ALL_MATCHES), level=True)
        fleet.told()
        faults = fleet.check(back.published(), allowed=("restarts", "told"))
        run.add(
            backend_away_s=returned - began,
            backend_lanes_s=lanes_s,
            backend_goal_s=seconds,
            backend_restarts=faults["restarts"],
            backend_closed=fleet.total("closed") - closed,
            backend_connections=back.stats()["connected"],
        )


def floors(run: Run) -> None:
    """The bare loop with as many sockets as there were clients."""
    steps = sorted({clients for clients in (MIDDLE, run.clients) if clients <= run.clients} - set(SMALL))
    if steps:
        bare(run, steps, 2)


ALONE: dict[str, Callable[[Run], None]] = {"direct": direct, "small": small, "stock": stock, "floors": floors}
"""Phases that have a stage of their own."""
TOGETHER: dict[str, Callable[[Run, Stage], None]] = {
    "idle": idle,
    "goal": everyone,
    "match": match,
    "publications": publications,
    "worker": worker,
    "lane": lane,
    "backend": backend_dies,
}
"""Phases of the crowd that `connect` has connected."""
TITLES: dict[str, str] = {
    "direct": "direct",
    "small": "few",
    "stock": "stock pings",
    "connect": "connect",
    "idle": "idle",
    "goal": "goal",
    "match": "match",
    "publications": "all matches",
    "worker": "kill a worker",
    "lane": "kill a lane's",
    "backend": "kill the backend",
    "floors": "bare loop",
}


def crowd(run: Run, wanted: list[str], guarded: Callable[[str, Callable[[], Any]], bool]) -> None:
    """Connect all, then each phase that is wanted; one that fails leaves the others."""
    with staged(run.clients, run.keepalive_s) as (backend, front, fleet):
        stage = Stage(backend, front, fleet)
        run.show.watch(backend, front, fleet)
        if not guarded("connect", partial(connect, run, stage)):
            return
        for name in wanted:
            guarded(name, partial(TOGETHER[name], run, stage))
        run.show.note("all are let go")
