"""Runs peers' own tests from their sources: `python tests/peers/run.py FOLDER [NAME…]`, with `python` and `tests` in
PYTHONPATH.

The suites of pysignalr and signalrcore run against a hub. Those of websockets' `broadcast` run with ours, uvicorn's of
WebSockets with our protocols, Starlette's and FastAPI's over sockets to them, and those of the libraries that
drop_ins.py names with what stands in for them. FOLDER holds a checkout or source package of each, by its name; their
requirements are installed into the Python that runs this (`make peers` does). The hub stands behind nginx, which gives
the suites TLS and puts the login beside it. Not run: what needs Azure, and certificates of a machine. Prints what each
suite said; exits with 1 where one failed.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from drop_ins import PROTOCOLS, SUITES, drop_in
from support.nginx import configure
from support.raw import free_port

HERE = Path(__file__).parent
SERVERS = """
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
        proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 120s;
        proxy_set_header Host $host;
        location ~ ^/(users|api)/ {{ proxy_pass http://127.0.0.1:{login}; }}
        location / {{
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
            proxy_pass http://127.0.0.1:{hub};
        }}
    }}
"""


def await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Return once something listens."""
    for _ in range(500):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            threading.Event().wait(0.02)
    raise SystemExit(f"{process.args}: nothing listens on {port}")


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """The plain and the TLS address of the hubs."""
    hub, login, plain, tls = (free_port() for _ in range(4))
    with tempfile.TemporaryDirectory() as folder:
        servers = SERVERS.format(folder=folder, plain=plain, tls=tls, login=login, hub=hub)
        commands = [
            [sys.executable, str(HERE / "hubs.py"), f"127.0.0.1:{hub}", f"127.0.0.1:{login}"],
            ["nginx", *configure(Path(folder), servers)],
        ]
        path = os.environ["PATH"] + ":/usr/sbin"
        processes = [subprocess.Popen(each, env={**os.environ, "PATH": path}) for each in commands]
        try:
            for port, process in zip((hub, plain), processes, strict=True):
                await_port(port, process)
            yield f"127.0.0.1:{plain}", f"127.0.0.1:{tls}"
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def run(name: str, folder: Path, *arguments: str, **environment: str) -> bool:
    """Run one suite in its checkout, from the sources there."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *arguments]
    environment["PYTHONPATH"] = f"{environment.get('PYTHONPATH', '')}:{os.environ['PYTHONPATH']}".lstrip(":")
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=False)
    return done.returncode == 0


def pysignalr(folder: Path, plain: str) -> bool:
    """Its own container is what we stand in for: the fixture gives our address instead of starting Docker."""
    plugin = f"import pytest\n@pytest.fixture(scope='module')\nasync def aspnet_server(): return {plain!r}\n"
    with tempfile.TemporaryDirectory() as room:
        tests = Path(room, "tests")
        subprocess.run(["cp", "-r", str(folder / "tests"), str(tests)], check=True)
        suite = tests / "test_pysignalr/test_pysignalr.py"
        text = re.sub(
            r"@pytest\.fixture\(scope='module'\)\nasync def aspnet_server.*?\n\n\n", "", suite.read_text(), flags=re.S
        )
        suite.write_text(text)
        (tests / "conftest.py").write_text(plugin)
        return run("pysignalr", Path(room), "-o", "asyncio_mode=auto", str(tests), PYTHONPATH=str(folder / "src"))


def signalrcore(folder: Path, plain: str, tls: str) -> bool:
    """All but Azure's, and those that read certificates off the machine."""
    skipped = ["--ignore=test/integration/azure_test.py", "--ignore=test/integration/builder/certificates_test.py"]
    addresses = {"HOST_SIGNALR_HTTP": plain, "HOST_SIGNALR_HTTPS": tls, "PYTHONPATH": str(folder)}
    pattern = ["-o", "python_files=*_test.py", "--timeout=120", "test"]
    return run("signalrcore", folder, *pattern, *skipped, **addresses)


def websockets(folder: Path) -> bool:
    """What tests its `broadcast`, which is replaced by ours before they import it."""
    plugin = (
        "import fanwire, websockets.asyncio.connection, websockets.asyncio.server\n"
        "websockets.asyncio.connection.broadcast = websockets.asyncio.server.broadcast = fanwire.broadcast\n"
    )
    with tempfile.TemporaryDirectory() as room:
        subprocess.run(["cp", "-r", str(folder / "tests"), str(Path(room, "tests"))], check=True)
        Path(room, "conftest.py").write_text(plugin)
        return run("websockets", Path(room), "-k", "broadcast", "tests/asyncio/test_connection.py")


def uvicorn(folder: Path, protocol: str) -> bool:
    """Its tests of WebSockets, with our class in the place of its own one, which they name in four places."""
    module, own = "uvicorn.protocols.websockets.websockets_sansio_impl", "WebSocketsSansIOProtocol"
    with tempfile.TemporaryDirectory() as room:
        tests = Path(room, "tests")
        subprocess.run(["cp", "-r", str(folder / "tests"), str(tests)], check=True)
        fixtures, suite = tests / "conftest.py", tests / "protocols/test_websocket.py"
        fixtures.write_text(fixtures.read_text().replace(f"{module}:{own}", f"fanwire.uvicorn:{protocol}"))
        text = suite.read_text().replace(
            f"from {module} import {own}", f"from fanwire.uvicorn import {protocol} as {own}"
        )
        if protocol == "Sansio":  # what is skipped for its own one by name is skipped for ours
            text = text.replace(f'"{own}"', '"Sansio"')
        suite.write_text(text)
        return run(f"uvicorn, {protocol}", Path(room), "-k", "not wsproto", str(suite))


def main() -> None:
    """All, or those that are named, one after the other."""
    folder, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    runs: dict[str, Callable[[], bool]] = {
        "websockets": lambda: websockets(folder / "websockets"),
        **{name: partial(drop_in, name, folder, run) for name in SUITES},
        **{f"uvicorn, {protocol}": partial(uvicorn, folder / "uvicorn", protocol) for protocol in PROTOCOLS},
    }
    signalr = [name for name in ("pysignalr", "signalrcore") if name in names or not names]
    results = [run_one() for name, run_one in runs.items() if not names or name.partition(",")[0] in names]
    if signalr:
        with served() as (plain, tls):
            if "pysignalr" in signalr:
                results.append(pysignalr(folder / "pysignalr", plain))
            if "signalrcore" in signalr:
                results.append(signalrcore(folder / "signalrcore", plain, tls))
    raise SystemExit(not all(results))


if __name__ == "__main__":
    main()
