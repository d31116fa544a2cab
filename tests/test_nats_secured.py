"""A NATS server that wants TLS, and one that knows its users by keys: real servers, hubs of each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import anyio
import fanwire
import pytest
from support.backbones import published, told, two_hubs, watching
from support.certificates import authority, signed_by
from support.nats import Nats, needs_nats
from support.nkeys import Key, Operator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), needs_nats]

CHANNELS = {"odds": fanwire.Channel(history=100)}


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is tried is elsewhere."""
    return "asyncio"


class Secured(Nats):
    """One that talks to nobody whom it does not know, so its log says that it is ready."""

    def _answers(self) -> bool:
        log = self._folder / "nats.log"
        return log.exists() and "Server is ready" in log.read_text()


@contextmanager
def secured(folder: Path, more: str) -> Iterator[Secured]:
    """One, for as long as the context lasts."""
    one = Secured(folder, more)
    try:
        yield one
    finally:
        one.kill()


async def why_not(url: str, says: str) -> None:
    """A hub is told why the server is out of its reach."""
    hub = fanwire.Hub(CHANNELS, backbone=url, backbone_on_down="fail")
    async with hub.serve("127.0.0.1:0"):
        with anyio.fail_after(30), pytest.raises(RuntimeError, match=says):
            while True:
                await hub.publish("odds", 1)


async def two_are_one(url: str) -> None:
    """What one hub publishes the other's clients get, also what they missed."""
    async with two_hubs(url, CHANNELS) as (hubs, addresses), watching(addresses[1]) as peer:
        first = await published(hubs[0], "odds", 1)
        assert await told(peer, 1) == [1]
        await published(hubs[1], "odds", 2)
        async with watching(addresses[0], query="?envelope=1", since={"odds": [*first]}) as late:
            assert [message["data"] for message in await told(late, 1)] == [2]


async def test_over_tls_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = authority(tmp_path)
    signed_by(roots)
    more = f'tls {{ cert_file: "{tmp_path}/localhost.pem", key_file: "{tmp_path}/localhost.key" }}'
    with secured(tmp_path, more) as nats:
        await why_not(nats.url, "out of reach.*wants TLS: its URL begins with tls://")
        await why_not(f"tls://localhost:{nats.port}", "out of reach.*(certificate|UnknownIssuer)")
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        await why_not(f"tls://127.0.0.1:{nats.port}", "out of reach.*(certificate|NotValidForName)")
        await two_are_one(f"tls://localhost:{nats.port}")


async def test_a_user_is_known_by_a_key(tmp_path: Path) -> None:
    key, seed = Key("user"), tmp_path / "app seed.nk"
    seed.write_text(key.seed + "\n")
    with secured(tmp_path, f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as nats:
        await two_are_one(f"{nats.url}?credentials={quote(str(seed))}")
        await why_not(nats.url, "out of reach.*Authorization Violation")
        seed.write_text(Key("user").seed)
        await why_not(f"{nats.url}?credentials={quote(str(seed))}", "out of reach.*Authorization Violation")
        seed.write_text(Key("account").seed)
        await why_not(f"{nats.url}?credentials={quote(str(seed))}", "out of reach.*credentials in .*no user's seed")


async def test_a_user_is_known_by_what_an_account_signed(tmp_path: Path) -> None:
    operator, file = Operator(), tmp_path / "app.creds"
    operator.credentials(file)
    with secured(tmp_path, operator.config) as nats:
        await two_are_one(f"{nats.url}?credentials={quote(str(file))}")
        operator.credentials(file, signer=Key("account"))
        await why_not(f"{nats.url}?credentials={quote(str(file))}", "out of reach.*Authorization Violation")
        await why_not(f"{nats.url}?credentials={tmp_path}/none.creds", "out of reach.*none.creds: No such file")


async def test_no_error_shows_a_seed_or_a_jwt(tmp_path: Path) -> None:
    operator, file = Operator(), tmp_path / "app.creds"
    text = operator.credentials(file, signer=Key("account")).read_text()
    with secured(tmp_path, operator.config) as nats:
        hub = fanwire.Hub(CHANNELS, backbone=f"{nats.url}?credentials={quote(str(file))}", backbone_on_down="fail")
        async with hub.serve("127.0.0.1:0"):
            with anyio.fail_after(30), pytest.raises(RuntimeError) as raised:
                while True:
                    await hub.publish("odds", 1)
        secrets = re.findall(r"(?m)^(?:SU|eyJ)\S+$", text)
        assert len(secrets) == 2 and not any(one in str(raised.value) for one in secrets)
