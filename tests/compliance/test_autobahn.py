"""The Autobahn test suite (its fuzzing client): RFC 6455 in some three hundred cases, RFC 7692 in two hundred more.

The verdicts are committed in expected-results.json and compared, better or worse; a deviation has a sentence there.
"""

import json
import os
from pathlib import Path

import anyio
import fanwire
import pytest
from support.deflating import COMPRESSES
from support.uvicorns import echo, served

TOOL = Path(os.environ.get("WSTEST", Path(__file__).parents[3] / "shared/tools/autobahn/wstest"))
EXPECTED = Path(__file__).with_name("expected-results.json")
AGENT = "fanwire"
MESSAGE_BYTES_MAX = 32 << 20
"""9.* sends messages of 16 MiB."""

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("anyio_backend", [pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]),
    pytest.mark.skipif(not TOOL.is_file(), reason=f"no Autobahn test suite at {TOOL}; name its wstest in WSTEST"),
]


async def different(address: str, cases: list[str], folder: Path, target: str = "/") -> dict[str, list[str]]:
    """The verdicts on an echo server at `target` that are not as expected."""
    specification = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": AGENT, "url": f"ws://{address}{target}"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = anyio.Path(folder / "fuzzingclient.json")
    await path.write_text(json.dumps(specification))
    done = await anyio.run_process([str(TOOL), "-m", "fuzzingclient", "-s", str(path)], check=False)
    index = folder / "reports" / "index.json"
    assert index.is_file(), done.stdout.decode()[-2_000:] + done.stderr.decode()[-2_000:]
    verdicts = json.loads(index.read_text())[AGENT]
    assert len(verdicts) >= len(cases)
    expected = json.loads(EXPECTED.read_text())
    excused = {case: verdict[:2] for case, verdict in expected["deviations"].items()}
    found = {case: [verdict["behavior"], verdict["behaviorClose"]] for case, verdict in verdicts.items()}
    return {case: verdict for case, verdict in found.items() if verdict != excused.get(case, expected["default"])}


async def test_all_verdicts_are_as_expected(poller: str, tmp_path: Path) -> None:
    # The echo needs as much room on the way back.
    hub = fanwire.Hub(
        poller=poller,
        message_bytes_max=MESSAGE_BYTES_MAX,
        outbox_bytes_max=2 * MESSAGE_BYTES_MAX,
        publication_bytes_max=MESSAGE_BYTES_MAX,
    )
    hub.on_message(lambda client, data: client.send(data))
    async with hub.serve("127.0.0.1:0") as serving:
        found = await different(serving.address, [f"{group}.*" for group in range(1, 11)], tmp_path)
    assert not found, f"not as in {EXPECTED.name}: {json.dumps(found, indent=1)}"


TELLING_DEFLATED = ["12.1.1", "12.2.7", "13.3.1", "13.5.7"]
TELLING = [*(f"{group}.*" for group in (1, 2, 3, 4, 5, 7, 10)), "6.2.*", "6.4.*", *TELLING_DEFLATED]
FRAMES = [f"{group}.*" for group in (*range(1, 8), 10)]
DEFLATED = [*([f"12.{group}.*"] for group in range(1, 6)), *([f"13.{group}.*"] for group in range(1, 8))]
LARGE_AND_DEFLATED = [["9.*"], *DEFLATED]


@pytest.mark.timeout(1_800)
@pytest.mark.skipif(not COMPRESSES, reason="the engine's listener does not negotiate permessage-deflate")
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(["13.1.1", "13.2.1", "13.4.1", *TELLING_DEFLATED], id="telling"),
        *(pytest.param(some, id=some[0], marks=pytest.mark.soak) for some in DEFLATED),
    ],
)
async def test_all_verdicts_on_compression_are_as_expected(cases: list[str], tmp_path: Path) -> None:
    hub = fanwire.Hub(
        {"a": fanwire.Channel(**({"compression": True, "compression_readers": 1} if COMPRESSES else {}))},
        message_bytes_max=MESSAGE_BYTES_MAX,
        outbox_bytes_max=2 * MESSAGE_BYTES_MAX,
        publication_bytes_max=MESSAGE_BYTES_MAX,
    )
    hub.on_message(lambda client, data: client.send(data))
    async with hub.serve("127.0.0.1:0") as serving:
        found = await different(serving.address, cases, tmp_path, "/ws?channel=a")
    assert not found, f"not as in {EXPECTED.name}: {json.dumps(found, indent=1)}"


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(TELLING, id="telling"),
        *(pytest.param(some, id=some[0], marks=pytest.mark.soak) for some in [FRAMES, *LARGE_AND_DEFLATED]),
    ],
)
async def test_all_verdicts_on_the_protocol_for_uvicorn_are_as_expected(cases: list[str], tmp_path: Path) -> None:
    async with served(echo, "fanwire.uvicorn:Protocol", ws_max_size=MESSAGE_BYTES_MAX) as address:
        found = await different(address, cases, tmp_path)
    assert not found, f"not as in {EXPECTED.name}: {json.dumps(found, indent=1)}"
