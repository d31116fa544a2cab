"""A backbone that is away, late, or not as it should be: real hubs, a real Redis, and a way there that can be shut."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import fanwire
import pytest
from anyio.abc import SocketStream
from support.backbones import published, told, watching
from support.certificates import authority, signed_by
from support.clients import connected
from support.raw import free_port
from support.redis import PORTS, Redis, needs_redis, redis_server
from support.ways import way
from test_backbone import CHANNELS, hub_at

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


class Gate:
    """A way to the server. What it publishes can be held up."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = ""
        self._is_open = anyio.Event()
        self._is_open.set()

    def shut(self) -> None:
        """Nothing of what is published comes through."""
        self._is_open = anyio.Event()

    def open(self) -> None:
        """What was held up comes."""
        self._is_open.set()

    async def pass_on(self, client: SocketStream) -> None:
        """One connection, both ways."""
        subscribes = False

        async def there(server: SocketStream) -> None:
            nonlocal subscribes
            async for data in client:
                subscribes = subscribes or b"SUBSCRIBE" in data
                await server.send(data)
            await server.aclose()

        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", self._port) as server,
            anyio.create_task_group() as both,
        ):
            both.start_soon(there, server)
            async for data in server:
                if subscribes:
                    await self._is_open.wait()
                await client.send(data)
            both.cancel_scope.cancel()


@asynccontextmanager
async def gate_to(redis: Redis) -> AsyncIterator[Gate]:
    """One that is open."""
    gate = Gate(redis.port)
    async with way(gate.pass_on) as address:
        gate.url = f"redis://{address}"
        yield gate


async def asked(address: str, path: str) -> tuple[int, str]:
    """The answer to a GET: status and body."""
    async with await anyio.connect_tcp("127.0.0.1", int(address.rpartition(":")[2])) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join([part async for part in stream])
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


async def answers(address: str, path: str, status: int, says: str) -> None:
    """Wait until it answers so."""
    with anyio.fail_after(60):
        while (found := await asked(address, path))[0] != status or not re.search(says, found[1], re.MULTILINE):
            with anyio.move_on_after(0.05):
                await anyio.Event().wait()


@needs_redis
async def test_who_is_ahead_of_the_machine_waits_for_what_the_server_has(redis: Redis) -> None:
    """What it missed was there, and it was told that it was lost."""
    async with gate_to(redis) as gate:
        here, there = hub_at(redis), fanwire.Hub(CHANNELS, backbone=gate.url)
        async with here.serve("127.0.0.1:0"), there.serve("127.0.0.1:0") as late, watching(late.address) as peer:
            first = await published(here, "odds", 1)
            assert await told(peer, 1) == [1]
            gate.shut()
            second = await published(here, "odds", 2)
            await published(here, "odds", 3)
            async with connected(late.address, "/ws?envelope=1") as comes:
                await comes.send_json(subscribe=["odds"], id=1, since={"odds": [*second]})
                answer, message = await comes.receive_json(), await comes.receive_json()
                assert answer["result"]["subscribed"] == ["odds"] and first < second
                assert message["data"] == 3
            gate.open()
            assert await told(peer, 2) == [2, 3]


@needs_redis
@pytest.mark.parametrize("is_authenticated", [False, True])
async def test_who_names_channels_in_the_url_misses_nothing_from_the_answer_on(
    redis: Redis, is_authenticated: bool
) -> None:
    """As who subscribes with a message: the channel is subscribed at the server before the upgrade is answered."""
    other = hub_at(redis)
    async with other.serve("127.0.0.1:0"):
        for number in range(8):
            hub = fanwire.Hub(backbone=redis.url)
            if is_authenticated:
                hub.authenticate(lambda request: fanwire.Identity("ann"))
            async with (
                hub.serve("127.0.0.1:0") as serving,
                connected(serving.address, f"/ws?channel=c{number}") as peer,
            ):
                await published(other, f"c{number}", number)
                assert await told(peer, 1) == [number]


