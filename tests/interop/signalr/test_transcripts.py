"""What the real hub did on the wire, step by step, is what the target does."""

import json
from pathlib import Path

import pytest
from replay import Replay
from stage import Hub

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.json"))
pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_replays(path: Path, target_hub: Hub) -> None:
    transcript = json.loads(path.read_text("utf-8"))
    steps, recorded = transcript["steps"], transcript["recorded"]
    for _ in range(transcript.get("tries", 1)):
        got = Replay(target_hub.url).run(steps)
        if got == recorded:
            break
    assert list(zip(steps, got, strict=True)) == list(zip(steps, recorded, strict=True))
