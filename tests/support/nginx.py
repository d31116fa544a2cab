"""nginx before a hub: its main configuration, a certificate that signs itself. Also for `tests/peers/run.py`."""

import subprocess
from pathlib import Path

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
