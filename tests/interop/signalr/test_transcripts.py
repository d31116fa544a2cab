"""What the real hub did on the wire, step by step, is what the target does."""

import json
from pathlib import Path
from typing import Any

import pytest
from replay import Replay
from stage import Hub

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.json"))
pytestmark = pytest.mark.timeout(60)


DEVIATIONS = {  # what comes first is chance, so that they may look the same
    "json-unknown-type": "the real hub waits on it for ever; we skip it, as the protocol's specification says",
    "stateful-replaced": "the real hub refuses the new socket if the old one answers its close; ours takes it",
    "json-stream-id-in-use": "after it the real hub cannot cancel the first stream; ours ends it",
}
OURS = {"content-length", "allow"}
"""Headers that the real hub leaves out now and then, where they are right (RFC 9110 §8.6, §15.5.6)."""


def meaning(shown: Any) -> Any:
    """What stays the same however a number or a letter is written, members in their order."""
    if isinstance(shown, list):
        return [meaning(item) for item in shown]
    if isinstance(shown, dict):
        kept = {name: value for name, value in shown.items() if name not in OURS}
        if kept.get("content-type") == "text/plain":  # of what has no body, or a sentence
            del kept["content-type"]
        if "www-authenticate" in kept:  # what is wrong with a token is the application's to say, or not
            kept["www-authenticate"] = kept["www-authenticate"].split()[0]
        return {name: meaning(value) for name, value in kept.items()}
    if isinstance(shown, str) and shown.startswith("{"):
        try:
            return [json.loads(record, object_pairs_hook=list) for record in shown.split("\x1e") if record]
        except ValueError:
            return shown
    return shown


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_replays(path: Path, request: pytest.FixtureRequest) -> None:
    if path.stem in DEVIATIONS:
        request.applymarker(pytest.mark.xfail(reason=DEVIATIONS[path.stem]))
    transcript = json.loads(path.read_text("utf-8"))
    steps, recorded = transcript["steps"], transcript["recorded"]
    hub: Hub = request.getfixturevalue("impatient_hub" if "impatient" in transcript else "target_hub")
    for _ in range(transcript.get("tries", 1)):
        got = meaning(Replay(hub.url).run(steps))
        if got == meaning(recorded):
            break
    assert list(zip(steps, got, strict=True)) == list(zip(steps, meaning(recorded), strict=True))
