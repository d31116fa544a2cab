"""The proxies of deploy/proxies before a hub: each file as it stands, but for names, ports and shorter times."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.nginx import certificate, main
from support.raw import free_port
from support.waiting import until_in_thread

FILES = Path(__file__).parents[2] / "deploy" / "proxies"
SOCKET = "/run/fanwire.sock"
ELSEWHERE = "10.0.0.2:8000"
"""Where the files' comments have a server on another machine."""


@dataclass(frozen=True)
class Kind:
    """A proxy: its program, its file, and what in that file stands for what."""

    name: str
    file: str
    listens: tuple[str, str]
    """What the file says, and what it says for a port of the loopback."""
    times: tuple[str, ...]
    """Words before each time that a quiet connection has; none: it has none."""
    over_tcp: tuple[str, str]
    """How the file names the socket, and how it would name a server elsewhere."""

    @property
    def program(self) -> str | None:
        """Its path, where it is installed."""
        return shutil.which(self.name) or shutil.which(self.name, path="/usr/sbin")

    def text(self, folder: Path, port: int, upstream: str, idle: str = "") -> str:
        """The file, for this port, this address of a hub, and a time that a quiet connection has."""
        text = (FILES / self.file).read_text()
        over_unix, over_tcp = self.over_tcp
        server = (
            (SOCKET, upstream.removeprefix("unix:"))
            if upstream.startswith("unix:")
            else (over_unix, over_tcp.replace(ELSEWHERE, upstream))
        )
        for written, here in (
            (self.listens[0], self.listens[1].format(port=port)),
            server,
            ("/etc/ssl/bets.example.pem", f"{folder}/cert.pem"),
            ("/etc/ssl/bets.example.key", f"{folder}/key.pem"),
            ("/etc/ssl/bets.example.both.pem", f"{folder}/both.pem"),
            *((f"{word} 120s", f"{word} {idle}") for word in self.times if idle),
        ):
            assert written in text or "/etc/ssl" in written, (self.file, written)
            text = text.replace(written, here)
        return text


NGINX = Kind(
    "nginx",
    "nginx.conf",
    ("listen 443 ssl", "listen 127.0.0.1:{port} ssl"),
    ("proxy_read_timeout", "proxy_send_timeout"),
    ("server unix:/run/fanwire.sock", f"server {ELSEWHERE}"),
)
HAPROXY = Kind(
    "haproxy",
    "haproxy.cfg",
    ("bind :443 ", "bind 127.0.0.1:{port} "),
    ("timeout client", "timeout server", "timeout tunnel"),
    ("unix@/run/fanwire.sock", ELSEWHERE),
)
CADDY = Kind(
    "caddy",
    "Caddyfile",
    ("bets.example {", "https://127.0.0.1:{port} {{"),
    (),
    ("unix//run/fanwire.sock", ELSEWHERE),
)
KINDS = [NGINX, HAPROXY, CADDY]


def command(kind: Kind, folder: Path, text: str) -> list[str]:
    """Write what the proxy needs into `folder`; how it is started in the foreground."""
    certificate(folder)
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    program, file = str(kind.program), folder / kind.file
    if kind is NGINX:
        text = main(folder, text)
        if os.geteuid() == 0:  # else its workers are somebody who may not come to the socket of a test
            text = f"user root;\n{text}"
    elif kind is HAPROXY:
        text = text.replace("maxconn 200000", "maxconn 2000")  # as many descriptors as a machine for tests has
    else:
        text = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" + text
    file.write_text(text)
    return {
        "nginx": [program, "-p", str(folder), "-c", str(file)],
        "haproxy": [program, "-db", "-f", str(file)],
        "caddy": [program, "run", "--config", str(file), "--adapter", "caddyfile"],
    }[kind.name]


@contextmanager
def proxy(kind: Kind, folder: Path, upstream: str, idle: str = "") -> Iterator[int]:
    """The port of a proxy before `upstream`, ``unix:PATH`` or ``HOST:PORT``; `idle` is what quiet connections get."""
    port = free_port()
    arguments = command(kind, folder, kind.text(folder, port, upstream, idle))
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(arguments, stdout=said, stderr=subprocess.STDOUT, env=homes)
        try:
            until_in_thread(lambda: process.poll() is not None or _listens(port), 20)
            assert process.poll() is None, (folder / "said").read_text()
            yield port
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True
