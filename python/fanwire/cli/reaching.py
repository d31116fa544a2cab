"""Whether what a file names can be reached from here: upstreams by the engine's own connections, and a backbone."""

import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from fanwire._engine import Engine, Settings, Upstream
from fanwire.relay.backed import backend_of, service_headers
from fanwire.relay.config import RelayConfig
from fanwire.relay.upstreams import Backend

ANSWER_S = 5.0
"""So long an upstream has to answer; all are asked at once."""
PORTS = {"redis": 6379, "rediss": 6379, "valkey": 6379, "valkeys": 6379, "nats": 4222, "tls": 4222}


def upstreams(relays: Sequence[RelayConfig]) -> Iterator[tuple[str, str, int | None]]:
    """Of each upstream its URL without the query, what is wrong with it, and the status that it answered with.

    What is wrong is empty where it has taken a connection. Each is asked with the headers of the relay's lanes.
    """
    if not relays:
        return
    asked = [
        (backend_of(relay, service_headers(relay)), index) for relay in relays for index in range(len(relay.upstream))
    ]
    engine = Engine(Settings())
    engine.start()
    try:
        for session, (backend, index) in enumerate(asked):
            _ask(engine, session, backend, backend.urls[index])
        answers = _answers(engine, len(asked))
    finally:
        engine.stop()
    for session, (backend, index) in enumerate(asked):
        name = backend.urls[index].partition("?")[0]
        yield (name, *_read(answers.get(session), name))


def _ask(engine: Engine, session: int, backend: Backend, url: str) -> None:
    headers = list(backend.headers)
    if backend.negotiates:
        engine.upstream_negotiate(session, url, headers, ANSWER_S, backend.roots)
    else:
        engine.upstream_open_plain(
            session,
            [url],
            headers,
            [],
            ("nowhere",),
            keepalive=backend.keepalive,
            server_timeout=backend.server_timeout,
            connect_timeout=ANSWER_S,
            idle=None,
            queue_bytes_max=backend.queue_bytes_max,
            message_bytes_max=backend.record_bytes_max,
            roots=backend.roots,
        )


def _answers(engine: Engine, count: int) -> Mapping[int, Upstream]:
    """The first word of each that says how it is."""
    answers: dict[int, Upstream] = {}
    until = time.monotonic() + 2 * ANSWER_S
    while len(answers) < count and (left_s := until - time.monotonic()) > 0:
        select.select([engine.event_fd], [], [], left_s)
        for event in engine.take_events():
            if isinstance(event, Upstream) and event.kind in ("opened", "closed", "negotiated"):
                answers.setdefault(event.session, event)
    return answers


def _read(event: Upstream | None, name: str) -> tuple[str, int | None]:
    if event is None:
        return f"there was no answer within {2 * ANSWER_S:g} s", None
    if event.kind == "opened":
        return "", 101
    why = event.text or event.body.decode(errors="replace")
    for url in (name, name.replace("ws", "http", 1)):
        why = why.removeprefix(f"{url}: ")
    if not event.status:
        return why or "it is out of reach", None
    return ("" if event.status == 200 else f"it answered with status {event.status}"), event.status


def backbone(url: str) -> Iterator[tuple[str, str]]:
    """Of each server of a backbone's URL its address, and why it takes no connection; empty where it does."""
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    for host in parts.netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{host}")
            place = one.hostname or "127.0.0.1", one.port or PORTS.get(scheme, 8000)
            socket.create_connection(place, ANSWER_S).close()
        except (OSError, ValueError) as error:
            yield host, getattr(error, "strerror", None) or str(error)
        else:
            yield host, ""
