"""Peer: socketify, which is µWebSockets' C++ server and topic tree with Python callbacks.

Its usual ``app.run()`` turns asyncio's loop and polls libuv from it, spinning while idle; that would be charged to
µWebSockets. Here libuv's loop runs alone and blocks in epoll, as in a C++ program: the more favourable of the two.
A burst is published inside one timer callback, so that µWebSockets drains its topic tree once, as it is made to.
Needs the system's libuv (``libuv.so.1``); the wheel brings only µWebSockets.
"""

import json
import os
import queue
import sys
import threading
import time
from argparse import Namespace
from typing import Any

from driver import START_DELAY_NS, Reporter, Schedule, channels_of, options
from socketify import App, AppListenOptions, CompressOptions, OpCode

BACKPRESSURE_BYTES_MAX = 64 << 20
"""µWebSockets drops what a client is over this, silently; generous, so that every message arrives."""
COMMANDS_EVERY_MS = 20
"""How often the loop looks for commands while it publishes nothing; never while it does, so that this costs nothing."""


class Peer:
    """The application, its commands and at most one schedule that runs."""

    def __init__(self, port: int, compression: str) -> None:
        """Make the app; nothing listens yet."""
        self.compresses = compression != "DISABLED"
        self.port = port
        self.reporter = Reporter()
        self.commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.sequences: dict[int, int] = {}
        self.connections = 0
        self.schedule: Schedule | None = None
        self.round_index = 0
        self.timer: Any = None  # the next round; kept, or it would be freed before it fires
        self.watch: Any = None  # the next look for commands
        self.app = App()
        self.loop = self.app.loop.uv_loop
        self.app.ws(
            "/ws",
            {
                "compression": CompressOptions[compression],
                "max_backpressure": BACKPRESSURE_BYTES_MAX,
                "idle_timeout": 0,
                "upgrade": self.upgrade,
                "open": self.opened,
                "close": self.closed,
            },
        )

    def upgrade(self, response: Any, request: Any, context: Any) -> None:
        """Answer an upgrade request; the channels travel with the socket until it is open."""
        key = request.get_header("sec-websocket-key")
        extensions = request.get_header("sec-websocket-extensions") or ""
        response.upgrade(key, "", extensions, context, channels_of(request.get_full_url()))

    def opened(self, websocket: Any) -> None:
        """Subscribe a new client to what its query asked for."""
        self.connections += 1
        for channel in websocket.get_user_data():
            websocket.subscribe(channel)

    def closed(self, _websocket: Any, _code: int, _message: Any) -> None:
        """µWebSockets unsubscribes by itself."""
        self.connections -= 1

    def read_commands(self) -> None:
        """Body of the thread that reads stdin; its end is a ``quit``, at once."""
        for line in sys.stdin:
            command = json.loads(line)
            if "quit" in command:
                break
            self.commands.put(command)
        os._exit(0)

    def look_for_commands(self, _data: Any) -> None:
        """Timer callback, on the loop: obey what waits. One publish at a time."""
        while self.schedule is None and not self.commands.empty():
            command = self.commands.get()
            if "connections" in command:
                self.reporter.say({"connections": self.connections})
            elif "publish" in command:
                self.schedule = Schedule(command["publish"], self.sequences, time.monotonic_ns() + START_DELAY_NS)
                self.round_index = 0
                self.arm()
        if self.schedule is None:
            self.listen_for_commands()

    def listen_for_commands(self) -> None:
        """Set the timer that looks for the next command."""
        self.watch = self.loop.create_timer(COMMANDS_EVERY_MS, 0, self.look_for_commands, None)

    def arm(self) -> None:
        """Set the timer for the next round; libuv counts in ms, a late round comes at once."""
        assert self.schedule is not None
        wait_ms = (self.schedule.due_ns(self.round_index) - time.monotonic_ns()) / 1e6
        self.timer = self.loop.create_timer(max(0, round(wait_ms)), 0, self.publish_round, None)

    def publish_round(self, _data: Any) -> None:
        """Timer callback: one round, back to back, then the next timer."""
        schedule = self.schedule
        assert schedule is not None
        texts = schedule.texts(self.round_index)
        began = time.perf_counter()
        for channel, text in texts:
            self.app.publish(channel, text, OpCode.TEXT, self.compresses)
        schedule.seconds_publishing += time.perf_counter() - began
        self.round_index += 1
        if self.round_index < schedule.rounds:
            self.arm()
        else:
            self.reporter.say(schedule.report(time.monotonic_ns()))
            self.schedule = None
            self.listen_for_commands()

    def run(self) -> None:
        """Listen, say ready, turn libuv's loop for good."""
        ready = {"ready": True, "port": self.port}
        self.app.listen(AppListenOptions(port=self.port, host="127.0.0.1"), lambda _config: self.reporter.say(ready))
        self.listen_for_commands()
        threading.Thread(target=self.read_commands, daemon=True).start()
        self.loop.run()


def main(arguments: Namespace) -> None:
    """Serve until stdin ends."""
    Peer(arguments.port, arguments.compression).run()


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument(
        "--compression", default="DISABLED", choices=CompressOptions.__members__, help="µWebSockets' own word for it"
    )
    main(parser.parse_args())
