"""What is listed: where the admin side has it, its columns, and by what it is sorted. Not here: how it is drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fanwire.demo.figures import NONE
from fanwire.top.figures import count, octets, octets_rate, processors, rate, seconds, text

Entry: TypeAlias = Mapping[str, Any]
"""A row as the admin side gives it, with ``at``, the hub's time, and ``per_s``, rates of its counters."""
REST_MIN = 8
"""Characters at least of the column that takes what is left."""
GAP = 2
"""Between two columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """One of a listing."""

    title: str
    show: Callable[[Entry], str]
    width: int = 0
    """Characters; 0: what is left."""
    sort: str = ""
    """What the listing is sorted by that shows this."""
    is_number: bool = True
    from_width: int = 0
    """It is left out on a terminal with fewer columns."""
    mood: Callable[[Entry], str] | None = None
    """What it deserves: ``bad``, ``warning``, ``good`` or nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """One of them. `sorts` are names, the first of which is the default."""

    name: str
    path: str
    columns: tuple[Column, ...]
    sorts: tuple[str, ...]
    entries: Callable[[Any], Sequence[Entry]]
    """Those of an answer."""
    key: Callable[[Entry], str]
    nothing: str
    """What is said where there is none."""
    counters: tuple[str, ...] = ()
    """Of an entry, whose rates are shown."""
    measures: Mapping[str, Callable[[Entry], Any]] | None = None
    """Where it is sorted here: what is largest comes first. None: the admin side sorts."""


