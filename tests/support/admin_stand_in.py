"""A stand-in for the admin side, with made data: markup in names, 100,000 clients, relays, a backbone, two machines.

It answers what docs/admin.md says and the console asks. The real side answers in tests/test_console_served.py.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import sin
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fanwire.admin.console import console_answer

CLIENTS = 100_000
HOSTILE = '<img src=x onerror="window.hacked = 1">'
"""What a name may be; shown as markup it would leave a mark."""
USERS = ("anna", "ben", HOSTILE, "chloé", "dmitri", "<script>window.hacked = 1</script>", "eve & co", None)
CHANNELS = ("odds:7", "odds:12", "scores:live", "chat:lobby", HOSTILE, "odds:3", "news", "board:main", "odds:21")
LAGS: dict[int, tuple[str, float, int, str]] = {
    4711: ("socket_full", 41.7, 940, "its socket is full: 87,040 bytes are not acknowledged and 2,621,440 not sent"),
    17: ("socket_full", 12.3, 221, "its socket is full: it does not read"),
    70_003: ("awaits_keyframe", 6.4, 57, "the channel went past it, and it waits for the next keyframe"),
    52: ("replaying", 2.1, 31, "it is reading what it missed before it came"),
    9_018: ("away", 1.4, 9, "it has no socket just now: it is between two polls"),
    333: ("behind", 0.2, 1, "it is being written to"),
}
BOUNDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, None)
SHARES = (0.02, 0.1, 0.34, 0.72, 0.9, 0.962, 0.985, 0.996, 0.9995, 1.0)


@dataclass
class StandIn:
    """What it is to say, and what it was asked."""

    token: str | None = None
    lagging: dict[int, tuple[str, float, int, str]] = field(default_factory=lambda: dict(LAGS))
    silent: list[int] = field(default_factory=list)
    relays: bool = True
    is_away: bool = False
    """Whether it answers nobody, as one that has ended."""
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """Targets of all requests of the API."""
    tokens: list[str | None] = field(default_factory=list)
    did: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    """What was posted: path, body, idempotency key."""
    gone: set[str] = field(default_factory=set)
    started: float = field(default_factory=lambda: time.time() - 7_300)

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """That of a GET; a pair is a status and a problem's code."""
        known = {
            "/api/stats": self._stats,
            "/api/workers": self._workers,
            "/api/channels": self._channels,
            "/api/channel": self._channel,
            "/api/history": self._history,
            "/api/presence": lambda query: {"channel": query["channel"], "count": 2, "users": ["anna", HOSTILE]},
            "/api/clients": self._clients,
            "/api/client": self._client,
            "/api/relays": self._relays,
            "/api/lanes": self._lanes,
            "/api/settings": self._settings,
        }
        return known[path](query) if path in known else (404, "not_found", f"there is no {path}")

    def act(self, path: str, body: dict[str, Any], key: str | None) -> Any:
        """That of a POST."""
        self.did.append((path, body, key))
        if path == "/api/publish":
            return {"position": "1764480000512-100"}
        if path == "/api/disconnect":
            names = [body["client"]] if "client" in body else [f"0:c{index}@1" for index in (0, 8)]
            self.gone.update(names)
            for name in names:
                self.lagging.pop(int(name.partition(":c")[2].partition("@")[0]), None)
            return {"closed": len(names)}
        return 404, "not_found", f"there is no {path}"

    def _stats(self, query: dict[str, str]) -> Any:
        now = time.time()
        age = now - self.started
        done = int(age * 212)
        return {
            "at": now, "version": "0.9.0", "workers": [0, 1, 2], "silent": self.silent,
            "connections": CLIENTS - len(self.gone), "connections_total": 345_678, "subscriptions": 241_000,
            "channels": 210, "publications": done, "deliveries": int(age * 97_400), "writes": int(age * 31_000),
            "bytes_out": int(age * 8_300_000), "bytes_in": int(age * 96_000), "lagging": len(self.lagging),
            "overtaken": 41, "expired": 0, "accept_pauses": 0, "handshakes_refused": 12, "tokens_refused": 3,
            "passed_on": 0, "closes": {"1000": 22_000, "1001": 310, "1013": 4},
            "skipped": {"latest": 1_204, "every": 0},
            "faults": {"on_message": 2}, "taken": [], "cpu": age * 0.71, "memory": 812_000_000,
            "completion": {
                "buckets": [[bound, int(share * done)] for bound, share in zip(BOUNDS, SHARES, strict=True)],
                "seconds": done * 0.0006,
            },
        }  # fmt: skip

    def _workers(self, query: dict[str, str]) -> Any:
        age = time.time() - self.started
        rows = []
        for worker, host, share in ((0, "edge-1", 0.41), (1, "edge-1", 0.34), (2, f"edge-{HOSTILE}", 0.25)):
            rows.append({
                "worker": worker, "host": host, "process": 4_711 + worker, "since": self.started,
                "answered": worker == 0,
                "draining": worker == 1, "connections": int(CLIENTS * share), "subscriptions": int(241_000 * share),
                "channels": 210, "publications": int(age * 70), "deliveries": int(age * 97_400 * share),
                "bytes_out": int(age * 8_300_000 * share), "bytes_in": int(age * 96_000 * share), "lagging": 2,
                "cpu": age * 0.71 * share, "memory": int(812_000_000 * share), "descriptors": int(CLIENTS * share) + 40,
                "descriptors_max": 45_000, "address": "0.0.0.0:8000", "poller": "epoll", "shards": 1,
                "apart": worker == 2,
            })  # fmt: skip
        backbone = {"url": "redis://10.0.0.5:6379", "state": "up", "why": ""}
        return {"workers": rows, "silent": self.silent, "backbone": backbone}

    def _channels(self, query: dict[str, str]) -> Any:
        rows = [self._row_of_channel(index) for index in range(210)]
        wanted = query.get("match", "").strip("*")
        rows = [row for row in rows if wanted in row["channel"]]
        by = query.get("sort")
        if by is not None:
            rows.sort(key=lambda row: row["backlog_bytes" if by == "backlog" else by], reverse=True)
            return {"channels": rows[: int(query["limit"])], "next": None, "silent": []}
        return page(rows, query, "channels")

    def _channel(self, query: dict[str, str]) -> Any:
        names = [name_of_channel(index) for index in range(210)]
        if query["channel"] not in names:
            return 404, "no_such_channel", f"channel {query['channel']!r} has no subscriber and keeps nothing"
        return self._row_of_channel(names.index(query["channel"]))

    def _row_of_channel(self, index: int) -> dict[str, Any]:
        name, subscribers, rate = name_of_channel(index), 61_000 // (index + 1), round(40 / (index % 17 + 1), 2)
        backlog = 940 if index == 0 else 57 if index == 1 else 0
        return {
            "channel": name, "pattern": "odds:*" if name.startswith("odds") else None,
            "policy": "latest" if index % 3 == 1 else "every", "subscribers": subscribers, "workers": [0, 1, 2],
            "position": f"1764480000512-{99 + index}", "published": 99 + index, "rate": rate,
            "deliveries": rate * subscribers, "idle": float(index % 5), "backlog": backlog,
            "backlog_bytes": backlog * 2_800, "unsent_bytes": backlog * 31, "kept": 100, "kept_bytes": 51_200,
            "presence": index % 2 == 0,
        }  # fmt: skip

    def _history(self, query: dict[str, str]) -> Any:
        data = ({"home": 1.85, "away": 4.2}, HOSTILE, {"base64": "AAEC"}, {"home": 1.9, "away": 4.1})
        rows = [
            {"position": f"1764480000512-{96 + index}", "data": one, "event": "odds" if index % 2 else None,
             "at": time.time() - 8 + 2 * index, "keyframe": index == 0}
            for index, one in enumerate(data)
        ]  # fmt: skip
        return {"channel": query["channel"], "position": "1764480000512-99", "complete": True, "publications": rows}

    def _clients(self, query: dict[str, str]) -> Any:
        indices: Any = range(CLIENTS)
        if query.get("lagging") == "true":
            indices = sorted(self.lagging)
        if "user" in query:
            indices = [index for index in indices if USERS[index % 8] == query["user"]]
        if "channel" in query:
            indices = [index for index in indices if query["channel"] in channels_of(index)]
        by, limit = query.get("sort"), int(query.get("limit", "100"))
        if by is not None:
            lag = {index: one[1] for index, one in self.lagging.items()}
            indices = sorted(indices, key=lambda index: (lag.get(index, 0), sent(index)), reverse=True)
            return {"clients": self._rows(indices[:limit]), "next": None, "silent": []}
        after = int(query.get("after", "0"))
        found = self._rows(indices[after : after + limit])
        return {"clients": found, "next": str(after + limit) if after + limit < len(indices) else None, "silent": []}

    def _rows(self, indices: Any) -> list[dict[str, Any]]:
        return [row for row in map(self._row_of_client, indices) if row["client"] not in self.gone]

    def _client(self, query: dict[str, str]) -> Any:
        index = int(query["client"].partition("c")[2].partition("@")[0])
        row = self._row_of_client(index)
        if row["client"] != query["client"] or row["client"] in self.gone:
            return 404, "no_such_client", f"no client {query['client']} is connected"
        return row

    def _row_of_client(self, index: int) -> dict[str, Any]:
        lag, channels = self.lagging.get(index), channels_of(index)
        told = None
        if lag is not None:
            why, seconds, behind, text = lag
            told = {"channel": channels[0], "publications": behind, "bytes": behind * 2_800, "seconds": seconds,
                    "why": why, "text": text}  # fmt: skip
        sse = index % 5 == 3
        worker = index % 3 if index % 8 else 0
        return {
            "client": f"{worker}:c{index}@1", "worker": worker, "user": USERS[index % 8],
            "address": f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}:{40_000 + index % 9999}",
            "path": "/events" if sse else "/ws", "transport": "events" if sse else "websocket",
            "protocol": "sse" if sse else "envelope", "connection_id": None, "since": self.started + index % 7_000,
            "channels": channels, "channels_count": len(channels), "sent_bytes": sent(index), "waiting_bytes": 0,
            "pending": 0, "rtt": 0.011 + index % 40 / 1000, "lag": told,
        }  # fmt: skip

    def _relays(self, query: dict[str, str]) -> Any:
        upstreams = [
            {"url": "http://10.0.0.9:5000/live", "state": "up", "why": "", "connects": 60, "failures": 2},
            {
                "url": "http://10.0.0.10:5000/live",
                "state": "down",
                "why": f"refused {HOSTILE}",
                "connects": 3,
                "failures": 41,
            },
        ]
        one = {"worker": 0, "path": "/live", "lanes": {"live": 12, "down": 1}, "watching": 8_000, "private_lanes": 40,
               "gaps": 3, "unused": 0, "broadcasts": {"json": "live"}, "refused": {"calls": 1, "lanes": 0},
               "upstreams": upstreams}  # fmt: skip
        return {"relays": [one, {**one, "worker": 1}] if self.relays else [], "silent": []}

    def _lanes(self, query: dict[str, str]) -> Any:
        rows = [
            {"worker": index % 2, "path": "/live", "method": "Subscribe",
             "arguments": json.dumps([HOSTILE if index == 1 else f"match:{index}"]), "protocol": "json",
             "state": "down" if index == 2 else "live", "clients": 1_200 - 31 * index,
             "gap_since": time.time() - 30 if index == 2 else None, "gaps": index % 3,
             "why": "its upstream is away" if index == 2 else "", "held_by": 0 if index == 5 else None}
            for index in range(13)
        ]  # fmt: skip
        return {"lanes": rows if self.relays else [], "next": None, "silent": []}

    def _settings(self, query: dict[str, str]) -> Any:
        rows = [
            ("listen.address", "0.0.0.0:8000", "file:3"), ("listen.workers", "3", "--workers"),
            ("admin.token", "…", "FANWIRE_TOKEN"), ("limits.connections_max", "1000000", "default"),
            ("limits.handshake_timeout", "10.0", "default"), ("limits.message_bytes_max", "65536", "file:12"),
            ("channel odds:*", f"policy='latest', note={HOSTILE!r}", "program"), ("drain_timeout", "10.0", "default"),
            ("backbone.url", "redis://10.0.0.5:6379", "file:20"), ("origins", "", "default"),
        ]  # fmt: skip
        return {"settings": [{"key": key, "value": value, "source": source} for key, value, source in rows]}

    def samples(self) -> list[dict[str, Any]]:
        """Fifteen minutes of what the console keeps of readings, for pictures."""
        now = time.time()
        rows = []
        for age in range(900, 0, -2):
            at = now - age
            wave = 1 + 0.12 * sin(at / 61) + 0.05 * sin(at / 7) + 0.03 * sin(at * 1.7)
            peak = max(0.0, 1 - abs(age - 260) / 70)
            rows.append({
                "at": at, "publications": 212 * wave, "deliveries": 97_400 * wave * (1 + 0.4 * peak),
                "bytes_out": 8.3e6 * wave * (1 + 0.4 * peak), "bytes_in": 96_000 * wave,
                "errors": 0.4 * peak if peak > 0.3 else 0.0, "cpu": 0.71 * wave * (1 + 0.3 * peak),
                "p50": 0.00031 * wave, "p99": 0.0046 * wave * (1 + peak),
                "connections": 98_000 + 2_000 * (900 - age) / 900,
                "lagging": int(6 + 70 * peak + 2 * wave), "memory": 8.12e8 - age * 9_000,
            })  # fmt: skip
        return rows


