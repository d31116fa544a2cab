"""What ``fanwire check`` says of the machine: what its descriptors hold, and what is too small for so many clients."""

import resource
import subprocess
import sys
from math import inf
from pathlib import Path

from fanwire.cli.machine import CLIENT_BYTES, MachineLimits, holds, lacks, this_machine

BIG = MachineLimits(
    nofile=1_048_576,
    nr_open=1_048_576,
    file_max=9_223_372_036_854_775_807,
    somaxconn=4_096,
    epoll_watches=50_000_000,
    memory_bytes=256 << 30,
)
HERE = MachineLimits(
    nofile=20_000,
    nr_open=1_048_576,
    file_max=2_466_165,
    somaxconn=4_096,
    epoll_watches=5_491_489,
    conntrack_max=262_144,
    memory_bytes=23 << 30,
)
RELAY = """
[[relay]]
path = "/live"
upstream = "http://127.0.0.1:5000/live"
[[relay.share]]
subscribe = "Subscribe"
"""


def short(machine: MachineLimits, clients: int, workers: int = 4, spare: int = 0, backlog: int = 4_096) -> list[str]:
    """What it lacks."""
    return list(lacks(machine, clients, workers, spare, backlog))


def test_what_descriptors_allow() -> None:
    assert holds(HERE, 4, 0) == "20,000 descriptors a process: 4 workers can hold about 79,000 clients"
    assert holds(HERE, 0, 0) == "20,000 descriptors a process: one process can hold about 19,000 clients"
    assert holds(HERE, 1, 256) == "20,000 descriptors a process: 1 worker can hold about 19,000 clients"
    assert holds(MachineLimits(nofile=1_024), 0, 256) == "1,024 descriptors a process: one process can hold 704 clients"
    assert holds(MachineLimits(nofile=40), 2, 256) == "40 descriptors a process: 2 workers can hold 0 clients"
    assert holds(MachineLimits(), 4, 0) == "descriptors: as many as there are clients"


def test_a_machine_that_is_big_enough_lacks_nothing() -> None:
    assert short(BIG, 1_000_000, workers=4) == []
    assert short(MachineLimits(), 10**9) == []


def test_descriptors_are_had_by_more_workers_or_a_higher_limit() -> None:
    assert short(HERE, 100_000) == [
        "descriptors: 6 workers, or a limit of 25,064 a process (LimitNOFILE=, ulimit -Hn)",
    ]
    assert short(BIG, 1_000_000, workers=0) == []
    # More than one process may have at all, by the kernel; more than there can be workers of 1,024.
    assert short(BIG, 1_048_576, workers=0)[0].endswith(
        "a process (LimitNOFILE=, ulimit -Hn), and fs.nr_open, which is 1,048,576"
    )
    assert short(MachineLimits(nofile=1_024), 1_000_000)[0].startswith("descriptors: a limit of 250,064 a process")
    assert short(MachineLimits(nofile=40), 100, spare=256)[0].startswith("descriptors: a limit of 345 a process")


def test_each_limit_is_named_with_what_is_needed() -> None:
    small = MachineLimits(
        nofile=20_000, file_max=100_000, somaxconn=128, epoll_watches=90_000, conntrack_max=65_536, memory_bytes=1 << 30
    )
    assert short(small, 1_000_000, workers=55) == [
        "fs.file-max is 100,000: 1,010,000 open files of the machine",
        "fs.epoll.max_user_watches is 90,000: 1,010,000 sockets that a user waits for",
        "net.netfilter.nf_conntrack_max is 65,536: 1,250,000 connections that are tracked",
        "net.core.somaxconn is 128: 4,096 connects that wait, which `backlog` asks for",
        "memory: about 5.5 GiB while all are idle; 1.0 are there",
    ]


def test_it_is_read_from_proc(tmp_path: Path) -> None:
    for name, text in {
        "proc/sys/fs/nr_open": "1048576\n",
        "proc/sys/fs/file-max": "9223372036854775807\n",
        "proc/sys/net/core/somaxconn": "128\n",
        "proc/sys/fs/epoll/max_user_watches": "90000\n",
        "proc/sys/net/netfilter/nf_conntrack_max": "262144\n",
        "proc/sys/net/netfilter/nf_conntrack_count": "17\n",
        "proc/meminfo": "MemTotal:       24117248 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "1:name=systemd:/\n0::/system.slice/fanwire.service\n",
        "sys/fs/cgroup/system.slice/fanwire.service/memory.max": "8589934592\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    nofile = inf if hard == resource.RLIM_INFINITY else hard
    expected = MachineLimits(nofile, 1_048_576, 9_223_372_036_854_775_807, 128, 90_000, 262_144, 8 << 30)
    assert this_machine(tmp_path) == expected
    (tmp_path / "proc/sys/net/netfilter/nf_conntrack_count").write_text("0\n")
    (tmp_path / "sys/fs/cgroup/system.slice/fanwire.service/memory.max").write_text("max\n")
    assert this_machine(tmp_path).conntrack_max == inf
    assert this_machine(tmp_path).memory_bytes == 24_117_248 * 1_024
    assert this_machine(tmp_path / "nowhere") == MachineLimits(nofile)


def test_the_command_says_it_and_exits_with_1_where_something_is_lacking(tmp_path: Path) -> None:
    (tmp_path / "fanwire.toml").write_text(RELAY)
    program = "import resource, runpy, sys; sys.argv = sys.argv[1:]; "
    program += (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000)); runpy.run_module('fanwire', run_name='__main__')"
    )

    def told(*arguments: str) -> tuple[int, list[str], list[str]]:
        command = [sys.executable, "-W", "ignore", "-c", program, "fanwire", "check", "fanwire.toml", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    status, lines, errors = told()
    assert (status, lines[-1], errors) == (0, "  1,000 descriptors a process: one process can hold 686 clients", [])
    status, lines, errors = told("--clients", "600")
    assert (status, lines[-1], errors) == (0, "  this machine's limits allow 600 clients", [])
    status, lines, errors = told("--workers", "2", "--clients", "700")
    assert (status, errors) == (0, [])
    assert lines[-2] == "  1,000 descriptors a process: 2 workers can hold 1,372 clients"
    status, _, errors = told("--clients", "700")
    assert status == 1
    assert errors[:2] == [
        "for 700 clients this machine lacks:",
        "  descriptors: 2 workers, or a limit of 1,020 a process (LimitNOFILE=, ulimit -Hn)",
    ]
    assert told("--clients", "-1")[0] != 0


def test_a_client_is_taken_for_as_much_as_was_measured() -> None:
    assert CLIENT_BYTES > 4 * 1_024


def test_the_settings_that_are_shipped_are_the_kernel_s() -> None:
    """What is of another namespace may be missing here."""
    file = Path(__file__).parents[1] / "deploy/sysctl/90-fanwire.conf"
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    settings = dict(map(str.strip, line.split("=")) for line in lines)
    for name, value in settings.items():
        assert name.startswith(("fs.", "net.")), name
        now = Path("/proc/sys", name.replace(".", "/"))
        if now.exists():
            assert len(now.read_text().split()) == len(value.split()), name
    megabytes = int(settings["net.ipv4.tcp_mem"].split()[0]) >> 8
    assert megabytes == 4_096  # as the file's comment has it
