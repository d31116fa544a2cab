"""``fanwire top``: what a hub does, second by second, on a screen or as lines."""

import os
import sys
import time
from functools import partial
from typing import Annotated, NoReturn

from fanwire.cli.instance import Instance
from fanwire.cli.operating import Admin, AsJson, Flag, asking
from fanwire.top.lines import lines as tell_lines
from fanwire.top.observer import Observer

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.2, 3_600.0
TIMEOUT_S = 5.0
NO_SCREEN = "the screen of top needs textual: pip install 'fanwire[top]'; --lines does without"


def top(
    *,
    interval: float = 1.0,
    lines: Annotated[bool, Flag] = False,
    count: int | None = None,
    admin: Admin = None,
    as_json: AsJson = False,
) -> None:
    """What a hub does, second by second: rates, what costs most, who lags and why.

    On a terminal it is a screen with keys, ? tells them; elsewhere a line an interval.

    Args:
        interval: seconds between two looks, 0.2 to 3600.
        lines: lines on a terminal, too.
        count: so many lines, and then the end.
    """
    if not INTERVAL_MIN_S <= interval <= INTERVAL_MAX_S:
        _fail(f"--interval {interval:g} is not between {INTERVAL_MIN_S:g} and {INTERVAL_MAX_S:,.0f} seconds")
    if count is not None and count < 1:
        _fail(f"--count {count} is no number of lines: 1 at least")
    with asking(admin) as hub:
        observer = Observer(partial(Instance, admin, timeout_s=TIMEOUT_S))
        if lines or as_json or count is not None or not (sys.stdout.isatty() and sys.stdin.isatty()):
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
            tell_lines(observer, partial(time.sleep, interval), partial(print, flush=True), as_json, count)
        else:
            _screen(observer, hub.address, interval)


def _screen(observer: Observer, where: str, interval_s: float) -> None:
    try:
        from fanwire.top.screen import Top
    except ModuleNotFoundError as error:
        if error.name != "textual":
            raise
        _fail(NO_SCREEN)
    from fanwire.top.palette import is_light_terminal

    refusal = Top(observer, where, interval_s, is_light=is_light_terminal(os.environ)).run()
    if refusal:
        _fail(refusal)


def _fail(why: str) -> NoReturn:
    print(f"fanwire: {why}", file=sys.stderr)
    raise SystemExit(1) from None
