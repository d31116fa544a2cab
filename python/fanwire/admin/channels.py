"""Channels, a page at a time, over all workers; what a channel keeps, and who is in it.

Each worker lists its channels in an order of its own, from place to place. One that several have is told of by the
lowest of them: when a later worker comes to it, it is left out if the lower one had it before the list began.
"""

from collections import OrderedDict
from functools import partial
from heapq import nlargest
from time import monotonic
from typing import Any

import msgspec

from fanwire._engine import Position, matches
from fanwire.admin.desk import Desk
from fanwire.admin.ids import cursor_of, cursor_text, position_of, position_text
from fanwire.admin.payloads import told_of
from fanwire.admin.problems import Problem
from fanwire.admin.shapes import (
    ChannelQuery,
    ChannelRow,
    ChannelsAnswer,
    ChannelsQuery,
    HistoryAnswer,
    HistoryQuery,
    PresenceAnswer,
    PublicationRow,
)

SLICE = 512
"""Channels that are looked at in one go."""
SLICES_MAX = 64
STRIPES = 1_024
"""The number that a channel was made with has that of its stripe in its low bits: rust/core/src/channel/registry.rs."""
KNOWN_MAX = 10_000
"""Channels whose last reading is remembered, for their rates."""
RATE_MIN_S, RATE_MAX_S = 0.2, 60.0
USERS_MAX = 10_000
HISTORY_BYTES_MAX = 512 << 10
"""Of one answer, about; with fewer publications than asked for it says so."""
Cursor = tuple[int, int, int, dict[int, int]]
"""A worker, its stripe and the epoch in it; and by worker, what was made there before the list came to it."""