async def test_over_the_bound_a_publication_fails_at_once_and_the_bound_is_named() -> None:
    """It was told in its turn, behind those that wait for the server."""
    hub = fanwire.Hub(backbone=NOWHERE)
    async with hub.serve("127.0.0.1:0"):
        text = "x" * 1_000_000
        with anyio.fail_after(30), pytest.raises(RuntimeError, match="over the bound of 16777216"):
            waiting = [hub.publish("odds", text) for _ in range(17)]
            await waiting[-1]
        with pytest.raises(LookupError):
            _ = waiting[0].position


async def test_publications_fail_at_once_where_they_are_to() -> None:
    hub = fanwire.Hub(backbone=NOWHERE, backbone_on_down="fail")
    async with hub.serve("127.0.0.1:0") as serving:
        with anyio.fail_after(30), pytest.raises(RuntimeError, match=r"out of reach.*refused"):
            await hub.publish("odds", 1)
        await answers(serving.address, "/readyz", 503, "backbone: it is out of reach")


@needs_redis
async def test_a_machine_goes_on_by_itself_and_comes_back(redis: Redis) -> None:
    here, there = (hub_at(redis, backbone_on_down="local") for _ in range(2))
    async with (
        here.serve("127.0.0.1:0") as one,
        there.serve("127.0.0.1:0") as other,
        watching(one.address, query="?envelope=1") as peer,
        watching(other.address) as elsewhere,
    ):
        before = await published(here, "odds", 1)
        first = await told(peer, 1)  # a server that is killed at once may have told one machine, and not yet the other
        assert await told(elsewhere, 1) == [1]
        redis.kill()
        await answers(one.address, "/metrics", 200, r"^fanwire_backbone_up\S* 0\.0$")
        own = await published(here, "odds", 2)
        assert (own.epoch < 2**50, own.offset) == (True, 1)
        assert (await asked(one.address, "/readyz"))[0] == 200
        redis.start()
        await answers(one.address, "/metrics", 200, r"^fanwire_backbone_up\S* 1\.0$")
        after = await published(here, "odds", 3)
        assert after.epoch == before.epoch
        seen = [(message["data"], message["position"]) for message in first + await told(peer, 2)]
        assert seen == [(1, [*before]), (2, [*own]), (3, [*after])]
        assert await told(elsewhere, 1) == [3]
        async with watching(one.address, query="?envelope=1", since={"odds": [*own]}) as back:
            assert [message["data"] for message in await told(back, 1)] == [3]


@needs_redis
async def test_a_machine_that_began_by_itself_goes_on_in_the_first_epoch_of_the_backbone(redis: Redis) -> None:
    here, there = (hub_at(redis, backbone_on_down="local") for _ in range(2))
    async with (
        here.serve("127.0.0.1:0") as one,
        there.serve("127.0.0.1:0") as other,
        watching(one.address) as peer,
    ):
        redis.kill()
        await answers(one.address, "/metrics", 200, r"^fanwire_backbone_up\S* 0\.0$")
        assert (await published(here, "odds", 1)).epoch < 2**50
        redis.start()
        await answers(other.address, "/metrics", 200, r"^fanwire_backbone_up\S* 1\.0$")
        first = await published(there, "odds", 2)  # before that machine is back, or after
        await answers(one.address, "/metrics", 200, r"^fanwire_backbone_up\S* 1\.0$")
        assert [*await published(here, "odds", 3)] == [first.epoch, first.offset + 1]
        assert await told(peer, 3) == [1, 2, 3]


async def test_readyz_and_metrics_say_that_it_is_away() -> None:
    hub = fanwire.Hub(backbone=NOWHERE)
    async with hub.serve("127.0.0.1:0") as serving:
        await answers(serving.address, "/readyz", 503, "backbone: it is out of reach, and .*refused")
        await answers(serving.address, "/metrics", 200, r"^fanwire_backbone_downs_total 1\.0$")


