"""Node's ``ws``, the client that most servers meet."""

import json
import subprocess

import anyio
import fanwire
import pytest
from support.node import NODE, node_with

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def node() -> str:
    """The path of node."""
    return node_with("ws")


async def test_it_receives_text_binary_a_reply_and_the_close(hub: fanwire.Hub, node: str) -> None:
    @hub.method
    def ready(client: fanwire.Client, name: str) -> str:
        hub.publish("a", "tëxt")
        hub.publish("a", b"\x00\xff")
        hub.publish("a", "x" * 70_000)
        client.close(4002, f"bye {name}")
        return "go"

    async with hub.serve("127.0.0.1:0") as serving:
        url = f"ws://{serving.address}/ws?channel=a"
        with anyio.fail_after(60):
            done = await anyio.run_process([node, str(NODE / "client.js"), url], stderr=subprocess.STDOUT)
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert lines[-1] == {"code": 4002, "reason": "bye node"}
    texts = [line["data"] for line in lines[:-1]]
    assert '{"id":1,"result":"go"}' in texts or len(texts) == 3
    assert [text for text in texts if not text.startswith("{")] == ["tëxt", "00ff", "x" * 70_000]
