"""30,000 SignalR clients of long polling behind one nginx, before four workers: for `make soak`."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.nginx import NGINX
from support.raw import free_port
from support.signalr_lines import END, Line, Polled, close_lines
from support.waiting import until_in_thread
from support.workers import serving

CLIENTS, PROCESSES, DESCRIPTORS = 30_000, 4, 20_000

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(600),
    pytest.mark.skipif(NGINX is None, reason="there is no nginx"),
    pytest.mark.skipif(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0] < DESCRIPTORS, reason=f"a process needs {DESCRIPTORS} descriptors"
    ),
]

PROGRAM = """
import logging, sys
import fanwire

logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
hub = fanwire.Hub(handshake_timeout=60, signalr_disconnect_timeout=60, signalr_handshake_timeout=60)

@hub.method
def tell(client, text):
    hub.publish_to_all(text, event="Told", path="/signalr")

hub.run(sys.argv[1], workers=4)
"""

CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/errors; worker_processes 4; worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}
http {{
    access_log off; keepalive_timeout 300s; keepalive_requests 1000000;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    split_clients "$connection" $from {{ 25% 127.0.1.1; 25% 127.0.1.2; 25% 127.0.1.3; * 127.0.1.4; }}
    upstream hub {{ server {upstream}; keepalive 1000; keepalive_timeout 50s; }}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        location / {{
            proxy_pass http://hub; proxy_http_version 1.1; proxy_set_header Connection '';
            proxy_read_timeout 200s; proxy_bind $from; proxy_buffering off;
        }}
    }}
}}
"""
"""One address has 28,000 ports, and each client two connections: to nginx, and from there, while its poll waits."""


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[str]:
    """The address of one that has room for them."""
    port, path = free_port(), folder / "nginx.conf"
    room = {"descriptors": DESCRIPTORS, "connections": DESCRIPTORS - 1_000}
    path.write_text(CONFIGURATION.format(folder=folder, upstream=upstream, port=port, **room))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(path)])
    try:
        until_in_thread(lambda: (folder / "pid").exists())
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Crowd:
    """Some of the clients, in a process."""

    def __init__(self, address: str, number: int) -> None:
        script = Path(__file__).parent / "support" / "polling_crowd.py"
        command = [sys.executable, str(script), address, str(CLIENTS // PROCESSES), f"127.0.2.{number}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self, word: str = "") -> dict[str, object]:
        """What it says; with a word, what it says to that."""
        assert self._process.stdin and self._process.stdout
        if word:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        assert isinstance(told, dict)
        return told

    def seen(self, text: str) -> int:
        """How many of them were told this. None may have had an error."""
        told = self.line("and?")
        assert told["errors"] == {}, told
        counts = told["seen"]
        assert isinstance(counts, dict)
        return int(counts.get(text, 0))

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def test_thirty_thousand_polling_clients_get_all_that_is_published(tmp_path: Path) -> None:
    with ExitStack() as stack:
        served = stack.enter_context(serving(tmp_path, PROGRAM, "127.0.0.1:0"))
        address = stack.enter_context(nginx(tmp_path, served.address))
        crowds = [Crowd(address, number) for number in range(1, PROCESSES + 1)]
        for crowd in crowds:
            stack.callback(crowd.end)
        stack.callback(close_lines)
        for crowd in crowds:
            assert crowd.line().items() >= {"clients": CLIENTS // PROCESSES, "errors": {}}.items()
        line = Line(served.address)
        teller = Polled(line.negotiate())
        teller.begin(line)
        for turn in range(5):
            text = f"turn {turn}"
            teller.post(line, json.dumps({"type": 1, "target": "tell", "arguments": [text]}).encode() + END)
            until_in_thread(lambda: sum(crowd.seen(text) for crowd in crowds) == CLIENTS, 60)  # noqa: B023
