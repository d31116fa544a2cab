"""Clients, a page at a time: each worker tells of a bounded number of its slots, in their order.

A slot is a client's place for its whole life, so a list that goes from slot to slot has each that stays once.
"""

from functools import partial
from heapq import nlargest
from time import time
from typing import Any

from fanwire.admin.desk import Desk, each
from fanwire.admin.ids import client_name, client_of, cursor_of, cursor_text
from fanwire.admin.problems import Problem
from fanwire.admin.shapes import ClientQuery, ClientRow, ClientsAnswer, ClientsQuery, LagRow

SLICE_ROWS, SLICE_LOOKS, SLICE_LOOKS_AT_KERNEL = 64, 4_096, 256
"""What one look at a shard may take: some 0.2 ms of its thread."""
SLICES_MAX = 64
"""Looks for one page."""
ROWS_BYTES_MAX = 256 * 1_024
"""Of the rows that one worker gives at once, about: a message to another worker has 1 MiB at most."""
ROW_BYTES = 500
FORMATS: dict[str, tuple[str, str]] = {
    "Raw": ("raw", "websocket"),
    "RawMsgpack": ("raw_msgpack", "websocket"),
    "Sse": ("sse", "events"),
    "SseGzip": ("sse_gzip", "events"),
    "HubJson": ("hub_json", "websocket"),
    "HubMsgpack": ("hub_msgpack", "websocket"),
    "HubSse": ("hub_sse", "events"),
    "HubPollJson": ("hub_poll_json", "long_polling"),
    "HubPollMsgpack": ("hub_poll_msgpack", "long_polling"),
    "Envelope": ("envelope", "websocket"),
    "EnvelopeMsgpack": ("envelope_msgpack", "websocket"),
    "Edge": ("edge", "websocket"),
    "EdgeMsgpack": ("edge_msgpack", "websocket"),
}
"""What the engine calls a wire format: its name here, and what carries it."""


