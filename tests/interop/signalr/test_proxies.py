"""Stock SignalR clients see the same behind each proxy of deploy/proxies, over every transport."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clients import KINDS, Kind, Mode, missing
from conftest import fanwire_hub
from stage import Hub, play
from support.proxies import KINDS as PROXIES
from support.proxies import proxy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate"),
]
NODE = next(kind for kind in KINDS if kind.name == "node")
MODES = [Mode(NODE, transport, protocols[-1]) for transport, protocols in NODE.transports.items()]


@pytest.fixture(scope="module", params=PROXIES, ids=lambda kind: kind.name)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Kind]]:
    """A hub behind a proxy, and a client that trusts the proxy's certificate."""
    if request.param.program is None:
        pytest.skip(f"there is no {request.param.name}")
    folder: Path = tmp_path_factory.mktemp("behind")
    with fanwire_hub(0) as hub, proxy(request.param, folder, hub.url.removeprefix("http://")) as port:
        trusting = ("env", f"NODE_EXTRA_CA_CERTS={folder}/cert.pem", *NODE.command)
        yield Hub(f"https://127.0.0.1:{port}", hub.token), replace(NODE, command=trusting)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_story_looks_the_same_behind_a_proxy(mode: Mode, target_hub: Hub, behind: tuple[Hub, Kind]) -> None:
    reason = missing(NODE)
    if reason:
        pytest.skip(reason)
    hub, client = behind
    expected = play("scenario", mode, f"{target_hub.url}/live", None)
    got = play("scenario", replace(mode, kind=client), f"{hub.url}/live", None)
    name = "ForwardedFor" if mode.protocol == "messagepack" else "forwardedFor"
    assert got.by_id["object"][0]["value"].pop(name) == "127.0.0.1"
    assert expected.by_id["object"][0]["value"].pop(name) is None
    assert got == expected
