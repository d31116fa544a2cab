"""Takes the pictures of docs/console.md, of made data: ``python tests/support/console_pictures.py``."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support import admin_stand_in as made  # noqa: E402
from support.browsing import Console, open_browser  # noqa: E402

PICTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "overview": ("overview", "Since start", {"viewport": {"width": 1_280, "height": 800}, "color_scheme": "light"}),
    "client": (
        "clients?client=1:c4711@1&lagging=true&sort=lag",
        "41.7 s behind",
        {"viewport": {"width": 1_280, "height": 640}, "color_scheme": "dark"},
    ),
    "phone": (
        "clients?lagging=true&sort=lag",
        "41.7 s",
        {"viewport": {"width": 390, "height": 620}, "color_scheme": "light", "device_scale_factor": 1.5},
    ),
}
"""Of each its place, what is waited for, and the tab."""
TO_WEBP = """async (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.86).split(",")[1];
}"""
NAMES = ("anna", "ben", "chiara", "chloé", "dmitri", "emil", "eve & co", "farah")


def take(browser: Any, stand_in: made.StandIn) -> None:
    """All of them, into docs/."""
    blank = browser.new_page()
    kept = json.dumps(json.dumps(stand_in.samples()))
    for name, (place, awaited, options) in PICTURES.items():
        with Console.opened(browser, stand_in.address, "settings", **options) as console:
            console.page.add_init_script(f"sessionStorage.setItem('fanwire-readings', {kept})")
            console.page.goto("about:blank")
            console.go(place)
            console.sees(awaited)
            console.page.wait_for_selector("#pulse.live")
            if name == "overview":
                console.page.wait_for_function("() => !document.querySelector('.cards').innerText.includes('–')")
                console.page.wait_for_function("() => !document.querySelector('.panel').innerText.includes('…')")
            png = base64.b64encode(console.page.screenshot()).decode()
            file = ROOT / "docs" / f"console-{name}.webp"
            file.write_bytes(base64.b64decode(blank.evaluate(TO_WEBP, png)))
            print(file.relative_to(ROOT), file.stat().st_size)


if __name__ == "__main__":
    made.USERS = NAMES
    made.CHANNELS = (
        "odds:7",
        "odds:12",
        "scores:live",
        "chat:lobby",
        "odds:4",
        "odds:3",
        "news",
        "board:main",
        "odds:21",
    )
    with open_browser() as browser, made.admin_stand_in(made.StandIn()) as stand_in:
        take(browser, stand_in)
