"""A backend's certificate, signed by an authority that only a test knows."""

import ssl
import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")


def authority(folder: Path, name: str = "ca") -> Path:
    """The certificate of a new authority; its key lies beside it."""
    _make("-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem")
    return folder / f"{name}.pem"


def signed_by(authority: Path) -> ssl.SSLContext:
    """What a server at ``localhost`` speaks TLS with."""
    key, certificate = authority.with_name("localhost.key"), authority.with_name("localhost.pem")
    _make(
        *("-CA", str(authority), "-CAkey", str(authority.with_suffix(".key")), "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _make(*arguments: str) -> None:
    subprocess.run(["openssl", "req", "-x509", *KEY, *arguments], check=True, capture_output=True)