def fitted(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """Those that a terminal of such a width has room for, each with its own."""
    shown = [one for one in columns if one.from_width <= width]
    taken = sum(one.width + GAP for one in shown)
    rest = max(REST_MIN, width - taken)
    return [(one, one.width or rest) for one in shown]


def _lag(entry: Entry, name: str) -> Any:
    return None if entry["lag"] is None else entry["lag"][name]


def _why_mood(entry: Entry) -> str:
    return {"socket_full": "bad", "awaits_keyframe": "bad", "away": "warning", "replaying": "warning"}.get(
        _lag(entry, "why"), ""
    )


def _state_mood(entry: Entry) -> str:
    return "good" if entry["state"] in ("live", "up") else "bad" if entry["state"] == "down" else "warning"


CHANNELS = Listing(
    name="channels",
    path="/api/channels",
    columns=(
        Column("channel", lambda one: text(one["channel"]), is_number=False),
        Column("policy", lambda one: text(one["policy"]), 8, is_number=False),
        Column("clients", lambda one: count(one["subscribers"]), 8, "subscribers"),
        Column("pub/s", lambda one: rate(one["rate"]), 6, "rate"),
        Column("deliv/s", lambda one: rate(one["deliveries"]), 8, "deliveries"),
        Column(
            "backlog",
            lambda one: octets(one["backlog_bytes"]),
            8,
            "backlog",
            mood=lambda one: "warning" if one["backlog_bytes"] else "",
        ),
        Column("idle", lambda one: seconds(one["idle"]), 7),
        Column("kept", lambda one: count(one["kept"]), 6, from_width=100),
        Column("unsent", lambda one: octets(one["unsent_bytes"]), 8, from_width=110),
        Column("pattern", lambda one: text(one["pattern"]), 16, is_number=False, from_width=130),
        Column("position", lambda one: text(one["position"]), 24, is_number=False, from_width=160),
    ),
    sorts=("deliveries", "rate", "subscribers", "backlog"),
    entries=lambda answer: answer["channels"],
    key=lambda one: str(one["channel"]),
    nothing="no channel",
)

CLIENTS = Listing(
    name="clients",
    path="/api/clients",
    columns=(
        Column("client", lambda one: text(one["client"]), 12, is_number=False),
        Column("user", lambda one: text(one["user"]), is_number=False),
        Column("why", lambda one: text(_lag(one, "why")), 15, is_number=False, mood=_why_mood),
        Column("lag", lambda one: seconds(_lag(one, "seconds")), 7, "lag"),
        Column("behind", lambda one: octets(_lag(one, "bytes")), 8, "lag_bytes"),
        Column("msgs", lambda one: count(_lag(one, "publications")), 6),
        Column("waiting", lambda one: octets(one["waiting_bytes"]), 8, "waiting"),
        Column("reads", lambda one: octets_rate(one["per_s"].get("sent_bytes")), 10, from_width=100),
        Column("sent", lambda one: octets(one["sent_bytes"]), 8, "sent", from_width=110),
        Column("rtt", lambda one: seconds(one["rtt"]), 7, from_width=120),
        Column("lags in", lambda one: text(_lag(one, "channel")), 16, is_number=False, from_width=140),
        Column("address", lambda one: text(one["address"]), 21, is_number=False, from_width=165),
        Column("since", lambda one: seconds(age(one["since"], one["at"])), 7, from_width=175),
    ),
    sorts=("lag", "lag_bytes", "waiting", "sent"),
    entries=lambda answer: answer["clients"],
    key=lambda one: str(one["client"]),
    nothing="nobody",
    counters=("sent_bytes",),
)

UPSTREAMS = Listing(
    name="upstreams",
    path="/api/relays",
    columns=(
        Column("relay", lambda one: text(one["path"]), 10, is_number=False),
        Column("wk", lambda one: str(one["worker"]), 3, is_number=False),
        Column("upstream", lambda one: text(one["url"]), is_number=False),
        Column("state", lambda one: text(one["state"]), 9, "state", is_number=False, mood=_state_mood),
        Column("connects", lambda one: count(one["connects"]), 8),
        Column("failed", lambda one: count(one["failures"]), 7, "failures"),
        Column("lanes", lambda one: count(one["lanes"]), 6, from_width=90),
        Column("private", lambda one: count(one["private_lanes"]), 7, from_width=100),
        Column("watching", lambda one: count(one["watching"]), 8, from_width=110),
        Column("why", lambda one: text(one["why"]), 30, is_number=False, from_width=120),
    ),
    sorts=("state", "failures"),
    entries=lambda answer: [
        {**relay, **upstream, "lanes": sum(relay["lanes"].values())}
        for relay in answer["relays"]
        for upstream in relay["upstreams"]
    ],
    key=lambda one: f"{one['worker']} {one['path']} {one['url']}",
    nothing="no relay",
    measures={"state": lambda one: (one["state"] == "down", one["failures"]), "failures": lambda one: one["failures"]},
)

LANES = Listing(
    name="lanes",
    path="/api/lanes",
    columns=(
        Column("lane", lambda one: text(f"{one['method']} {one['arguments']}"), is_number=False),
        Column("relay", lambda one: text(one["path"]), 10, is_number=False),
        Column("wk", lambda one: str(one["worker"]), 3, is_number=False),
        Column("state", lambda one: text(one["state"]), 9, "state", is_number=False, mood=_state_mood),
        Column("clients", lambda one: count(one["clients"]), 8, "clients"),
        Column(
            "gap",
            lambda one: seconds(age(one["gap_since"], one["at"])),
            7,
            mood=lambda one: "bad" if one["gap_since"] is not None else "",
        ),
        Column("gaps", lambda one: count(one["gaps"]), 5, "gaps"),
        Column("protocol", lambda one: text(one["protocol"]), 11, is_number=False, from_width=110),
        Column("why", lambda one: text(one["why"]), 30, is_number=False, from_width=130),
    ),
    sorts=("clients", "state", "gaps"),
    entries=lambda answer: answer["lanes"],
    key=lambda one: f"{one['worker']} {one['path']} {one['method']} {one['arguments']} {one['protocol']}",
    nothing="no lane",
    measures={
        "clients": lambda one: one["clients"],
        "state": lambda one: (one["state"] != "live", one["clients"]),
        "gaps": lambda one: one["gaps"],
    },
)

WORKERS = Listing(
    name="workers",
    path="/api/workers",
    columns=(
        Column("wk", lambda one: str(one["worker"]), 4, "worker"),
        Column("machine", lambda one: text(one["host"]), is_number=False),
        Column("process", lambda one: str(one["process"]), 7, from_width=100),
        Column("clients", lambda one: count(one["connections"]), 8, "connections"),
        Column("lag", lambda one: count(one["lagging"]), 5, mood=lambda one: "warning" if one["lagging"] else ""),
        Column("deliv/s", lambda one: rate(one["per_s"].get("deliveries")), 8, "deliveries"),
        Column("out", lambda one: octets_rate(one["per_s"].get("bytes_out")), 10),
        Column("cpu", lambda one: processors(one["per_s"].get("cpu")), 6, "cpu"),
        Column("memory", lambda one: octets(one["memory"]), 8),
        Column("files", lambda one: descriptors(one), 16, from_width=110),
        Column("up", lambda one: seconds(age(one["since"], one["at"])), 7, from_width=120),
        Column("state", lambda one: standing(one), 9, is_number=False, from_width=130, mood=lambda one: unusual(one)),
        Column("address", lambda one: text(one["address"]), 21, is_number=False, from_width=145),
        Column("poller", lambda one: text(one["poller"]), 8, is_number=False, from_width=160),
    ),
    sorts=("worker", "deliveries", "cpu", "connections"),
    entries=lambda answer: answer["workers"],
    key=lambda one: f"{one['worker']} {one['process']}",
    nothing="no worker",
    counters=("publications", "deliveries", "bytes_out", "cpu"),
    measures={
        "worker": lambda one: -one["worker"],
        "deliveries": lambda one: one["per_s"].get("deliveries", 0),
        "cpu": lambda one: one["per_s"].get("cpu", 0),
        "connections": lambda one: one["connections"],
    },
)

CLIENT = Listing(
    name="client",
    path="/api/client",
    columns=(),
    sorts=(),
    entries=lambda answer: [answer],
    key=lambda one: str(one["client"]),
    nothing="it is gone",
    counters=("sent_bytes",),
)
"""The one whose details are shown."""


def age(since: float | None, now: float) -> float | None:
    """How long it is ago, by the hub's clock."""
    return None if since is None else max(0.0, now - since)


def descriptors(worker: Entry) -> str:
    """Of a worker: how many are open, and how many may be."""
    return f"{count(worker['descriptors'])} of {count(worker['descriptors_max'])}"


def standing(worker: Entry) -> str:
    """Of a worker: what it does besides serving."""
    return "apart" if worker.get("apart") else "draining" if worker.get("draining") else "serves"


def unusual(worker: Entry) -> str:
    """What its standing deserves."""
    return "bad" if worker.get("apart") else "warning" if worker.get("draining") else ""


def lag_in_words(client: Entry) -> str:
    """Of a client, for a line: who it is, why it lags, how long."""
    lag = client["lag"]
    if lag is None:
        return NONE
    named = text(client["client"]) if client["user"] is None else f"{text(client['client'])} {text(client['user'])}"
    return f"{named} {text(lag['why'])} {seconds(lag['seconds'])} {octets(lag['bytes'])}"