class Channels:
    """What the endpoints of channels do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # What a channel had published when somebody asked last, and when that was.
        self._known: OrderedDict[str, tuple[float, str, int]] = OrderedDict()
        desk.on("channels", self._page_here)
        desk.on("channels_by", self._top_here)
        desk.on("channels_named", self._named_here)
        desk.on("history", self._history_here)

    async def page(self, query: ChannelsQuery) -> ChannelsAnswer:
        """A page; or those of which something is most."""
        desk = self._desk
        if query.sort is not None:
            answers, silent_then = await desk.ask_all(
                "channels_by", {"match": query.match, "by": query.sort, "limit": query.limit}
            )
            names = list({row["channel"] for rows in answers.values() for row in rows})
            whole, others = await self._whole(names)
            top = nlargest(query.limit, whole, key=partial(_measure, query.sort))
            return ChannelsAnswer(top, None, sorted({*silent_then, *others}))
        place: Cursor = (-1, 0, 0, {})
        if query.after is not None:
            place = cursor_of(query.after, "channels", Cursor)
        rows: list[ChannelRow] = []
        silent: list[int] = []
        begun = place[3]
        for worker in (one for one in desk.workers if one >= place[0]):
            at = place[1:3] if worker == place[0] else (0, 0)
            message: dict[str, Any] = {"match": query.match, "place": at, "limit": query.limit - len(rows)}
            answer = await desk.ask(worker, "channels", message)
            if answer is None:
                silent += [worker] * (worker in desk.others)
                continue
            begun = {worker: answer["next_epoch"], **begun}
            found, others = await self._whole([row["channel"] for row in answer["rows"]], worker, begun)
            rows += found
            silent += others
            if answer["next"] is not None:
                after = cursor_text("channels", [worker, *answer["next"], begun])
                return ChannelsAnswer(rows, after, sorted(set(silent)))
        return ChannelsAnswer(rows, None, sorted(set(silent)))

    async def one(self, query: ChannelQuery) -> ChannelRow:
        """The channel of this name."""
        rows, _ = await self._whole([query.channel])
        if not rows:
            raise Problem("no_such_channel", f"channel {query.channel!r} has no subscriber and keeps nothing")
        return rows[0]

    async def _whole(
        self, names: list[str], worker: int = -1, begun: dict[int, int] | None = None
    ) -> tuple[list[ChannelRow], list[int]]:
        """Those channels as all workers have them, but those that a worker before this one has told of."""
        if not names:
            return [], []
        answers, silent = await self._desk.ask_all("channels_named", names)
        by_name: dict[str, dict[int, dict[str, Any]]] = {}
        for other, rows in answers.items():
            for row in rows:
                by_name.setdefault(row["channel"], {})[other] = row
        known = begun or {}
        whole = []
        for name in names:
            found = by_name.get(name, {})
            told = any(other < worker and row["made"] < known.get(other, 0) for other, row in found.items())
            if found and not told:
                whole.append(self._merged(found))
        return whole, silent

    def _merged(self, found: dict[int, dict[str, Any]]) -> ChannelRow:
        """One channel, of which each of these workers has told."""
        most = max(found.values(), key=lambda row: (row["published"], row["kept"]))
        subscribers = sum(row["subscribers"] for row in found.values())
        rate = self._rate(most["channel"], most["position"], most["published"])
        named = {name: most[name] for name in ("channel", "pattern", "policy", "position", "published", "presence")}
        sizes = ("backlog", "backlog_bytes", "unsent_bytes", "kept", "kept_bytes")
        largest = {name: max(row[name] for row in found.values()) for name in sizes}
        idle = [row["idle"] for row in found.values() if row["idle"] is not None]
        return ChannelRow(
            **named,
            **largest,
            subscribers=subscribers,
            workers=sorted(found),
            rate=rate,
            deliveries=None if rate is None else rate * subscribers,
            idle=min(idle, default=None),
        )

    def _rate(self, name: str, position: str, published: int) -> float | None:
        now, life = monotonic(), position.partition("-")[0]
        before = self._known.pop(name, None)
        self._known[name] = now, life, published
        rate = None
        if before is not None and before[1] == life and before[2] <= published:
            took = now - before[0]
            if took < RATE_MIN_S:
                self._known[name] = before
            elif took <= RATE_MAX_S:
                rate = (published - before[2]) / took
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return rate

    # Of this worker

    async def _page_here(self, message: dict[str, Any]) -> dict[str, Any]:
        look, pattern, limit = self._desk.look, message["match"], message["limit"]
        place: tuple[int, int] | None = tuple(message["place"])
        rows: list[dict[str, Any]] = []
        next_epoch = look.next_epoch
        for _ in range(SLICES_MAX):
            if place is None or len(rows) >= limit:
                break
            count = SLICE if pattern else min(SLICE, limit - len(rows))
            found, place_then = await self._desk.in_thread(partial(look.channels, place, count))
            for row in found:
                if pattern is None or matches(pattern, row["channel"]):
                    rows.append(row)
                    if len(rows) == limit:
                        break
            if len(rows) == limit and rows[-1] is not found[-1]:
                place_then = rows[-1]["made"] % STRIPES, rows[-1]["made"]
            place = place_then
        told = [{"channel": row["channel"]} for row in rows]
        return {"rows": told, "next": place, "next_epoch": next_epoch}

    async def _top_here(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        look, pattern = self._desk.look, message["match"]
        place: tuple[int, int] | None = (0, 0)
        top: list[dict[str, Any]] = []
        measure = partial(self._measure_here, message["by"])
        while place is not None:
            found, place = await self._desk.in_thread(partial(look.channels, place, SLICE))
            meant = found if pattern is None else [row for row in found if matches(pattern, row["channel"])]
            top = nlargest(message["limit"], [*top, *meant], key=measure)
        return [{"channel": row["channel"]} for row in top]

    def _measure_here(self, by: str, row: dict[str, Any]) -> float:
        if by == "subscribers":
            return float(row["subscribers"])
        if by == "backlog":
            return float(row["backlog_bytes"])
        # By what was published lately: how long ago the newest was, and how many there were.
        idle = RATE_MAX_S if row["idle"] is None else row["idle"]
        weight = row["subscribers"] if by == "deliveries" else 1
        return float(row["published"] * weight if idle < RATE_MAX_S else 0)

    async def _named_here(self, names: list[str]) -> list[dict[str, Any]]:
        look = self._desk.look
        found = await self._desk.in_thread(lambda: [row for row in map(look.channel, names) if row is not None])
        return [{**row, "position": position_text(row["position"]), **self._promise(row["channel"])} for row in found]

    def _promise(self, name: str) -> dict[str, Any]:
        """What its channel's pattern is, and whether it has presence."""
        for pattern, channel in self._desk.life.plan.channels.items():
            if matches(pattern, name):
                return {"pattern": pattern, "presence": bool(channel.presence)}
        return {"pattern": None, "presence": False}

    # What a channel keeps, and who is there

    async def history(self, query: HistoryQuery) -> HistoryAnswer:
        """What is kept of it, by the worker that has most: each has what its clients watch."""
        since = None if query.since is None else position_of(query.since)
        message = [query.channel, None if since is None else [since.epoch, since.offset], query.limit]
        answers, _ = await self._desk.ask_all("history", message)
        found = [answer for answer in answers.values() if answer is not None]
        if not found:
            raise Problem("no_such_channel", f"channel {query.channel!r} has no subscriber and keeps nothing")
        most = max(found, key=lambda one: (one["newest"], len(one["publications"])))
        rows = [PublicationRow(**row) for row in most["publications"]]
        return HistoryAnswer(query.channel, most["position"], most["complete"], rows)

    async def _history_here(self, message: list[Any]) -> dict[str, Any] | None:
        name, since, limit = message
        position = None if since is None else Position(*since)
        found = await self._desk.in_thread(partial(self._desk.look.history, name, position, limit))
        if found is None:
            return None
        newest, rows, is_whole = found
        publications: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            size += 2 * len(row["data"]) + 200
            if size > HISTORY_BYTES_MAX and publications:
                is_whole = False
                break
            publications.append(_publication(row))
        told = {"position": position_text(newest), "newest": [newest.epoch, newest.offset]}
        return {**told, "complete": is_whole, "publications": publications}

    async def presence(self, query: ChannelQuery) -> PresenceAnswer:
        """Who is subscribed, over all workers."""
        try:
            users = self._desk.hub.presence(query.channel)
        except LookupError as error:
            raise Problem("no_presence", error) from error
        return PresenceAnswer(query.channel, len(users), users[:USERS_MAX])


def _publication(row: dict[str, Any]) -> dict[str, Any]:
    data = msgspec.json.decode(row["data"]) if row["is_json"] else told_of(row["data"])
    position = position_text(row["position"])
    return {"position": position, "data": data, **{name: row[name] for name in ("event", "at", "keyframe")}}


def _measure(by: str, row: ChannelRow) -> float:
    match by:
        case "subscribers":
            return row.subscribers
        case "backlog":
            return row.backlog_bytes
        case "deliveries":
            return row.deliveries or 0.0
    return row.rate or 0.0
