"""Whether the targets of ``everyone`` go to all and to nobody else: lanes drop them, so what they alone have is lost.

What is sent to all comes over each lane's connection as often as over the broadcast lane's. Both report a target at its
first, second, fourth, eighth message and so on. A lane may have had far more than the broadcast lane, and still have
when that has had time to catch up. Then the rest went to a group, a user or a caller. Not here: connections, bytes.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from fanwire.logs import relay_log

LEAST = 8
"""Messages of a lane before anything is said."""
CAUGHT_UP_S = 10.0
"""What comes at once on two connections has come on both by then."""


class Everyones:
    """Of one relay, for one serving. In the event loop's thread.

    Args:
        later: calls a function after so many seconds.
    """

    def __init__(self, path: str, targets: Iterable[str], later: Callable[[float, Callable[[], None]], object]) -> None:
        self._path = path
        self._targets = frozenset(targets)
        self._later = later
        self._lives = 0
        # By hub protocol, of the broadcast lane's connection: which it is, and the reports of each target.
        self._live: dict[str, tuple[int, Counter[str]]] = {}
        # Those that are told of, or about to be.
        self._suspected: set[str] = set()

    def opened(self, protocol: str) -> None:
        """The broadcast lane of this hub protocol is there."""
        self._lives += 1
        self._live[protocol] = self._lives, Counter()

    def lost(self, protocol: str) -> None:
        """It is not."""
        self._live.pop(protocol, None)

    def life_of(self, protocol: str) -> int:
        """Which connection of the broadcast lane is there, 0 for none: lanes that open later are compared with it."""
        return self._live[protocol][0] if protocol in self._live else 0

    def came_to_all(self, protocol: str, target: str) -> None:
        """The broadcast lane reports a target."""
        if protocol in self._live:
            self._live[protocol][1][target] += 1

    def dropped(self, protocol: str, target: str, reports: int, life: int) -> None:
        """A lane reports one for the so-manieth time; it opened in this life of the broadcast lane."""
        if target not in self._targets or target in self._suspected:
            return
        check = partial(self._is_over, protocol, target, 1 << (reports - 1), life)
        if check():
            self._suspected.add(target)
            self._later(CAUGHT_UP_S, partial(self._tell, target, check))

    def _is_over(self, protocol: str, target: str, least: int, life: int) -> bool:
        """Whether `least` of a lane are more than twice the most that the broadcast lane can have had."""
        if life == 0 or life != self.life_of(protocol):
            return False
        most = (1 << self._live[protocol][1][target]) - 1
        return least >= LEAST and least > 2 * most

    def _tell(self, target: str, is_over: Callable[[], bool]) -> None:
        if not is_over():
            self._suspected.discard(target)
            return
        relay_log.warning(
            "target %r of %s is in everyone.targets, and comes over lanes far more often than over the broadcast lane: "
            "what the backend sends to groups under that name nobody gets. Give that another name, or, if it goes to "
            "groups alone, take it out of everyone.targets",
            target,
            self._path,
        )
