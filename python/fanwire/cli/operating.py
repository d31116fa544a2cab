"""``fanwire publish``, ``tail``, ``clients``, ``channels``, ``disconnect``, ``stats``: the admin side at the shell."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from fanwire.cli.instance import Instance, NotAnswered
from fanwire.wording import printable, shortened

CHUNK_BYTES = 65_536
LINE_BYTES_MAX = 16 << 20
BATCH = 500
"""Lines that are published in one request, where so many have come."""
Admin = Annotated[
    str | None,
    Parameter(help="Which hub: HOST:PORT, unix:PATH, or the number of its process (default: the only one of yours)"),
]
AsJson = Annotated[bool, Parameter(name="--json", help="JSON, a row a line, in place of a table.", negative=())]
Flag = Parameter(negative=())


@contextmanager
def asking(where: str | None) -> Iterator[Instance]:
    """A hub to be asked; what it says no to ends the program, with exit status 1."""
    try:
        yield Instance(where)
    except NotAnswered as error:
        print(f"fanwire: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def publish(
    channel: str,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    event: str | None = None,
    key: str | None = None,
    ttl: float | None = None,
    keyframe: Annotated[bool, Flag] = False,
    text: Annotated[bool, Flag] = False,
    admin: Admin = None,
    as_json: AsJson = False,
) -> None:
    """Publish to a channel of a hub that runs.

    Args:
        channel: its name.
        data: JSON; or -: each line of standard input, as it comes.
        event: the event's name.
        key: the conflation key, in channels of policy latest.
        ttl: seconds after which it is no longer sent.
        keyframe: whether newcomers may begin with it.
        text: take data as a text as it is, not as JSON.
    """
    terms = {"event": event, "key": key, "ttl": ttl, "keyframe": keyframe}
    given = {name: value for name, value in terms.items() if value}
    with asking(admin) as hub:
        if data != "-":
            answer = hub.post("/api/publish", {"channel": channel, "data": _read(data, text), **given})
            _tell_position(answer["position"], as_json)
            return
        for lines in _batches():
            publications = [{"channel": channel, "data": _read(line, text), **given} for line in lines]
            for position in hub.post("/api/publish_many", {"publications": publications})["positions"]:
                _tell_position(position, as_json)


def _tell_position(position: str | None, as_json: bool) -> None:
    print(msgspec.json.encode({"position": position}).decode() if as_json else position, flush=True)


def _read(data: str, is_text: bool) -> Any:
    if is_text:
        return data
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise NotAnswered(
            f"{shortened(printable(data), 80)!r} is no JSON ({error}); --text takes it as it is"
        ) from None


def _batches() -> Iterator[list[str]]:
    """Lines of standard input, as many as there are: whoever writes one a minute has it published at once."""
    rest = b""
    while chunk := os.read(sys.stdin.fileno(), CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise NotAnswered(f"a line of standard input has more than {LINE_BYTES_MAX:,} bytes")
        yield from _sliced(lines)
    yield from _sliced([rest])


def _sliced(lines: Sequence[bytes]) -> Iterator[list[str]]:
    meant = [line.decode(errors="replace") for line in lines if line.strip()]
    for first in range(0, len(meant), BATCH):
        yield meant[first : first + BATCH]


def tail(
    channels: Annotated[list[str], Parameter(negative=())],
    /,
    *,
    since: str | None = None,
    admin: Admin = None,
    as_json: AsJson = False,
) -> None:
    """Follow channels: each publication with its position, as it is made, until Ctrl-C.

    Args:
        channels: their names.
        since: begin behind this position, EPOCH-OFFSET, with what the channel keeps; for one channel.
    """
    with asking(admin) as hub:
        if since is not None and len(channels) > 1:
            raise NotAnswered("--since is a position in one channel, and several are named")
        shown = ""
        for event, told in hub.events(*(f"tail:{channel}" for channel in channels)):
            if not event:
                shown = _tell_kept(hub, channels[0], since, as_json) if since else ""
            elif event == "publication" and not _is_before(told["position"], shown):
                _tell_publication(told, as_json, is_named=len(channels) > 1)


def _tell_kept(hub: Instance, channel: str, since: str, as_json: bool) -> str:
    """What is kept behind a position; gives the last one's."""
    last = since
    while True:
        page = hub.get("/api/history", channel=channel, since=last, limit=500)
        for one in page["publications"]:
            _tell_publication({"channel": channel, **one}, as_json, is_named=False)
            last = one["position"]
        if page["complete"] or not page["publications"]:
            return last


def _is_before(position: str, shown: str) -> bool:
    epoch, _, offset = position.partition("-")
    last_epoch, _, last = shown.partition("-")
    return epoch == last_epoch and int(offset) <= int(last)


def _tell_publication(told: dict[str, Any], as_json: bool, *, is_named: bool) -> None:
    if as_json:
        line = msgspec.json.encode(told).decode()
    else:
        data = msgspec.json.encode(told["data"]).decode()
        parts = [told["channel"]] * is_named + [told["position"]] + [told["event"]] * bool(told["event"]) + [data]
        line = "  ".join(map(printable, parts))
    print(line, flush=True)