def name_of_channel(index: int) -> str:
    """That of the channel in this place."""
    return CHANNELS[index] if index < len(CHANNELS) else f"match:{index}"


def channels_of(index: int) -> list[str]:
    """Those of the client in this place."""
    return [CHANNELS[index % 9], "news"] if index % 4 == 1 and index % 9 != 6 else [CHANNELS[index % 9]]


def sent(index: int) -> int:
    """What its peer has acknowledged."""
    return 81_234 + index * 7_919 % 4_000_000


def page(rows: list[dict[str, Any]], query: dict[str, str], name: str) -> dict[str, Any]:
    """One page of a list."""
    after, limit = int(query.get("after", "0")), int(query.get("limit", "100"))
    more = str(after + limit) if after + limit < len(rows) else None
    return {name: rows[after : after + limit], "next": more, "silent": []}


LINES = (
    ("info", "fanwire.hub", "listening at 0.0.0.0:8000"),
    ("warning", "fanwire.relay", f"/live: {HOSTILE} is away"),
    ("error", "fanwire.faults", "on_message failed\nValueError"),
)
LIVE: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "log": [
        ("log", {"at": 1764490000.2 + index, "level": level, "logger": logger, "text": text})
        for index, (level, logger, text) in enumerate(LINES)
    ],
    "tail": [("publication", {"channel": "odds:7", "position": "1764480000512-101", "data": {"late": HOSTILE},
                              "event": None, "at": 1764490009.0})],
}  # fmt: skip


def handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    """What answers its requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            target = urlsplit(self.path)
            found = console_answer(target.path, {name.lower(): value for name, value in self.headers.items()})
            if found is not None:
                self._send(found.status, found.content_type, found.body, found.headers)
                return
            if self._is_let_in():
                if target.path == "/api/live":
                    self._stream(dict(parse_qsl(target.query))["channel"])
                else:
                    self._tell(stand_in.answer(target.path, dict(parse_qsl(target.query))))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/json"
            if self._is_let_in():
                self._tell(stand_in.act(self.path, body, self.headers["Idempotency-Key"]))

        def _is_let_in(self) -> bool:
            if stand_in.is_away:
                self.close_connection = True
                return False
            given = self.headers["Authorization"]
            stand_in.asked.append(self.path)
            stand_in.tokens.append(given)
            if stand_in.token is None or given == f"Bearer {stand_in.token}":
                return True
            code = "no_token" if given is None else "wrong_token"
            self._tell((401, code, "that is not the token"))
            return False

        def _tell(self, answer: Any) -> None:
            if isinstance(answer, tuple):
                status, code, detail = answer
                problem = {"type": "about:blank", "title": "", "status": status, "code": code, "detail": detail}
                self._send(status, "application/problem+json", json.dumps(problem).encode())
            else:
                self._send(200, "application/json", json.dumps(answer).encode(), (("Cache-Control", "no-store"),))

        def _send(self, status: int, kind: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, channel: str) -> None:
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event, data in LIVE[channel.partition(":")[0]]:
                self.wfile.write(f"id: 1-1\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode())
            self.connection.recv(1)  # until it goes

        def log_message(self, *args: object) -> None:
            pass

    return Handler


class Server(ThreadingHTTPServer):
    """Ends with those who still watch."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser goes when it likes."""


@contextmanager
def admin_stand_in(stand_in: StandIn, port: int = 0) -> Iterator[StandIn]:
    """One that is served."""
    with Server(("127.0.0.1", port), handler(stand_in)) as server:
        stand_in.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()
