"""The Autobahn test suite (its fuzzing client) against an echo hub: RFC 6455 in some three hundred cases.

The verdicts are committed in expected-results.json and compared, better or worse; a deviation has a sentence there.
"""

import json
import os
from pathlib import Path

import anyio
import fanwire
import pytest

TOOL = Path(os.environ.get("WSTEST", Path(__file__).parents[3] / "shared/tools/autobahn/wstest"))
EXPECTED = Path(__file__).with_name("expected-results.json")
AGENT = "fanwire"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("anyio_backend", [pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]),
    pytest.mark.skipif(not TOOL.is_file(), reason=f"no Autobahn test suite at {TOOL}; name its wstest in WSTEST"),
]


async def test_all_verdicts_are_as_expected(poller: str, tmp_path: Path) -> None:
    # 9.* sends messages of 16 MiB, and the echo needs as much room on the way back.
    hub = fanwire.Hub(
        poller=poller, message_bytes_max=32 << 20, outbox_bytes_max=64 << 20, publication_bytes_max=32 << 20
    )
    hub.on_message(lambda client, data: client.send(data))
    async with hub.serve("127.0.0.1:0") as serving:
        specification = {
            "outdir": str(tmp_path / "reports"),
            "servers": [{"agent": AGENT, "url": f"ws://{serving.address}/"}],
            "cases": [f"{group}.*" for group in range(1, 11)],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        path = anyio.Path(tmp_path / "fuzzingclient.json")
        await path.write_text(json.dumps(specification))
        done = await anyio.run_process([str(TOOL), "-m", "fuzzingclient", "-s", str(path)], check=False)
    index = tmp_path / "reports" / "index.json"
    assert index.is_file(), done.stdout.decode()[-2_000:] + done.stderr.decode()[-2_000:]
    verdicts = json.loads(index.read_text())[AGENT]
    assert len(verdicts) > 240
    expected = json.loads(EXPECTED.read_text())
    different = {}
    for case, verdict in verdicts.items():
        found = [verdict["behavior"], verdict["behaviorClose"]]
        if found != expected["deviations"].get(case, expected["default"])[:2]:
            different[case] = found
    assert not different, f"not as in {EXPECTED.name}: {json.dumps(different, indent=1)}"