def clients(
    *,
    user: str | None = None,
    channel: str | None = None,
    path: str | None = None,
    lagging: Annotated[bool, Flag] = False,
    sort: Literal["lag", "lag_bytes", "sent", "waiting"] | None = None,
    limit: int = 100,
    admin: Admin = None,
    as_json: AsJson = False,
) -> None:
    """Who is connected, and who lags and why.

    Args:
        user: of this user.
        channel: who watches this channel.
        path: who came by this path.
        lagging: who does not keep up.
        sort: the largest first: age or bytes of what it has not got, bytes sent, or private bytes that wait.
        limit: so many at most; 0 is all.
    """
    with asking(admin) as hub:
        query = {"user": user, "channel": channel, "path": path, "lagging": lagging or None, "sort": sort}
        rows = hub.rows("/api/clients", "clients", limit, **query)
        _tell_rows(map(_client, rows) if not as_json else rows, as_json)


def _client(row: dict[str, Any]) -> dict[str, str]:
    names = ", ".join(row["channels"][:3])
    more = row["channels_count"] - min(len(row["channels"]), 3)
    lag = row["lag"]
    return {
        "client": row["client"],
        "user": row["user"] or "",
        "address": row["address"],
        "transport": row["transport"],
        "channels": names + (f" +{more}" if more > 0 else ""),
        "sent": _bytes(row["sent_bytes"]),
        "behind": "" if lag is None else f"{lag['publications']:,} / {_bytes(lag['bytes'])} / {lag['seconds']:,.1f} s",
        "why": "" if lag is None else lag["text"],
    }


def channels(
    match: str | None = None,
    /,
    *,
    sort: Literal["subscribers", "rate", "deliveries", "backlog"] | None = None,
    limit: int = 100,
    admin: Admin = None,
    as_json: AsJson = False,
) -> None:
    """Which channels there are, who watches them and what they keep.

    Args:
        match: a pattern such as odds:*.
        sort: the largest first.
        limit: so many at most; 0 is all.
    """
    with asking(admin) as hub:
        rows = hub.rows("/api/channels", "channels", limit, match=match, sort=sort)
        _tell_rows(map(_channel, rows) if not as_json else rows, as_json)


def _channel(row: dict[str, Any]) -> dict[str, str]:
    return {
        "channel": row["channel"],
        "policy": row["policy"],
        "subscribers": f"{row['subscribers']:,}",
        "position": row["position"],
        "rate": "" if row["rate"] is None else f"{row['rate']:,.1f}/s",
        "backlog": f"{row['backlog']:,} / {_bytes(row['backlog_bytes'])}",
        "kept": f"{row['kept']:,} / {_bytes(row['kept_bytes'])}",
        "idle": "" if row["idle"] is None else f"{row['idle']:,.0f} s",
    }


def disconnect(
    client: str | None = None,
    /,
    *,
    user: str | None = None,
    code: int = 1008,
    reason: str = "",
    admin: Admin = None,
    as_json: AsJson = False,
) -> None:
    """Close a client's connection, or all connections of a user.

    Args:
        client: its id, as fanwire clients shows it: 0:c17@2.
        user: all of this user.
        code: the close code.
        reason: what it is told, 123 bytes at most.
    """
    with asking(admin) as hub:
        named = {name: value for name, value in (("client", client), ("user", user)) if value is not None}
        answer = hub.post("/api/disconnect", {**named, "code": code, "reason": reason})
        if as_json:
            print(msgspec.json.encode(answer).decode())
        elif answer["closed"] != 1:
            print("closed, in all workers" if answer["closed"] is None else f"{answer['closed']} closed")


def stats(*, admin: Admin = None, as_json: AsJson = False) -> None:
    """The numbers of a hub that runs, of all its workers."""
    with asking(admin) as hub:
        answer = hub.get("/api/stats")
        if as_json:
            print(msgspec.json.encode(answer).decode())
            return
        numbers = {name: value for name, value in answer.items() if isinstance(value, int | float) and name != "at"}
        width = max(map(len, numbers))
        for name, value in numbers.items():
            print(f"{name:<{width}}  {value:,}")
        for name in ("closes", "skipped", "faults"):
            counted = {key: count for key, count in answer[name].items() if count}
            if counted:
                print(f"{name:<{width}}  {', '.join(f'{printable(key)}: {count:,}' for key, count in counted.items())}")
        if answer["silent"]:
            print(f"{'silent':<{width}}  workers {', '.join(map(str, answer['silent']))} do not answer")


def _tell_rows(rows: Any, as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(msgspec.json.encode(row).decode())
        return
    cells = [{name: printable(value) for name, value in row.items()} for row in rows]
    if not cells:
        return
    names = [name for name in cells[0] if any(row[name] for row in cells)]
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in names}
    widths[names[-1]] = 0
    print("  ".join(f"{name:<{widths[name]}}" for name in names))
    for row in cells:
        print("  ".join(f"{row[name]:<{widths[name]}}" for name in names).rstrip())


def _bytes(count: int | None) -> str:
    if count is None:
        return "?"
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1_024 or unit == "GiB":
            break
        size /= 1_024
    return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"
