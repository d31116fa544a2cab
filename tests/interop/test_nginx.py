"""Behind nginx, with the configuration that docs/proxy.md shows: TLS, WebSockets, event streams, SignalR."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import fanwire
import httpx
import pytest
from support.nginx import configure
from support.raw import free_port, read_frame, read_head, request_text

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PAGE = Path(__file__).parents[2] / "docs" / "proxy.md"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate"),
]


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[int]:
    """The port of an nginx, as the page shows it, before `upstream`."""
    port = free_port()
    shown = PAGE.read_text().partition("```nginx\n")[2].partition("```")[0]
    for written, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("server 127.0.0.1:8000", f"server {upstream}"),
        ("/etc/ssl/bets.example.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/bets.example.key", f"{folder}/key.pem"),
    ):
        assert shown.count(written) == 1, written
        shown = shown.replace(written, here)
    assert NGINX is not None
    process = subprocess.Popen([NGINX, *configure(folder, shown)], stderr=subprocess.PIPE)
    try:
        while True:
            assert process.poll() is None, process.communicate()[1]
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                continue
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=10)


def upgraded(port: int, target: str) -> ssl.SSLSocket:
    """A WebSocket through TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10))
    connection.sendall(request_text(target))
    assert read_head(connection).startswith("HTTP/1.1 101")
    return connection


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what is tested is the wire."""
    return "asyncio"


async def first_event(http: httpx.AsyncClient, url: str, publish: Callable[[], object]) -> str:
    """The first event of a stream; `publish` is called once the stream is open."""
    async with http.stream("GET", url) as stream:
        publish()
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                return line
    raise AssertionError("the stream ended")


@pytest.mark.timeout(60)
async def test_clients_are_served_through_nginx_as_the_page_shows_it(tmp_path: Path) -> None:
    hub = fanwire.Hub()
    seen: set[tuple[str | None, str | None]] = set()

    @hub.authenticate
    def who(request: fanwire.Request) -> None:
        seen.add((request.headers.get("host"), request.headers.get("x-forwarded-proto")))

    async with hub.serve("127.0.0.1:0", drain_timeout=0.5) as serving:
        with nginx(tmp_path, serving.address) as port:
            watching = await anyio.to_thread.run_sync(upgraded, port, "/ws?channel=odds")
            base = f"https://127.0.0.1:{port}"
            async with httpx.AsyncClient(verify=False, trust_env=False, timeout=10) as http:
                url = f"{base}/events?channel=odds"
                event = await first_event(http, url, lambda: hub.publish("odds", {"home": 1.85}))
                negotiated = (await http.post(f"{base}/signalr/negotiate?negotiateVersion=1")).json()
                ready = await http.get(f"{base}/readyz")
            frame = await anyio.to_thread.run_sync(read_frame, watching)
            watching.close()
    assert event == 'data: {"home":1.85}'
    assert frame.payload == b'{"home":1.85}'
    assert "connectionToken" in negotiated
    assert ready.status_code == 200
    assert seen == {("localhost", "https"), ("127.0.0.1", "https")}
