"""What the fixture ``make_hub`` is."""

from collections.abc import Callable
from typing import TypeAlias

import fanwire

MakeHub: TypeAlias = Callable[..., fanwire.Hub]
"""Takes what ``Hub`` takes; the poller is chosen already."""
