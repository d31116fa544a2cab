"""An admin side that answers the contract with made data, inside the test's process."""

from collections.abc import Mapping
from typing import Any

from fanwire.cli.instance import NotAnswered

WHY = (
    (
        "socket_full",
        "its socket is full, so it reads too slowly: 262,144 bytes are not acknowledged and 81,234 not sent",
    ),
    ("replaying", "it is reading what it missed before it came"),
    ("awaits_keyframe", "the channel went past it, and it waits for the next keyframe"),
    ("away", "it has no socket just now: it is between two polls"),
    ("behind", "it is being written to"),
)


class StandInAdmin:
    """One; `asked` is all that it was asked, in order, `done` all that it was told to do."""

    def __init__(self) -> None:
        self.second = 0
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.done: list[tuple[str, dict[str, Any]]] = []
        self.is_away = False
        self.problems: dict[str, NotAnswered] = {}
        self.channels: list[dict[str, Any]] = [channel(number) for number in range(60)]
        self.clients: list[dict[str, Any]] = [client(number) for number in range(40)]
        self.at_once = self.most_at_once = 0

    def get(self, path: str, **query: str) -> Any:
        """What it answers."""
        self.asked.append((path, query))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            if self.is_away:
                raise NotAnswered("127.0.0.1:9001: Connection refused")
            if path in self.problems:
                raise self.problems[path]
            return getattr(self, "_" + path.rpartition("/")[2])(query)
        finally:
            self.at_once -= 1

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Note it, and forget who was disconnected."""
        self.done.append((path, dict(body)))
        if all(one["client"] != body["client"] for one in self.clients):
            raise NotAnswered(f"no client {body['client']} is connected", "no_such_client")
        self.clients = [one for one in self.clients if one["client"] != body["client"]]
        return {"closed": 1}

    def _stats(self, query: Mapping[str, str]) -> dict[str, Any]:
        self.second += 1
        return stats(self.second)

    def _channels(self, query: Mapping[str, str]) -> dict[str, Any]:
        wanted = query.get("match", "").strip("*")
        name = {"deliveries": "deliveries", "rate": "rate", "backlog": "backlog_bytes"}.get(
            query["sort"], "subscribers"
        )
        found = sorted((one for one in self.channels if wanted in one["channel"]), key=lambda one: -(one[name] or 0))
        return {"channels": found[: int(query["limit"])], "next": None, "silent": []}

    def _clients(self, query: Mapping[str, str]) -> dict[str, Any]:
        found = [one for one in self.clients if query.get("channel", one["channels"][0]) == one["channels"][0]]
        found = [one for one in found if query.get("user", one["user"]) == one["user"]]
        if query.get("sort", "").startswith("lag"):
            lagging = [one for one in found if one["lag"] is not None]
            found = sorted(lagging, key=lambda one: -one["lag"]["seconds"])
        return {"clients": found[: int(query["limit"])], "next": None, "silent": []}

    def _client(self, query: Mapping[str, str]) -> dict[str, Any]:
        for one in self.clients:
            if one["client"] == query["client"]:
                return one
        raise NotAnswered(f"no client {query['client']} is connected", "no_such_client")

    def _relays(self, query: Mapping[str, str]) -> dict[str, Any]:
        upstreams = [
            {"url": "http://10.0.0.9:5000/live", "state": "up", "why": "", "connects": 60, "failures": 2},
            {"url": "http://10.0.0.10:5000/live", "state": "down", "why": "refused", "connects": 3, "failures": 17},
        ]
        relay = {"worker": 0, "path": "/live", "lanes": {"live": 12, "down": 1}, "watching": 8000, "private_lanes": 40}
        more: dict[str, Any] = {"gaps": 3, "unused": 0, "broadcasts": {"json": "live"}, "refused": {"calls": 1}}
        return {"relays": [{**relay, **more, "upstreams": upstreams}], "silent": []}

    def _lanes(self, query: Mapping[str, str]) -> dict[str, Any]:
        return {"lanes": [lane(number) for number in range(13)], "next": None, "silent": []}

    def _workers(self, query: Mapping[str, str]) -> dict[str, Any]:
        rows = [worker(number, self.second) for number in (0, 1, 256)]
        backbone = {"url": "redis://10.0.0.5:6379", "state": "up", "why": ""}
        return {"workers": rows, "silent": [257], "backbone": backbone}


def stats(second: int) -> dict[str, Any]:
    """Counters after so many seconds: the same is done in each."""
    counts = {"publications": 120, "deliveries": 9_840, "writes": 4_000, "bytes_out": 12_345_678, "bytes_in": 45_678}
    more = {"connections_total": 12, "overtaken": 0, "expired": 0, "handshakes_refused": 2, "tokens_refused": 0}
    bounds = [(0.0005, 40), (0.001, 80), (0.005, 110), (0.01, 120), (None, 120)]
    return {
        "at": 1_764_490_000.0 + second,
        "version": "0.1.0",
        "workers": [0, 1],
        "silent": [],
        "connections": 12_000,
        "subscriptions": 30_000,
        "channels": 210,
        "lagging": 8,
        **{name: value * second for name, value in {**counts, **more}.items()},
        "accept_pauses": 0,
        "passed_on": 0,
        "closes": {"1000": 9 * second, "1013": second},
        "skipped": {"latest": 12, "every": 0},
        "faults": {"on_message": 2},
        "completion": {"buckets": [[bound, reached * second] for bound, reached in bounds], "seconds": 0.1 * second},
        "taken": [],
        "cpu": 0.63 * second,
        "memory": 123_456_789,
    }


def channel(number: int) -> dict[str, Any]:
    """One of a made list; what is large comes late."""
    subscribers = 1 + number * 37
    rate = None if number % 7 == 0 else number / 4
    return {
        "channel": f"odds:{number}",
        "pattern": "odds:*",
        "policy": ("latest", "every", "keyframe", "drop")[number % 4],
        "subscribers": subscribers,
        "workers": [0, 1],
        "position": f"1764480000512-{number}",
        "published": number,
        "rate": rate,
        "deliveries": None if rate is None else rate * subscribers,
        "idle": 0.0 if rate else None if number == 0 else number * 7.0,
        "backlog": number % 5,
        "backlog_bytes": number % 5 * 20_000,
        "unsent_bytes": 0,
        "kept": 100,
        "kept_bytes": 51_200,
        "presence": False,
    }


def client(number: int) -> dict[str, Any]:
    """One of a made list: each fifth lags."""
    why, words = WHY[number // 5 % 5]
    lag = {"publications": 57 + number, "bytes": 81_234 * (number + 1), "seconds": 4.2 * number, "why": why}
    return {
        "client": f"{number % 2}:c{number}@1",
        "worker": number % 2,
        "user": None if number % 3 == 0 else f"user{number}",
        "address": f"10.1.2.{number}:51234",
        "path": "/ws",
        "transport": "websocket",
        "protocol": "raw",
        "connection_id": None,
        "since": 1_764_489_000.0,
        "channels": [f"odds:{number % 8}"],
        "channels_count": 1,
        "sent_bytes": 81_234,
        "waiting_bytes": 0,
        "pending": 0,
        "rtt": 0.031,
        "lag": {**lag, "channel": f"odds:{number % 8}", "text": words} if number % 5 == 0 else None,
    }


def lane(number: int) -> dict[str, Any]:
    """One of a made list: the last is down."""
    is_down = number == 12
    return {
        "worker": 0,
        "path": "/live",
        "method": "Subscribe",
        "arguments": f'["match:{number}"]',
        "protocol": "json",
        "state": "down" if is_down else "live",
        "clients": 100 * number,
        "gap_since": 1_764_489_990.0 if is_down else None,
        "gaps": int(is_down),
        "why": "connection refused" if is_down else "",
        "held_by": None,
    }


def worker(number: int, second: int) -> dict[str, Any]:
    """One of them after so many seconds."""
    return {
        "worker": number,
        "host": f"edge-{1 + number // 256}",
        "process": 4_711 + number,
        "since": 1_764_480_000.0,
        "answered": number == 0,
        "connections": 6_000,
        "subscriptions": 15_000,
        "channels": 200,
        "publications": 120 * second,
        "deliveries": 4_400 * second,
        "bytes_out": 6_172_839 * second,
        "bytes_in": 22_839 * second,
        "lagging": 2,
        "cpu": 0.31 * second,
        "memory": 61_728_394,
        "descriptors": 6_040,
        "descriptors_max": 65_536,
        "address": "127.0.0.1:8000",
        "poller": "epoll",
        "shards": 1,
        "apart": False,
    }
