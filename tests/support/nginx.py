"""nginx before a hub: its main configuration, a certificate that signs itself. Also for `tests/peers/run.py`."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.raw import free_port
from support.waiting import until_in_thread

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

MAIN = """
daemon off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    {servers}
}}
"""


def certificate(folder: Path) -> None:
    """Write `cert.pem` and its key `key.pem` into `folder`. Raises CalledProcessError without openssl."""
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(["openssl", "req", *options, *names, *files], check=True, capture_output=True)


def main(folder: Path, servers: str) -> str:
    """The whole of nginx.conf for these `servers`, which leaves nothing outside of `folder`."""
    return MAIN.format(folder=folder, servers=servers)


def configure(folder: Path, servers: str) -> list[str]:
    """Write all that an nginx with these `servers` needs into `folder`; the arguments that it takes.

    The certificate is `cert.pem` there, its key `key.pem`. Raises CalledProcessError without openssl.
    """
    certificate(folder)
    (folder / "nginx.conf").write_text(main(folder, servers))
    return ["-p", str(folder), "-c", str(folder / "nginx.conf")]


@contextmanager
def keeping_nginx(folder: Path, upstream: str) -> Iterator[str]:
    """The address of an nginx that keeps its connections to `upstream`, and has many clients' requests on each."""
    port = free_port()
    servers = f"""
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream hub {{ server {upstream}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://hub; proxy_http_version 1.1; proxy_read_timeout 120s; proxy_buffering off;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
        }}
    }}"""
    assert NGINX is not None
    process = subprocess.Popen([NGINX, *configure(folder, servers)], stderr=subprocess.PIPE)
    try:
        until_in_thread(lambda: _listens(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
