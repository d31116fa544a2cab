"""A relay over machines: one connection to the backend for each thing watched, whichever machines have clients."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fanwire
import pytest
from fanwire.cli.check import check
from fanwire.relay.config import Lanes, RelayConfig
from support.nats import nats_server, needs_nats
from support.redis import Redis, needs_redis
from support.scripted_backend import ScriptedBackend
from support.several import Client, Workers, several
from support.waiting import until_in_thread
from test_workers_relay import (
    assert_all_get,
    assert_four_matches_are_five_connections,
    feed,
    needs_origin,
    odds,
    plain_feed,
    real_hub,
    relay,
    until_one_is_open,
    until_one_watches,
    watching,
    watching_feed,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
WORKERS = 2
SHARED = {"machines": "shared"}


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    """A hub that answers who watches with a snapshot."""
    with ScriptedBackend() as backend:
        yield backend


class Machines:
    """Programs that are one hub, with this relay."""

    def __init__(self, stack: ExitStack, relay: dict[str, Any], url: str) -> None:
        self._stack, self._relay, self._url = stack, relay, url

    def start(self) -> Workers:
        """One more."""
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="fw")))
        running = self._stack.enter_context(several(folder, WORKERS, self._relay, backbone=self._url))
        assert running.address
        return running

    def two(self) -> tuple[Workers, Workers]:
        """Two that know each other."""
        first, second = self.start(), self.start()
        for one in (first, second):
            until_in_thread(lambda one=one: one.have_met(WORKERS, 2 * WORKERS))  # type: ignore[misc]
        return first, second


@pytest.fixture
def machines(backend: ScriptedBackend, redis: Redis) -> Iterator[Machines]:
    with ExitStack() as stack:
        yield Machines(stack, relay(backend, lanes=SHARED), redis.url)


def holds(running: Workers) -> bool:
    """Whether a worker of this machine holds the only lane."""
    return any(lane["state"] == "live" for _, lanes in running.stands(WORKERS).values() for lane in lanes)


def holder(running: tuple[Workers, Workers]) -> int:
    """Which of two machines it is, once it is one."""
    found: list[bool] = []

    def is_one() -> bool:
        found[:] = [holds(one) for one in running]
        return sum(found) == 1

    until_in_thread(is_one)
    return found.index(True)


def watched(machines: Machines) -> tuple[Workers, list[Client], list[Client]]:
    """Two machines: the one that holds the lane, its clients, and those of the other."""
    running = machines.two()
    clients = [one.in_all(WORKERS, lambda one=one: watching(one)) for one in running]  # type: ignore[misc]
    at = holder(running)
    return running[at], clients[at], clients[1 - at]


def processes_of(running: Workers) -> list[int]:
    """A machine's supervisor, which would replace the others, and its workers."""
    return [running.process.pid, *(process for process, _ in running.stands(WORKERS).values())]


def assert_held_once_for_both(machines: Machines, backend: ScriptedBackend) -> None:
    """From the first client to the last."""
    first, second = machines.two()
    clients = first.in_all(WORKERS, lambda: watching(first))
    odds(backend, *range(50))
    assert_all_get(clients, list(range(50)))
    late = second.in_all(WORKERS, lambda: watching(second))
    assert len(backend.watching("m")) == 1 and holder((first, second)) in (0, 1)
    assert_all_get(late, list(range(50)))
    odds(backend, *range(50, 100))
    assert_all_get([*clients, *late], list(range(100)))
    for client in clients:
        client.end()
    odds(backend, 100)
    assert_all_get(late, list(range(101)))
    assert len(backend.watching("m")) == 1
    for client in late:
        client.end()
    until_in_thread(lambda: not backend.watching("m"))


@needs_redis
def test_a_lane_is_held_once_for_all_machines_and_let_go_when_nobody_watches(
    machines: Machines, backend: ScriptedBackend
) -> None:
    assert_held_once_for_both(machines, backend)


@needs_nats
def test_a_lane_is_held_once_over_nats(tmp_path: Path, backend: ScriptedBackend) -> None:
    with nats_server(tmp_path) as nats, ExitStack() as stack:
        assert_held_once_for_both(Machines(stack, relay(backend, lanes=SHARED), nats.url), backend)


@needs_nats
def test_a_mirror_begins_with_more_than_the_server_takes_at_once(tmp_path: Path, backend: ScriptedBackend) -> None:
    lanes = {**SHARED, "snapshot_bytes_max": 1 << 20}
    with nats_server(tmp_path, "max_payload: 65536") as nats, ExitStack() as stack:
        running = Machines(stack, relay(backend, lanes=lanes), nats.url).two()
        client = watching(running[0])
        at = holder(running)
        client.end()
        until_in_thread(lambda: not backend.watching("m"))
        own = watching(running[at])  # and no other machine has what comes now
        assert holder(running) == at
        other = running[1 - at]
        odds(backend, *range(50), more="x" * 4_000)
        assert_all_get([own], list(range(50)))
        assert_all_get(other.in_all(WORKERS, lambda: watching(other)), list(range(50)))