@needs_redis
async def test_a_stream_that_somebody_deletes_is_a_gap_that_is_told(redis: Redis) -> None:
    async with gate_to(redis) as gate:
        here, there = hub_at(redis), fanwire.Hub(CHANNELS, backbone=gate.url)
        async with here.serve("127.0.0.1:0"), there.serve("127.0.0.1:0") as late, watching(late.address) as peer:
            await published(here, "odds", 1)
            assert await told(peer, 1) == [1]
            gate.shut()
            redis.do("CLIENT", "KILL", "TYPE", "pubsub")
            await published(here, "odds", 2)
            for key in re.findall(rb"fanwire\S*", redis.do("KEYS", "fanwire*")):
                if redis.do("TYPE", key.decode()).startswith(b"+stream"):
                    redis.do("DEL", key.decode())
            gate.open()
            await published(here, "odds", 3)
            assert await peer.closed() == (1013, "publications are missing in channel odds")


@needs_redis
async def test_over_tls_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = authority(tmp_path)
    signed_by(roots)
    files = (
        ("--tls-cert-file", "localhost.pem"),
        ("--tls-key-file", "localhost.key"),
        ("--tls-ca-cert-file", "ca.pem"),
    )
    options = [word for option, name in files for word in (option, str(tmp_path / name))]
    port = free_port(PORTS)
    with redis_server(tmp_path, "--tls-port", str(port), "--tls-auth-clients", "no", *options):
        url = f"rediss://localhost:{port}"
        strange = fanwire.Hub(backbone=url, backbone_on_down="fail")
        async with strange.serve("127.0.0.1:0"):
            with anyio.fail_after(30), pytest.raises(RuntimeError, match=r"out of reach.*(certificate|UnknownIssuer)"):
                while True:
                    await strange.publish("odds", 1)
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        hub = fanwire.Hub(backbone=url.replace("rediss", "valkeys"))
        async with hub.serve("127.0.0.1:0") as serving, watching(serving.address) as peer:
            await published(hub, "odds", 1)
            assert await told(peer, 1) == [1]


@needs_redis
async def test_the_command_serves_over_a_backbone_with_one_link_for_all_its_workers(
    redis: Redis, tmp_path: Path
) -> None:
    settings = tmp_path / "fanwire.toml"
    settings.write_text(
        "[listen]\naddress = '127.0.0.1:0'\nworkers = 2\n[backbone]\nprefix = 'own'\n"
        "[[relay]]\npath = '/live'\nupstream = 'http://127.0.0.1:9/live'\nready = 'ignore'\n"
    )
    environment = {
        **os.environ,
        "FANWIRE_BACKBONE__URL": redis.url,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-W", "ignore", "-m", "fanwire", "serve", str(settings)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = await anyio.to_thread.run_sync(address_in, process.stderr)
            hub = hub_at(redis, backbone_prefix="own")
            async with hub.serve("127.0.0.1:0"):
                for number in range(4):  # whichever worker has it
                    async with connected(address, f"/ws?channel=c{number}") as peer:
                        await published(hub, f"c{number}", number)
                        assert await told(peer, 1) == [number]
                clients = redis.do("CLIENT", "LIST", "TYPE", "pubsub").count(b" addr=")
                assert clients == 2, "one of the command's, one of this hub's"
            redis.kill()
            for worker in (0, 1):
                await answers(address, "/metrics", 200, rf'^fanwire_backbone_up\{{worker="{worker}"\}} 0\.0$')
            await answers(address, "/metrics", 200, r"^fanwire_backbone_downs_total 1\.0$")
        finally:
            process.terminate()


def address_in(lines: Any) -> str:
    """Where it serves, as its log says."""
    for line in lines:
        if found := re.search(r"127\.0\.0\.1:\d\d+", line):
            return found[0]
    raise AssertionError("it has ended")