class Clients:
    """What the endpoints of clients do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.on("clients", self._page_here)
        desk.on("clients_by", self._top_here)
        desk.on("client", self._one_here)

    async def page(self, query: ClientsQuery) -> ClientsAnswer:
        """A page of all workers, one after another; or those of whom something is most."""
        desk = self._desk
        terms: dict[str, Any] = {"channel": query.channel, "path": query.path, "lagging": query.lagging}
        if query.user is not None and not desk.life.plan.callbacks.know_clients:
            raise Problem("invalid_value", "the hub knows no users: no authenticate or authorize is registered")
        if query.sort is not None and query.user is None:
            message = {**terms, "by": query.sort, "limit": query.limit}
            answers, missing = await desk.ask_all("clients_by", message)
            all_of = ((worker, row) for worker, some in answers.items() for row in some)
            top = nlargest(query.limit, all_of, key=partial(_measure_of_worker, query.sort))
            return ClientsAnswer([_named(*one) for one in top], None, missing)
        start: tuple[int, int, int] = (-1, 0, 0)
        if query.after is not None:
            start = cursor_of(query.after, "clients", tuple[int, int, int])
        rows: list[tuple[int, dict[str, Any]]] = []
        silent: list[int] = []
        after = None
        for worker in (one for one in desk.workers if one >= start[0]):
            place = start[1:] if worker == start[0] else (0, 0)
            message = {**terms, "user": query.user, "place": place, "limit": query.limit - len(rows)}
            answer = await desk.ask(worker, "clients", message)
            if answer is None:
                silent += [worker] * (worker in desk.others)
                continue
            rows += [(worker, row) for row in answer["rows"]]
            if answer["next"] is not None:
                after = cursor_text("clients", [worker, *answer["next"]])
                break
        if query.sort is not None and after is None:
            rows.sort(key=partial(_measure_of_worker, query.sort), reverse=True)
        return ClientsAnswer([_named(*one) for one in rows], after, silent)

    async def one(self, query: ClientQuery) -> ClientRow:
        """The client of this name."""
        worker, connection = client_of(query.client, self._desk.number)
        row = await self._desk.ask(worker, "client", connection)
        if row is None:
            raise Problem("no_such_client", f"no client {query.client} is connected")
        return _named(worker, row)

    async def _one_here(self, connection: int) -> dict[str, Any] | None:
        seen = await self._desk.in_thread(partial(self._desk.look.of, [connection]))
        return self._row(seen[0]) if seen else None

    async def _page_here(self, message: dict[str, Any]) -> dict[str, Any]:
        """From a place on: a shard and a slot there; of one user the second is an id."""
        terms = {name: message[name] for name in ("channel", "path", "lagging")}
        (shard, slot), limit, size = message["place"], message["limit"], 0
        rows: list[dict[str, Any]] = []
        if message["user"] is not None:
            return await self._page_of_user(message["user"], slot, limit, terms)
        look = self._desk.look
        for _ in range(SLICES_MAX):
            count = min(limit - len(rows), SLICE_ROWS)
            if shard >= look.shards:
                return {"rows": rows, "next": None}
            if count <= 0 or size > ROWS_BYTES_MAX:
                break
            page = await self._desk.in_thread(
                partial(look.connections, shard, slot, count, looks_max=SLICE_LOOKS, **terms)
            )
            if page is None:
                raise Problem("stopped", f"shard {shard} does not answer")
            seen, next_slot = page
            rows += map(self._row, seen)
            size += sum(map(_bytes_of, seen))
            shard, slot = (shard + 1, 0) if next_slot is None else (shard, next_slot)
        return {"rows": rows, "next": None if shard >= look.shards else [shard, slot]}

    async def _page_of_user(self, user: str, first: int, limit: int, terms: dict[str, Any]) -> dict[str, Any]:
        clients = self._desk.pump.application.roster.clients(user)
        ids = sorted(client.id for client in clients if client.id >= first)
        count = min(limit, SLICE_ROWS)
        seen = await self._desk.in_thread(partial(self._desk.look.of, ids[:count], **terms)) if ids else []
        rows = list(map(self._row, seen))
        return {"rows": rows, "next": [0, ids[count]] if len(ids) > count else None}

    async def _top_here(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Those of all shards of whom something is most."""
        by, limit, look = message["by"], message["limit"], self._desk.look
        terms = {name: message[name] for name in ("channel", "path", "lagging")}
        terms["lagging"] = terms["lagging"] or by in ("lag", "lag_bytes")
        looks = SLICE_LOOKS_AT_KERNEL if by == "sent" else SLICE_LOOKS

        async def of_shard(shard: int) -> list[dict[str, Any]]:
            top: list[dict[str, Any]] = []
            slot: int | None = 0
            while slot is not None:
                ask = partial(look.connections, shard, slot, limit, looks_max=looks, by=by, **terms)
                page = await self._desk.in_thread(ask)
                if page is None:
                    break
                seen, slot = page
                top = nlargest(limit, [*top, *seen], key=partial(_measure, by))
            return top

        found = await each([partial(of_shard, shard) for shard in range(look.shards)])
        top = nlargest(limit, [one for some in found for one in some], key=partial(_measure, by))
        kept, size = [], 0
        for one in top:
            size += _bytes_of(one)
            if size > 2 * ROWS_BYTES_MAX:
                break
            kept.append(self._row(one))
        return kept

    def _row(self, seen: dict[str, Any]) -> dict[str, Any]:
        """As it is told: with what is known of it in Python."""
        connection = seen["connection"]
        client = self._desk.pump.client_of(connection)
        identity = None if client is None else client.identity
        protocol, transport = FORMATS[seen["format"]]
        lag = seen["lag"]
        return {
            "connection": connection,
            "user": None if identity is None else identity.id,
            "address": seen["address"],
            "path": seen["path"],
            "transport": "adopted" if seen["is_adopted"] else transport,
            "protocol": protocol,
            "connection_id": None if client is None else client.connection_id,
            "since": time() - seen["age"],
            "channels": seen["channels"],
            "channels_count": seen["channels_count"],
            "sent_bytes": seen["sent_bytes"],
            "waiting_bytes": seen["waiting_bytes"],
            "pending": seen["pending"],
            "rtt": seen["rtt"],
            "lag": None if lag is None else {**lag, "text": why_text(seen, lag)},
        }


def why_text(seen: dict[str, Any], lag: dict[str, Any]) -> str:
    """Why a client lags, in a sentence."""
    match lag["why"]:
        case "socket_full":
            if seen["unsent_bytes"] is None:
                return "its socket is full: it does not read"
            on_way, unsent, rtt = seen["in_flight_bytes"], seen["unsent_bytes"], seen["rtt"] * 1_000
            kernel = f"{on_way:,} bytes are not acknowledged and {unsent:,} not sent, round trip {rtt:,.1f} ms"
            return f"its socket is full, so it reads too slowly, or its network is too slow: {kernel}"
        case "awaits_keyframe":
            return "the channel went past it, and it waits for the next keyframe"
        case "away":
            return "it has no socket just now: it is between two polls, or has lost its connection and may come back"
        case "replaying":
            return "it is reading what it missed before it came"
    return "it is being written to"


def _bytes_of(seen: dict[str, Any]) -> int:
    return ROW_BYTES + 2 * sum(map(len, seen["channels"]))


def _measure_of_worker(by: str, one: tuple[int, dict[str, Any]]) -> float:
    return _measure(by, one[1])


def _measure(by: str, seen: dict[str, Any]) -> float:
    """Of what an engine shows of a client, or what is told of it."""
    lag = seen["lag"] or {"seconds": 0.0, "bytes": 0}
    found = {"lag": lag["seconds"], "lag_bytes": lag["bytes"], "sent": seen["sent_bytes"] or 0}
    return float(found.get(by, seen["waiting_bytes"]))


def _named(worker: int, row: dict[str, Any]) -> ClientRow:
    """With the name by which this machine knows it."""
    rest = {name: value for name, value in row.items() if name not in ("connection", "lag")}
    lag = row["lag"]
    name = client_name(worker, row["connection"])
    return ClientRow(client=name, worker=worker, lag=None if lag is None else LagRow(**lag), **rest)
