"""Whose fault it is that the backend ends a shared connection: one way for lanes, pools and those who leave.

Guilty is a call that the backend had alone when it ended the connection: at once where it says so (a Close message with
an error, as ASP.NET Core sends at what it cannot take); else, where others wait for it, when that happens again. Who
made it is answered with an error, and the others are made again, one by one. A call that is merely slow has the backend
to itself only for so long.
Not here: connections, calls.
"""

from fanwire._engine import Upstream

ALONE_S = 1.0
"""How long a call that was made again, or is made for others, has the backend to itself, at most."""
SLOW_MAX = 3
"""Calls that may use up that time before the others are dealt with in another way."""


def is_said(event: Upstream) -> bool:
    """Whether the backend says that it ends the connection for what it was sent, and not for reasons of its own."""
    return event.said and bool(event.text)
