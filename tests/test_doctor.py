"""What ``fanwire doctor`` finds, and what it says is to be done."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fanwire.cli.config import ServeConfig
from fanwire.cli.doctor import Finding, doctor, of_clock, of_machine, of_network, told

NETSTAT = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 {} 9\nIpExt: InNoRoutes\nIpExt: 0\n"


def written(folder: Path, **files: str) -> Path:
    """A root with these files, whose names have two underscores for a slash."""
    for name, text in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def levels(found: Iterator[Finding]) -> dict[str, str]:
    """By what each is about."""
    return {one.about: one.level for one in found}


def test_a_machine_that_is_too_small_is_told_by_each_limit(tmp_path: Path) -> None:
    root = written(
        tmp_path, proc__meminfo="MemTotal: 1024 kB\n", proc__sys__net__core__somaxconn="128", proc__sys__fs__nr_open="9"
    )
    found = {one.about: one for one in of_machine(ServeConfig(), 1_000_000, root)}
    assert found["net.core.somaxconn"].level == "bad"
    assert found["net.core.somaxconn"].found.startswith("too little for 1,000,000 clients: 128: 4,096 connects")
    assert found["memory"].level == "bad" and "million.md" in found["memory"].todo
    well = list(of_machine(ServeConfig(), 0, tmp_path / "nowhere"))
    assert [one.level for one in well] == ["ok", "ok"]


def test_the_network(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        proc__net__netstat=NETSTAT.format(7),
        proc__net__sockstat="sockets: used 9\nTCP: inuse 3 orphan 0 tw 0 alloc 5 mem 950\n",
        proc__sys__net__ipv4__tcp_mem="500 1000 2000\n",
        proc__sys__net__ipv4__tcp_congestion_control="cubic\n",
        proc__sys__net__ipv4__tcp_available_congestion_control="reno cubic\n",
    )
    assert levels(of_network(root)) == {"backlog": "note", "buffers": "note", "congestion control": "ok"}
    lines = "\n".join(told(of_network(root)))
    assert "7 connects found a queue full" in lines and "950 of 1,000 pages" in lines and "modprobe tcp_bbr" in lines
    written(
        tmp_path,
        proc__net__netstat=NETSTAT.format(0),
        proc__net__sockstat="TCP: inuse 3 mem 95\n",
        proc__sys__net__ipv4__tcp_congestion_control="bbr\n",
    )
    assert levels(of_network(root)) == {"backlog": "ok", "buffers": "ok", "congestion control": "ok"}
    assert not any(one.todo for one in of_network(root))
    assert list(of_network(tmp_path / "nowhere")) == []


def test_the_clock(tmp_path: Path) -> None:
    name = "sys__devices__system__clocksource__clocksource0__current_clocksource"
    root = written(tmp_path, **{name: "hpet\n"})
    assert levels(of_clock(root, is_set=False)) == {"clock": "note", "clock source": "note"}
    written(tmp_path, **{name: "tsc\n"})
    assert levels(of_clock(root, is_set=True)) == {"clock": "ok", "clock source": "ok"}
    assert set(levels(of_clock())) <= {"clock", "clock source"}, "of this machine, whatever it is"


class Answers(BaseHTTPRequestHandler):
    """A negotiate is answered with the status that is the path's first part."""

    def do_POST(self) -> None:
        body = b'{"connectionToken":"t","connectionId":"t","negotiateVersion":1,"availableTransports":[]}'
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def backend() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_upstreams_and_the_backbone_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        gone = f"127.0.0.1:{one.getsockname()[1]}"
    file = tmp_path / "fanwire.toml"
    with backend() as address:
        urls = [f"http://{address}/{status}/live?secret=hunter2" for status in (200, 401, 404, 503)]
        relays = [*([url] for url in urls), [f"http://{gone}/live"]]
        text = "".join(
            f'[[relay]]\npath = "/r{index}"\nupstream = {json.dumps(upstream)}\nshare = [{{ subscribe = "S" }}]\n'
            for index, upstream in enumerate(relays)
        )
        plain = f'path = "/w"\nprotocol = "websocket"\nupstream = "ws://{gone}/w"\nshare = [{{ query = ["a"] }}]\n'
        file.write_text(f'{text}[[relay]]\n{plain}[backbone]\nurl = "redis://me:hunter2@{address},{gone}"\n')
        with pytest.raises(SystemExit) as ended:
            doctor(file, clients=0, as_json=True)
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "hunter2" not in said
    found = {one["about"]: (one["level"], one["found"]) for one in json.loads(said)}
    assert found[f"upstream http://{address}/200/live"] == ("ok", "takes connections")
    assert found[f"upstream http://{address}/401/live"][0] == "note"
    assert found[f"upstream http://{address}/404/live"] == ("bad", "it answered with status 404")
    assert found[f"upstream http://{address}/503/live"] == ("bad", "it answered with status 503")
    assert found[f"upstream http://{gone}/live"][0] == "bad"
    assert found[f"upstream ws://{gone}/w"][0] == "bad"
    assert "refused" in found[f"upstream http://{gone}/live"][1]
    assert found[f"backbone {address}"] == ("ok", "takes connections")
    assert found[f"backbone {gone}"] == ("bad", "Connection refused")


def test_the_command_tells_in_lines_and_by_its_status(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "fanwire", "doctor", "--clients", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("ok    descriptors: ")
    (tmp_path / "fanwire.toml").write_text("[[relay]]\n")
    wrong = [*command, str(tmp_path / "fanwire.toml")]
    assert subprocess.run(wrong, capture_output=True, timeout=100, check=False).returncode == 1
