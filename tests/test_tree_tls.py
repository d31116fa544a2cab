"""An origin behind TLS: a real nginx with a certificate of an authority of the test's own, and edges of it."""

import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import fanwire
import pytest
from fanwire.cli.backbone import BackboneConfig
from fanwire.cli.serving import asking
from fanwire.config.kinds import Secret
from support.backbones import told, watching
from support.certificates import authority, signed_by
from support.clients import connected, refusal
from support.nginx import NGINX, main
from support.raw import free_port
from support.waiting import until_in_thread
from test_backbone_away import answers
from test_tree import CHANNELS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(120),
    pytest.mark.skipif(NGINX is None, reason="there is no nginx"),
]


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """An authority that nobody knows, and what it has signed for ``localhost`` beside it."""
    found = authority(tmp_path)
    signed_by(found)
    return found


@asynccontextmanager
async def tls_before(upstream: str, folder: Path) -> AsyncIterator[int]:
    """The port of an nginx that ends TLS, as docs/proxy.md has it."""
    port = free_port()
    servers = f"""
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/localhost.pem; ssl_certificate_key {folder}/localhost.key;
        location / {{
            proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_read_timeout 120s;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
        }}
    }}"""
    (folder / "nginx.conf").write_text(main(folder, servers))
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            await anyio.to_thread.run_sync(until_in_thread, lambda: _listens(port))
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


async def test_an_edge_of_an_origin_behind_tls_has_what_that_has_and_checks_its_certificate(
    roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = fanwire.Hub(CHANNELS)
    async with origin.serve("127.0.0.1:0") as at, tls_before(at.address, roots.parent) as port:
        url = f"fanwires://localhost:{port}"
        strange = fanwire.Hub(CHANNELS, backbone=url)
        async with strange.serve("127.0.0.1:0") as edge:
            await answers(edge.address, "/readyz", 503, "backbone: it is out of reach.*(certificate|UnknownIssuer)")
        plain = fanwire.Hub(CHANNELS, backbone=f"fanwire://localhost:{port}")
        async with plain.serve("127.0.0.1:0") as edge:
            await answers(edge.address, "/readyz", 503, "backbone: it is out of reach.*answered 400")
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        other_name = fanwire.Hub(CHANNELS, backbone=f"fanwires://127.0.0.1:{port}")
        async with other_name.serve("127.0.0.1:0") as edge:
            await answers(edge.address, "/readyz", 503, "backbone: it is out of reach.*(certificate|NotValidForName)")
        hub = fanwire.Hub(CHANNELS, backbone=url)
        first = origin.publish("odds:1", 1).position
        async with hub.serve("127.0.0.1:0") as edge:
            async with watching(edge.address, "odds:1", query="?envelope=1", since={"odds:1": [*first]}) as peer:
                second = origin.publish("odds:1", {"n": 2}).position
                assert [message["position"] for message in await told(peer, 1)] == [[*second]]
            assert origin.stats().connections == 1


async def test_an_edge_asks_an_origin_behind_tls_about_its_clients(
    roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = fanwire.Hub(CHANNELS)

    @origin.authorize
    async def may(client: fanwire.Client, channel: str) -> bool:
        return client.request.subprotocols != () or client.request.headers.get("authorization") == f"Bearer {channel}"

    async with origin.serve("127.0.0.1:0") as at, tls_before(at.address, roots.parent) as port:
        url = f"fanwires://localhost:{port}"
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        for trusted, status in ((None, 503), (str(roots), 403)):
            if trusted is not None:
                monkeypatch.setenv("SSL_CERT_FILE", trusted)
            hub = fanwire.Hub(CHANNELS, backbone=url)
            hub.authorize(asking(hub, BackboneConfig(url=Secret(url), admit="origin")))
            async with hub.serve("127.0.0.1:0") as edge:
                shown = {"Authorization": "Bearer odds:1"}
                assert (await refusal(edge.address, "/ws?channel=odds:2", additional_headers=shown))[0] == status
                if status == 403:
                    await let_in(origin, edge.address, shown)


async def let_in(origin: fanwire.Hub, edge: str, shown: dict[str, str]) -> None:
    """Who may has what is published."""
    async with connected(edge, "/ws?channel=odds:1", additional_headers=shown) as peer:
        origin.publish("odds:1", "hers")
        assert await peer.receive() == "hers"
