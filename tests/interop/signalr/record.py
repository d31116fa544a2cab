"""Record the transcripts anew: `python record.py http://127.0.0.1:25000`, where the real hub listens.

Each file has its story (`steps`) and what the real hub did (`recorded`), step by step; only the latter is written.
Where two requests race on two connections (`later`), the file says how many `tries` it has to come out as recorded.
Those that say `impatient` are recorded by their names, from a hub that is begun with conftest's IMPATIENCE.
"""

import json
import sys
from pathlib import Path
from typing import Any

from replay import Replay

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def written(transcript: dict[str, Any]) -> str:
    """A transcript as text, a line a step and a line for what it brought."""
    lines = ["{", f'  "about": {json.dumps(transcript["about"], ensure_ascii=False)},']
    lines += [f'  "{name}": {json.dumps(transcript[name])},' for name in ("tries", "impatient") if name in transcript]
    for name, end in (("steps", ","), ("recorded", "")):
        rows = [f"    {json.dumps(row, ensure_ascii=False)}" for row in transcript[name]]
        lines += [f'  "{name}": [', ",\n".join(rows), f"  ]{end}"]
    return "\n".join([*lines, "}"]) + "\n"


def main(url: str, *names: str) -> None:
    """Run the stories, or those named, against the hub at `url`."""
    for path in sorted(TRANSCRIPTS.glob("*.json")):
        if names and path.stem not in names:
            continue
        transcript = json.loads(path.read_text("utf-8"))
        if "impatient" in transcript and not names:
            continue
        transcript["recorded"] = Replay(url).run(transcript["steps"])
        path.write_text(written(transcript), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
