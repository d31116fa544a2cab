"""Peer: Centrifugo with its memory engine, or Redis, and its unidirectional WebSocket, on which a client sends nothing.

The program is not ours, so what publishes is a process beside it, which nobody charges to it: this one becomes
Centrifugo, and its grandchild obeys the commands. A burst is one `batch` of the HTTP API. Pushes are not joined into
one frame, as its defaults have it, or with ``--joined`` they are. A connection says by its token which channel it is
subscribed to, so there is channel 0 alone. Its messages are objects around the payload: ``fanwire-load --envelopes``.

Where there is no Centrifugo it says so and ends: ``go install github.com/centrifugal/centrifugo/v6@latest`` makes it,
and CENTRIFUGO names it where it is on no PATH.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHANNEL = "c0"
SECRET, KEY = "a secret of the bench", "a key of the bench"
WITHIN_S = 15.0


def connect_request() -> str:
    """What a client's query has as ``cf_connect``: its token, which names its channel."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": "bench", "channels": [CHANNEL]})
    signed = ".".join(_coded(json.dumps(part).encode()) for part in parts)
    signature = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return json.dumps({"token": f"{signed}.{_coded(signature)}"})


def _coded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def settings(port: int, redis: str | None, is_joined: bool, compresses: bool) -> dict[str, Any]:
    """Its file of settings."""
    shared = {"engine": {"type": "redis", "redis": {"address": redis}}} if redis else {}
    return shared | {
        "http_server": {"address": "127.0.0.1", "port": port},
        "http_api": {"key": KEY},
        "client": {"token": {"hmac_secret_key": SECRET}, "ping_interval": "1h"},
        "uni_websocket": {
            "enabled": True,
            "handler_prefix": "/ws",
            "join_push_messages": is_joined,
            "compression": compresses,
        },
        "websocket": {"disabled": True},
        "log": {"level": "error"},
    }


def main() -> None:
    """Become Centrifugo, beside a process that obeys."""
    from driver import options

    parser = options(__doc__ or "")
    parser.add_argument("--joined", action="store_true", help="pushes that wait are joined into one frame")
    parser.add_argument("--deflate", action="store_true", help="its compression, which takes no context over")
    arguments = parser.parse_args()
    program = shutil.which(os.environ.get("CENTRIFUGO", "centrifugo"))
    if program is None:
        sys.exit(
            "skipped: no Centrifugo: go install github.com/centrifugal/centrifugo/v6@latest, on PATH or as CENTRIFUGO"
        )
    file = Path(tempfile.gettempdir()) / f"centrifugo-{os.getpid()}.json"
    file.write_text(json.dumps(settings(arguments.port, arguments.redis, arguments.joined, arguments.deflate)))
    server = os.getpid()
    if os.fork() == 0:
        if os.fork() == 0:
            _obey(server, arguments.port, file)
        os._exit(0)
    os.wait()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.execv(program, [program, "--config", str(file)])


def _obey(server: int, port: int, file: Path) -> None:
    """Body of the process beside it, to its end."""
    from driver import START_DELAY_NS, Reporter, Schedule

    cores = os.sched_getaffinity(0)
    with_others = set(range(os.cpu_count() or 1)) - cores
    if with_others:
        os.sched_setaffinity(0, with_others)  # with the clients
    reporter, sequences = Reporter(), dict[int, int]()
    try:
        api = _api(port)
        reporter.say({"ready": True, "port": port})
        for line in sys.stdin:
            command = json.loads(line)
            if "quit" in command:
                return
            if "connections" in command:
                reporter.say({"connections": _ask(api, "info", {})["result"]["nodes"][0]["num_clients"]})
            elif "publish" in command:
                schedule = Schedule(command["publish"], sequences, time.monotonic_ns() + START_DELAY_NS)
                for index in range(schedule.rounds):
                    time.sleep(max(0.0, (schedule.due_ns(index) - time.monotonic_ns()) / 1e9))
                    made = schedule.texts(index)
                    # A feed's messages are objects, which it passes on as they are: a text it would make longer.
                    texts = [
                        {"publish": {"channel": c, "data": json.loads(t) if schedule.feed else t}} for c, t in made
                    ]
                    began = time.perf_counter()
                    _ask(api, "batch", {"commands": texts})
                    schedule.seconds_publishing += time.perf_counter() - began
                reporter.say(schedule.report(time.monotonic_ns()))
    finally:
        file.unlink(missing_ok=True)
        os.kill(server, signal.SIGKILL)
        os._exit(0)


def _api(port: int) -> http.client.HTTPConnection:
    """A connection to its API, once it listens."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)


def _ask(api: http.client.HTTPConnection, method: str, body: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(body, separators=(",", ":"))
    api.request("POST", f"/api/{method}", text, {"X-API-Key": KEY, "Content-Type": "application/json"})
    with api.getresponse() as answer:
        found: dict[str, Any] = json.loads(answer.read())
    if "error" in found:
        raise RuntimeError(f"{method}: {found}")
    return found


if __name__ == "__main__":
    main()
