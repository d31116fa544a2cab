"""A real PostgreSQL server with a folder of its own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
INITDB = shutil.which("initdb") or next((str(one / "initdb") for one in FOLDERS if (one / "initdb").is_file()), None)

needs_postgres = pytest.mark.skipif(INITDB is None, reason="there is no PostgreSQL server")


class Postgres:
    """One that listens on a Unix socket in its folder."""

    def __init__(self, folder: Path) -> None:
        assert INITDB is not None
        self.folder, self._bin = folder, Path(INITDB).resolve().parent
        # It refuses to run as root.
        user = "postgres" if os.getuid() == 0 else None
        self._as = {"user": user} if user else {}
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        command = [INITDB, "-D", str(folder / "data"), "-U", "fanwire", "-A", "trust", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._as)  # type: ignore[call-overload]
        self.process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql:///postgres?host={self.folder}&user=fanwire"

    def start(self) -> None:
        """Have it run; returns when it answers."""
        options = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", "", "-F"]
        with (self.folder / "log").open("ab") as log:
            command = [str(self._bin / "postgres"), *options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._as)  # type: ignore[call-overload]
        ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self.folder)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError((self.folder / "log").read_text())

    def kill(self) -> None:
        """As a crash: it recovers when it is started again."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """One, for as long as the context lasts. A socket's path is short, so its folder is not the test's."""
    folder = Path(tempfile.mkdtemp(prefix="fanwire-pg-"))
    try:
        one = Postgres(folder)
        try:
            yield one
        finally:
            one.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
