"""The program and the probes of deploy/kubernetes: two pods' processes, a real Redis, a client that moves."""

import re
import urllib.request
from pathlib import Path
from textwrap import dedent

import pytest
from support.clients import connected
from support.redis import needs_redis, redis_server
from support.workers import serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

MANIFEST = (Path(__file__).parents[1] / "deploy/kubernetes/fanwire.yaml").read_text()


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


def test_the_probes_are_paths_of_a_hub_and_its_port_is_the_programs() -> None:
    assert sorted(re.findall(r"httpGet: \{path: (\S+), port: http\}", MANIFEST)) == ["/healthz", "/readyz"]
    [port] = re.findall(r"\{name: http, containerPort: (\d+)\}", MANIFEST)
    assert f'hub.run("0.0.0.0:{port}")' in MANIFEST


@needs_redis
async def test_a_client_moves_from_pod_to_pod_and_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dedent(MANIFEST.partition("  app.py: |\n")[2]).replace("0.0.0.0:8000", "127.0.0.1:0")
    folders = [tmp_path / name for name in ("redis", "one", "two")]
    for folder in folders:
        folder.mkdir()
    with redis_server(folders[0]) as redis:
        monkeypatch.setenv("BACKBONE", redis.url)
        with serving(folders[1], source) as one, serving(folders[2], source) as two:
            addresses = [pod.until("serving on ").partition("serving on ")[2].split()[0] for pod in (one, two)]
            for address in addresses:
                for path in ("/healthz", "/readyz"):
                    with urllib.request.urlopen(f"http://{address}{path}", timeout=100) as answer:
                        assert answer.status == 200
            async with connected(addresses[0], "/ws") as peer:
                await peer.send_json(call="publish", args=["odds:1", "2.10"], id=1)
                epoch, offset = (await peer.receive_json())["result"]
                await peer.send_json(call="publish", args=["odds:1", "2.15"], id=2)
                await peer.receive_json()
            async with connected(addresses[1], f"/ws?channel=odds:1&since={epoch}-{offset}") as peer:
                assert (await peer.receive_json())["result"]["recovered"] == {"odds:1": True}
                assert await peer.receive() == "2.15"
