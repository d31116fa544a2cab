"""The names in a relay's settings: which of them nobody uses, and what comes two ways. Told in the log, once each.

A name is used when a client calls it, or a message of that target comes where the settings say. After a while those
that are not are told of, with the nearest of the names that were seen instead.
"""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from enum import Enum
from itertools import islice
from logging import INFO, WARNING
from time import monotonic

from fanwire.logs import relay_log
from fanwire.relay.config import CallShare, QueryShare, RelayConfig
from fanwire.relay.headers import names_in

AFTER_S = 600.0
"""How long after the first call or message the names that nobody has used are told of, with the next one."""
USES_MAX = 1_000
"""The same, after so many of them."""
SEEN_MAX = 256
"""Names of each kind that are remembered, of those that are not in the settings."""
NAMES_MAX = 16
"""Names of one query or message that are looked at."""
LENGTH_MAX = 128
"""Characters of such a name: what is longer is cut, and nobody's slip."""


class Way(Enum):
    """How a name is used; the value says it."""

    CALL = "no client has called it"
    LANE = "it has not come over a lane"
    ALL = "it has not come over the broadcast lane"
    WELCOME = "it has not greeted the broadcast lane"
    POINTER = "it is in no client's message"
    PARAMETER = "it is in no client's query"


TARGETS = (Way.LANE, Way.ALL, Way.WELCOME)
KINDS = {**dict.fromkeys(TARGETS, TARGETS), Way.CALL: (Way.CALL,), Way.POINTER: (Way.POINTER,)}
"""Ways among which one name may have been meant for another. Of queries no more is ever shown than what is shared."""


