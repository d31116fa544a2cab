"""Daphne with the scope's extension: a message to a group goes straight to its sockets, in order with all else."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.raw import frame, free_port, read_close, read_frame, upgraded
from support.waiting import until_in_thread

STARTS_WITHIN_S = 60.0
"""Twisted takes long where the machine is busy."""
PROGRAM = """
import json
from typing import Any
from django.conf import settings
settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "fanwire.compat.django_channels.ChannelLayer"}})
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from fanwire.compat import django_channels
from fanwire.compat.django_channels import FanwireConsumer

direct = []
write_frames = django_channels.write_frames
django_channels.write_frames = lambda outlets, frames: (direct.append(len(outlets)), write_frames(outlets, frames))


class Room(FanwireConsumer, AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        assert self.scope["extensions"]["fanwire"]["deflate"] is False
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("room", self.channel_name)

    async def receive_json(self, content: Any, **_: Any) -> None:
        if content == "count":
            return await self.send_json([len(self.channel_layer.groups["room"]), len(direct), max(direct, default=0)])
        if content == "close":
            await self.close(4001)
        for number in range(content if isinstance(content, int) else 1):
            await self.channel_layer.group_send("room", {"type": "fanwire.send", "json": number})
            if number % 7 == 3:
                await self.channel_layer.group_send("room", {"type": "room.message", "json": number})

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send_json(event["json"])


application = Room.as_asgi()
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where Daphne serves it."""
    (tmp_path / "program.py").write_text(PROGRAM)
    port = free_port()
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    warnings = ["-W", "ignore:fanwire was built:RuntimeWarning"]
    command = [sys.executable, *warnings, "-m", "fanwire.daphne", "-v", "0", "-p", f"{port}", "program:application"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in support/examples.py
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path) as process:
        try:
            until_in_thread(lambda: process.poll() is not None or listens(port), STARTS_WITHIN_S)
            yield f"127.0.0.1:{port}"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def listens(port: int) -> bool:
    """Whether something does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def say(connection: socket.socket, value: Any) -> None:
    """One message of a client."""
    connection.sendall(frame(1, json.dumps(value).encode()))


def heard(connection: socket.socket) -> Any:
    """The next one of the server."""
    return json.loads(read_frame(connection).payload)


@pytest.mark.slow
def test_a_message_to_a_group_goes_straight_to_its_sockets_in_order_with_all_else(address: str) -> None:
    with upgraded(address, "/") as ann, upgraded(address, "/") as bob:
        say(ann, "count")
        while heard(ann)[0] < 2:
            say(ann, "count")
        say(ann, 50)
        expected = [number for number in range(50) for _ in range(1 + (number % 7 == 3))]
        for client in (ann, bob):
            assert [heard(client) for _ in expected] == expected
        say(bob, "count")
        _, times, most = heard(bob)
        assert (times >= 4, most) == (True, 2), "those before the first that has to be handled went past the consumers"
        ann.sendall(frame(9, b"ping"))
        assert read_frame(ann).opcode == 10
        say(ann, "close")
        assert read_close(ann)[0] == 4001
        assert heard(bob) == 0, "who is closed gets nothing behind it, and the others do"
        ann.sendall(frame(8, b"\x0f\xa1"))
        say(bob, 3)
        assert [heard(bob) for _ in range(3)] == [0, 1, 2]
