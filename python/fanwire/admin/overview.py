"""The numbers of all workers, how each stands, relays and their lanes, and settings."""

import os
import socket
from collections import Counter
from math import inf
from time import process_time, time
from typing import Any

from fanwire._engine import Stats, __version__
from fanwire.admin.desk import Desk
from fanwire.admin.ids import cursor_of, cursor_text
from fanwire.admin.shapes import (
    BackboneRow,
    Completion,
    LaneRow,
    LanesAnswer,
    LanesQuery,
    Nothing,
    RelayRow,
    RelaysAnswer,
    StatsAnswer,
    Taken,
    UpstreamRow,
    WorkerRow,
    WorkersAnswer,
)
from fanwire.process import descriptors, memory_bytes
from fanwire.values import concealed
from fanwire.workers.stats import COUNTED, SUMMED, numbers_of, stats_of_all

Buckets = list[tuple[float | None, int]]
SHOWN = frozenset(StatsAnswer.__struct_fields__)
OF_WORKER = (
    "connections",
    "subscriptions",
    "channels",
    "publications",
    "deliveries",
    "bytes_out",
    "bytes_in",
    "lagging",
)


class Overview:
    """What the endpoints of the whole do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._since = time()
        desk.on("stats", self._stats_here)
        desk.on("worker", self._worker_here)
        desk.on("relays", self._relays_here)
        desk.on("lanes", self._lanes_here)

    async def stats(self, query: Nothing) -> StatsAnswer:
        """The sums of all."""
        answers, silent = await self._desk.ask_all("stats", None)
        told = stats_of_all(answers, tuple(silent))
        sums: dict[str, Any] = {name: getattr(told, name) for name in SUMMED if name != "completion_seconds"}
        for name in SHOWN.intersection(COUNTED):
            sums[name] = {str(key): count for key, count in getattr(told, name).items()}
        faults: Counter[str] = Counter()
        for one in answers.values():
            faults.update(dict(one["faults"]))
        completion = Completion(*_added([one["completion"] for one in answers.values()]))
        taken = [Taken(some[0][0], *_added([one[1:] for one in some])) for some in _together(answers.values())]
        memory = [one["memory"] for one in answers.values() if one["memory"] is not None]
        return StatsAnswer(
            at=time(),
            version=__version__,
            workers=list(answers),
            silent=silent,
            completion=completion,
            taken=taken,
            cpu=sum(one["cpu"] for one in answers.values()),
            memory=sum(memory) if memory else None,
            faults=dict(faults),
            **sums,
        )

    async def workers(self, query: Nothing) -> WorkersAnswer:
        """One after another."""
        desk = self._desk
        answers, silent = await desk.ask_all("worker", None)
        rows = [WorkerRow(worker=worker, answered=worker == desk.number, **one) for worker, one in answers.items()]
        url, reached = desk.told.backbone_url, desk.pump.backbone
        backbone = None if url is None else BackboneRow(concealed(url), reached.state)
        return WorkersAnswer(rows, silent, backbone)

    async def relays(self, query: Nothing) -> RelaysAnswer:
        """The sums of each in each worker."""
        answers, silent = await self._desk.ask_all("relays", None)
        rows: list[RelayRow] = []
        for worker, some in answers.items():
            for one in some:
                upstreams = [UpstreamRow(**upstream) for upstream in one.pop("upstreams")]
                rows.append(RelayRow(worker=worker, upstreams=upstreams, **one))
        return RelaysAnswer(rows, silent)

    async def lanes(self, query: LanesQuery) -> LanesAnswer:
        """A page of them, worker by worker; within one in the order of their paths, methods and arguments."""
        desk = self._desk
        rows: list[LaneRow] = []
        silent: list[int] = []
        start: tuple[int, list[str]] = (-1, [])
        if query.after is not None:
            start = cursor_of(query.after, "lanes", tuple[int, list[str]])
        for worker in (one for one in desk.workers if one >= start[0]):
            behind = start[1] if worker == start[0] else []
            answer = await desk.ask(worker, "lanes", [query.path, behind, query.limit - len(rows)])
            if answer is None:
                silent += [worker] * (worker in desk.others)
                continue
            rows += [LaneRow(worker=worker, **row) for row in answer["rows"]]
            if answer["next"] is not None:
                return LanesAnswer(rows, cursor_text("lanes", [worker, answer["next"]]), silent)
        return LanesAnswer(rows, None, silent)

    # Of this worker

    def _stats_here(self, message: None) -> dict[str, Any]:
        stats = self._desk.engine.stats()
        return {
            **numbers_of(stats),
            "faults": list(self._desk.life.link.faults.counts.items()),
            "completion": [_buckets(stats.completion_buckets), stats.completion_seconds],
            "taken": [[fraction, _buckets(buckets), seconds] for fraction, buckets, seconds in stats.taken],
            "cpu": process_time(),
            "memory": memory_bytes(),
        }

    def _worker_here(self, message: None) -> dict[str, Any]:
        stats: Stats = self._desk.engine.stats()
        import resource  # not on Windows, where nobody gets here

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": self._since,
            **{name: getattr(stats, name) for name in OF_WORKER},
            "cpu": process_time(),
            "memory": memory_bytes(),
            "descriptors": descriptors(),
            "descriptors_max": most,
            "address": self._desk.life.serving.address,
            "poller": stats.poller,
            "shards": self._desk.look.shards,
            "apart": self._desk.engine.is_apart,
        }

    def _relays_here(self, message: None) -> list[dict[str, Any]]:
        refused = dict(self._desk.pump.refused)
        told = []
        for sums in self._desk.pump.relay_sums():
            upstreams = [
                {name: getattr(one, name) for name in ("url", "state", "why", "connects", "failures")}
                for one in sums.upstreams
            ]
            told.append(
                {
                    "path": sums.path,
                    "lanes": dict(sums.states),
                    "watching": sums.watching,
                    "private_lanes": sums.private_lanes,
                    "gaps": sums.gaps,
                    "unused": sums.unused,
                    "broadcasts": dict(sums.broadcasts),
                    "refused": refused,
                    "upstreams": upstreams,
                }
            )
        return told

    def _lanes_here(self, message: list[Any]) -> dict[str, Any]:
        path, behind, limit = message
        lanes = (
            ([relay.path, lane.method, lane.arguments, lane.protocol], lane)
            for relay in self._desk.pump.relay_stats()
            if path is None or relay.path == path
            for lane in relay.lanes
        )
        found = sorted((one for one in lanes if one[0] > behind), key=lambda one: one[0])
        rows = [
            {
                "path": key[0],
                "method": lane.method,
                "arguments": lane.arguments,
                "protocol": lane.protocol,
                "state": lane.state,
                "clients": lane.clients,
                "gap_since": lane.gap_since,
                "gaps": lane.gaps,
                "why": lane.why,
                "held_by": lane.worker,
            }
            for key, lane in found[:limit]
        ]
        return {"rows": rows, "next": found[limit - 1][0] if len(found) > limit else None}


def _buckets(buckets: list[tuple[float, int]]) -> Buckets:
    return [(None if bound == inf else bound, count) for bound, count in buckets]


def _added(some: list[Any]) -> tuple[Buckets, float]:
    """Histograms of the same bounds as one."""
    buckets = [(rows[0][0], sum(count for _, count in rows)) for rows in zip(*(one[0] for one in some), strict=True)]
    return buckets, sum(one[1] for one in some)


def _together(answers: Any) -> list[list[Any]]:
    """What all say of each fraction."""
    return list(map(list, zip(*(one["taken"] for one in answers), strict=True)))