class Names:
    """Of one relay, for one serving. In the event loop's thread.

    Args:
        tell: is called with where a name stands in the settings when it is used for the first time here.
    """

    def __init__(self, config: RelayConfig, tell: Callable[[str], object] = lambda where: None) -> None:
        self._path = config.path
        self._tell = tell
        self.used: list[str] = []
        """Where those stand that have been used here."""
        self._named: dict[tuple[Way, str], list[str]] = {}
        # By where they stand in the settings; the order is that of the settings.
        self._unused: dict[str, tuple[Way, str]] = {}
        for where, way, name in names_of(config):
            self._named.setdefault((way, _key(way, name)), []).append(where)
            self._unused[where] = way, name
        self._dropped = {*config.everyone.targets, *config.everyone.welcome}
        self._since = monotonic()
        self._uses = 0
        self._is_told = False
        # By kind; folded, and as they came.
        self._others: dict[tuple[Way, ...], dict[str, str]] = {kind: {} for kind in KINDS.values()}
        self._on_lanes: set[str] = set()
        # Of those that lanes drop, what came over one.
        self._lost: set[str] = set()
        self._to_all: set[str] = set()
        self._both: set[str] = set()
        # Methods of which there is nothing more to learn: each log-in calls one.
        self._learned: set[str] = set()

    @property
    def unused(self) -> list[str]:
        """What nobody has used so far: where it stands in the settings, and the name."""
        return [f'{where} = "{name}"' for where, (_, name) in self._unused.items()]

    def called(self, method: str) -> None:
        """A client has called this."""
        if self._unused and method not in self._learned:
            self._use(Way.CALL, method)
            if self._is_told:
                _keep(self._learned, method)

    def pointed_to(self, pointer: str) -> None:
        """There is something in a client's message that this points to."""
        if self._unused:
            self._use(Way.POINTER, pointer)

    def pointed_elsewhere(self, members: Iterable[str]) -> None:
        """Nothing in a client's message is shared: it has these members."""
        if self._unused:
            for name in islice(members, NAMES_MAX):
                self._use(Way.POINTER, f"/{name}")

    def connected_with(self, query: str) -> None:
        """A client has connected with this query."""
        if self._unused:
            for name in names_in(query)[:NAMES_MAX] or ("",):
                self._use(Way.PARAMETER, name)

    def came_over_lane(self, target: str) -> None:
        """The first message of this target has come over a lane; it was dropped if ``everyone`` has it."""
        self._use(Way.LANE, target)
        if target in self._dropped:
            self._lost.add(target)
            return
        shown = target[:LENGTH_MAX]
        _keep(self._on_lanes, shown)
        if shown in self._to_all:
            self._tell_both(shown)

    def came_to_all(self, target: str) -> None:
        """The first message of a target of ``everyone.targets`` has come over the broadcast lane."""
        self._use(Way.ALL, target)

    def greeted(self, target: str) -> None:
        """A message of ``everyone.welcome`` has come over the broadcast lane."""
        self._use(Way.WELCOME, target)

    def unnamed(self, target: str) -> None:
        """A target has come over the broadcast lane that is in neither list, and was dropped."""
        self._use(Way.ALL, target)
        shown = target[:LENGTH_MAX]
        is_new = _keep(self._to_all, shown)
        if shown in self._on_lanes:
            self._tell_both(shown)
        elif is_new:
            relay_log.warning(
                "target %r came over the broadcast lane of %s and is dropped there: add it to everyone.targets if the "
                "backend sends it to all, to everyone.welcome if it greets each connection with it",
                shown,
                self._path,
            )

    def _tell_both(self, target: str) -> None:
        """As Microsoft's chat has it, where what is sent to all arrives at each lane's connection as well."""
        if target in self._both:
            return
        self._both.add(target)
        relay_log.warning(
            "target %r of %s comes over lanes and over the broadcast lane: a client gets it once for each lane that it "
            "watches, and not at all without one. Add it to everyone.targets if the backend sends it to all and to no "
            "group, to everyone.welcome if it greets each connection; what it sends to groups needs another name",
            target,
            self._path,
        )

    # What nobody uses

    def used_elsewhere(self, where: str) -> None:
        """In another worker."""
        self._unused.pop(where, None)

    def _use(self, way: Way, name: str) -> None:
        if not self._unused:
            return
        for where in self._named.get((way, _key(way, name)), ()):
            if self._unused.pop(where, None) is not None:
                self.used.append(where)
                self._tell(where)
        if self._is_told:
            return
        if self._uses == 0:
            self._since = monotonic()
        self._uses += 1
        self._note_other(way, name)
        if self._uses >= USES_MAX or monotonic() - self._since >= AFTER_S:
            self._is_told = True
            self._tell_unused()

    def _note_other(self, way: Way, name: str) -> None:
        """A name that is in no setting may be what was meant."""
        kind = KINDS.get(way, ())
        if kind and not any((each, _key(each, name)) in self._named for each in kind):
            others = self._others[kind]
            if len(name) <= LENGTH_MAX and len(others) < SEEN_MAX:
                others.setdefault(name.casefold(), name)

    def _tell_unused(self) -> None:
        unwatched = {where.rpartition(".")[0] for where in self._unused if where.endswith(".subscribe")}
        for where, (way, name) in self._unused.items():
            if way is Way.LANE and where.rpartition(".")[0] in unwatched:
                continue  # there was no lane that it could have come over
            others = self._others.get(KINDS.get(way, ()), {})
            nearest = get_close_matches(name.casefold(), others, 1)
            hint = f"; the nearest name that was seen is {others[nearest[0]]!r}" if nearest else ""
            if way in (Way.ALL, Way.WELCOME) and name in self._lost:
                hint = ", but over lanes, which drop it: nobody gets it. Take it out of everyone"
            is_odd = bool(hint) or way is Way.PARAMETER or where.endswith((".subscribe", ".snapshot"))
            level = WARNING if is_odd else INFO  # others may have had no occasion
            relay_log.log(level, "%s: %s is %r, and %s so far%s", self._path, where, name, way.value, hint)


def names_of(config: RelayConfig) -> Iterator[tuple[str, Way, str]]:
    """Where each name stands in the settings, how it is used, and the name."""
    for index, share in enumerate(config.share):
        if isinstance(share, QueryShare):
            for each, name in enumerate(share.query):
                yield f"share[{index}].query[{each}]", Way.PARAMETER, name
            continue
        way = Way.CALL if isinstance(share, CallShare) else Way.POINTER
        yield f"share[{index}].subscribe", way, share.subscribe
        if share.unsubscribe is not None:
            yield f"share[{index}].unsubscribe", way, share.unsubscribe
        if isinstance(share, CallShare) and share.snapshot is not None:
            yield f"share[{index}].snapshot", Way.LANE, share.snapshot
    for index, target in enumerate(config.everyone.targets):
        yield f"everyone.targets[{index}]", Way.ALL, target
    for index, target in enumerate(config.everyone.welcome):
        yield f"everyone.welcome[{index}]", Way.WELCOME, target
    for index, method in enumerate(config.private.pooled):
        yield f"private.pooled[{index}]", Way.CALL, method


def _key(way: Way, name: str) -> str:
    """As it is compared: a backend finds its methods whatever the case."""
    return name.casefold() if way is Way.CALL else name


def _keep(names: set[str], name: str) -> bool:
    """Remember a name; whether it is a new one, and there was room."""
    if name in names or len(names) >= SEEN_MAX:
        return False
    names.add(name)
    return True