@needs_redis
@pytest.mark.parametrize("kind", ["query", "message"])
def test_a_plain_backend_has_one_connection_for_all_machines(redis: Redis, kind: str) -> None:
    with plain_feed(kind) as (open_now, options), ExitStack() as stack:
        shared = {**options, "lanes": {**options["lanes"], **SHARED}}
        running = Machines(stack, shared, redis.url).two()
        clients = [one.in_all(WORKERS, lambda one=one: watching_feed(one, kind)) for one in running]  # type: ignore[misc]
        assert len(open_now) == 1
        feed(open_now, *range(10))
        assert_all_get([client for of_one in clients for client in of_one], list(range(10)))
        at, before = holder(running), set(open_now)
        stay = clients[1 - at]
        for process in processes_of(running[at]):
            os.kill(process, signal.SIGKILL)
        until_in_thread(lambda: all(any("gap" in one for one in client.messages) for client in stay))
        until_one_is_open(open_now, before)
        feed(open_now, 10)
        assert_all_get(stay, list(range(11)))


@needs_redis
@needs_origin
def test_a_real_hub_has_one_connection_for_each_match(redis: Redis) -> None:
    with real_hub(**SHARED) as (url, options), ExitStack() as stack:
        running = Machines(stack, options, redis.url).two()
        assert_four_matches_are_five_connections(url, [one.client() for one in running for _ in range(8)])


def until_all_have_the_newest(backend: ScriptedBackend, clients: list[Client], number: int) -> int:
    """Publish from this number on until each client has the last; gives that. Machines may still be about to meet."""
    for last in range(number, number + 20):
        odds(backend, last)
        with suppress(TimeoutError):
            until_in_thread(lambda last=last: all(client.of("Odds")[-1:] == [last] for client in clients), 2)  # type: ignore[misc]
            return last
    raise AssertionError([client.of("Odds") for client in clients])


def assert_nothing_was_missed(clients: list[Client], last: int) -> None:
    """They watch where the lane was held all the time."""
    for client in clients:
        assert client.of("Odds") == list(range(1, last + 1)), client.messages
        assert client.of("Snapshot") == ["m"] and not client.of("fanwire:gap")


def assert_all_is_told(clients: list[Client], gaps: int) -> None:
    """Each was told of so many gaps at least, got a snapshot behind each, and nothing twice."""
    for client in clients:
        numbers, told = client.of("Odds"), client.of("fanwire:gap")
        assert numbers == sorted(set(numbers)) and len(told) >= gaps, client.messages
        assert client.of("Snapshot") == ["m"] * (1 + len(told))


@needs_redis
def test_a_machine_that_holds_is_killed_and_another_takes_over(machines: Machines, backend: ScriptedBackend) -> None:
    holding, _, stay = watched(machines)
    odds(backend, 1, 2)
    assert_all_get(stay, [1, 2])
    before = backend.watching("m")
    for process in processes_of(holding):
        os.kill(process, signal.SIGKILL)
    until_in_thread(lambda: all(client.of("fanwire:gap") for client in stay))
    until_one_watches(backend, before)
    odds(backend, 3)
    assert_all_get(stay, [1, 2, 3])
    assert_all_is_told(stay, 1)


@needs_redis
def test_a_machine_that_stood_still_has_held_it_for_longer_and_goes_on(
    machines: Machines, backend: ScriptedBackend
) -> None:
    holding, own, stay = watched(machines)
    odds(backend, 1)
    assert_all_get(stay, [1])
    processes = processes_of(holding)
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        until_in_thread(lambda: all(client.of("fanwire:gap") for client in stay))
        until_in_thread(lambda: len(backend.watching("m")) == 2)
        last = until_all_have_the_newest(backend, stay, 2)
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    until_in_thread(lambda: all(len(client.of("fanwire:gap")) > 1 for client in stay))
    until_in_thread(lambda: len(backend.watching("m")) == 1)
    last = until_all_have_the_newest(backend, [*own, *stay], last + 1)
    assert_nothing_was_missed(own, last)
    assert_all_is_told(stay, 2)


@needs_redis
def test_without_the_backbone_each_machine_holds_its_own_and_behind_it_one_for_all(
    machines: Machines, backend: ScriptedBackend, redis: Redis
) -> None:
    _, own, others = watched(machines)
    odds(backend, 1)
    assert_all_get([*own, *others], [1])
    redis.kill()
    until_in_thread(lambda: all(client.of("fanwire:gap") for client in others))
    until_in_thread(lambda: len(backend.watching("m")) == 2)
    last = until_all_have_the_newest(backend, [*own, *others], 2)
    redis.start()
    until_in_thread(lambda: all(len(client.of("fanwire:gap")) > 1 for client in others))
    until_in_thread(lambda: len(backend.watching("m")) == 1)
    last = until_all_have_the_newest(backend, [*own, *others], last + 1)
    assert_nothing_was_missed(own, last)
    assert_all_is_told(others, 2)


def test_lanes_that_machines_share_need_a_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RelayConfig(path="/live", upstream=("http://127.0.0.1:1/live",), lanes=Lanes(machines="shared"))
    with pytest.raises(fanwire.ConfigError, match=r"lanes\.machines of the relay at /live.*there is no backbone"):
        fanwire.Hub().relay(config)
    fanwire.Hub(backbone="redis://127.0.0.1:1").relay(config)
    file = tmp_path / "fanwire.toml"
    text = '[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:1/live"\nlanes.machines = "shared"\n'
    file.write_text(text)
    with pytest.raises(SystemExit):
        check(file)
    said = capsys.readouterr().err
    assert "lanes.machines" in said and "there is no backbone" in said
    file.write_text(f'{text}[backbone]\nurl = "redis://127.0.0.1:1"\n')
    check(file)
