"""A lane's part in what several workers share: it is held here, and mirrored elsewhere, or the other way round.

A worker that mirrors a lane is to it as a client is: it waits for the backend's answer, and is told what comes of it.
What comes on the lane goes from engine to engine, in order with what is told here.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fanwire._engine import Engine
from fanwire.budget import Budgets
from fanwire.relay.sharing import Sharing, Verb
from fanwire.relay.wire import Asked, Outcome
from fanwire.workers.bus import NUMBERS

TAKEOVER_S = 0.4
"""Within so many seconds who has lost a lane's holder asks the next one: not all at the same moment."""
NOTICED_S = 6.0
"""A machine that is lost is noticed within so many seconds: what is missed began no earlier."""
BACK_S = 0.5
"""How much longer where that was of another machine: one whose link broke is gone for all, and there again at once."""
EVERYTHING_S = 1e9
"""Who has missed something gets all that a newcomer begins with: of machines no times can be compared."""
HOPS_MAX = 3
"""Workers that may send each other away before one holds a lane by itself."""
OVERLAP_S = 0.05
"""Of two that held a lane at once the one may have had what the other had so shortly before."""
UNBOUNDED = Budgets(1 << 62)
"""What waits for a mirror waits for its clients, who are charged there; there is one for each lane and worker."""


@dataclass(frozen=True, slots=True)
class ToldOutcome:
    """How a call ended, as who holds the lane tells it."""

    outcome: str
    body: bytes
    status: int | None = None
    kind: str = "completion"


class HasEngine(Protocol):
    """What has the logs, until it has ended."""

    @property
    def engine(self) -> Engine:
        """It."""


class Shared(Protocol):
    """What a part needs of its lane."""

    def agreed_there(self, *said: Any) -> None:
        """Who holds it carries what was asked for."""

    def refused_there(self, outcome: str | None, body: bytes, status: int | None) -> None:
        """The backend has refused the one who holds it."""

    def given_up_there(self, why: str) -> None:
        """Who holds it could not ask."""

    def down_there(self, why: str) -> None:
        """Who holds it has lost its connection, and opens another."""

    def noted_there(self, what: str, *said: Any) -> None:
        """Anything else."""

    def parted(self, why: str) -> None:
        """There is nobody who holds it any more: it is looked for, or held here."""

    def yielded(self) -> None:
        """Another has held it for longer: close what is here."""

    def mirror_gone(self, mirror: "Mirror") -> None:
        """That worker has nobody that watches any more."""


class Mirror:
    """A worker that mirrors a lane which is held here: as the lane sees it, a client."""

    __slots__ = ("_age", "_sharing", "budget", "id", "is_joined", "part", "tie", "worker")

    def __init__(self, part: "Part", worker: int, tie: int, client: int, age: Callable[[], float]) -> None:
        self.part, self.worker, self.tie = part, worker, tie
        self.id = client
        """Of its client that came or left last: what it leaves is its own doing."""
        self.budget = UNBOUNDED.open()
        self.is_joined = False
        """It gets what comes on the lane."""
        self._sharing = part.sharing
        self._age = age

    def tell(self, what: str, *said: Any) -> None:
        """Tell it."""
        self._sharing.tell_mirror(self.worker, self.part.id, self.tie, what, *said)

    # As a client of either kind of lane

    def complete(self, call: Asked, outcome: Outcome) -> None:
        """The backend has answered so, and that long ago."""
        self.tell("live", outcome.outcome, outcome.body, self._age())

    def let_in(self, subprotocol: str | None) -> None:
        """A plain backend has agreed."""
        self.tell("live", subprotocol)

    def refused(self, lane: object, call: object = None, outcome: Outcome | None = None) -> None:
        """The backend has refused: its clients may be allowed it in their own names."""
        said = (None, b"") if outcome is None else (outcome.outcome, outcome.body)
        self._over("refused", *said, None)

    def turned_away(self, status: int | None) -> None:
        """A plain backend has refused with that status, or cannot be reached."""
        self._over("refused", None, b"", status)

    def given_up(self, lane: object, call: object, why: str) -> None:
        """The call could not be made."""
        self._over("gave up", why)

    def fail(self) -> None:
        """Something went wrong that nobody expected."""
        self._over("gave up", "")

    def left(self, lane: object, call: object) -> None:
        """It says so by itself."""

    def _over(self, what: str, *said: Any) -> None:
        """One that does not get what comes is not on the lane any more."""
        self.tell(what, *said)
        if not self.is_joined:
            self.part.mirrors.pop(self.worker, None)


class Part:
    """See the module.

    Args:
        what: names the lane to who is to hold it.
        name: of its log here; or the hub's path, with `protocol`.
    """

    __slots__ = (
        *("_hops", "_is_held", "_is_over_machines", "_is_taken_over", "_next", "_of_engine", "_path", "_silent_s"),
        *("_tie", "_what"),
        *("holder", "id", "lane", "mirrors", "name", "protocol", "sharing"),
    )

    def __init__(self, sharing: Sharing, engine: HasEngine, path: str, id: bytes, what: Any, *, is_held: bool) -> None:
        self.sharing = sharing
        self.id = id
        self.mirrors: dict[int, Mirror] = {}
        """By worker."""
        self.holder: int | None = None
        """Who holds it, or is asked to; None where it is this worker."""
        self._of_engine = engine
        self._path, self._what = path, what
        # Whoever holds it elsewhere, it is to be held here.
        self._is_held = is_held
        self._tie = 0
        # Whom another has named.
        self._next: int | None = None
        self._hops = 0
        # For how many seconds nothing had come from the last holder when it was left; None where nothing ever did.
        self._silent_s: float | None = None
        # Whether the last holder, or the next one, is of another machine.
        self._is_over_machines = False
        # Whether it was lost by what became of a worker, and not of the backend.
        self._is_taken_over = False
        self.lane: Shared
        self.name: str
        self.protocol: str | None = None

    def belongs_to(self, lane: Shared, name: str, protocol: str | None = None) -> None:
        """Whose part it is, with the name of its log; or the hub's path and a protocol."""
        self.lane, self.name, self.protocol = lane, name, protocol

    @property
    def _engine(self) -> Engine:
        return self._of_engine.engine

    @property
    def _source(self) -> tuple[bytes, str | None]:
        return self.id, self.protocol

    # Where it is mirrored

    def follow(self, client: int, lost_s: float | None) -> bool:
        """Whether another holds it, who is asked for it; else it is held here from now on.

        Args:
            client: that wants it.
            lost_s: seconds since when those who watch have missed what came; None where nobody watches.
        """
        if self.holder is not None:
            return True  # it is there still
        if self._is_held or self._hops > HOPS_MAX:
            holder = self.sharing.number
        else:
            holder = self.sharing.holder_of(self.id) if self._next is None else self._next
        self._next = None
        if holder == self.sharing.number or holder not in self.sharing.bus.others:
            self._hold()
            return False
        self.holder, self._silent_s = holder, None
        self._tie = self.sharing.follow(holder, self.id, self)
        is_over_machines, self._is_over_machines = self._is_over_machines, holder >= NUMBERS
        is_all_missed = lost_s is not None and (is_over_machines or self._is_over_machines)
        missed_s = EVERYTHING_S if is_all_missed else lost_s
        self._engine.follow(self.name, self._source, (holder, self._tie), missed_s)
        self.sharing.say(holder, self._path, Verb.WANT, self.id, self._tie, self._what, client, lost_s)
        self.give_up_mirrors("elsewhere", self.sharing.name_of(holder))  # those that took it to be held here
        return True

    def _hold(self) -> None:
        self._is_held = False
        self._hops = 0
        # What is for all is no lane.
        self.sharing.hold(self.id, self._path if self.protocol is None else "")

    def again(self) -> None:
        """Newcomers need something newer than there is."""
        assert self.holder is not None  # it is mirrored
        self.sharing.say(self.holder, self._path, Verb.AGAIN, self.id, self._tie)

    def untie(self, client: int | None = None) -> None:
        """It is mirrored no longer; who holds it is told, unless it knows."""
        holder, self.holder = self.holder, None
        if holder is not None:
            self.sharing.unfollow(holder, self.id)
            self._silent_s = self._engine.unfollow(self.id, holder)
            if client is not None:
                self.sharing.say(holder, self._path, Verb.LEAVE, self.id, self._tie, client)

    def pause(self) -> float | None:
        """Seconds until it is looked for anew, where a worker was lost; None where it was the backend.

        The one that all others will ask does not wait for that.
        """
        is_taken_over, self._is_taken_over = self._is_taken_over, False
        if not is_taken_over:
            return None
        is_to_hold_it = self.sharing.holder_of(self.id) == self.sharing.number
        is_lost_elsewhere = self._is_over_machines and self.sharing.claimed(self.id) is None
        back_s = BACK_S if is_lost_elsewhere else 0.0
        return back_s if is_to_hold_it else back_s + random.uniform(0, TAKEOVER_S)

    def silence(self) -> float | None:
        """For how many seconds nothing has come from the holder that was lost; None where that is not known. Once.

        That it is gone is noticed later, by as much as this worker is behind: who takes over may have asked before.
        """
        silent_s, self._silent_s = self._silent_s, None
        were_two = self._next is not None
        return max(0.0, silent_s - OVERLAP_S) if silent_s is not None and were_two else silent_s

    @property
    def noticed_s(self) -> float:
        """How many seconds before it was noticed the holder may have been lost."""
        return NOTICED_S if self._is_over_machines else 0.0

    def told(self, what: str, *said: Any) -> None:
        """See ``Follower``."""
        match what:
            case "live":
                self._hops = 0
                self.lane.agreed_there(*said)
            case "refused":
                self.lane.refused_there(*said)
            case "gave up":
                self.lane.given_up_there(*said)
            case "down":
                self.lane.down_there(*said)
            case "ended":
                self.parted(said[0])
            case "elsewhere":
                self._hops += 1
                self._next = self.sharing.number if said[0] is None else self.sharing.number_of(said[0])
                self.parted("another worker holds it")
            case _:
                self.lane.noted_there(what, *said)

    def parted(self, why: str) -> None:
        """See ``Follower``."""
        self.untie(0 if self.holder in self.sharing.bus.others else None)
        self._is_taken_over = self._next is None
        self.lane.parted(why)

    @property
    def is_sent_on(self) -> bool:
        """Whether it is known whom to ask: there is nothing to wait for."""
        return self._next is not None

    # Where it is held

    def add(self, worker: int, tie: int, client: int, age: Callable[[], float]) -> Mirror:
        """A worker wants to mirror it."""
        before = self.mirrors.get(worker)
        mirror = self.mirrors[worker] = Mirror(self, worker, tie, client, age)
        if before is not None:
            self._part_with(before)
        return mirror

    def join(self, mirror: Mirror, newest: tuple[int | None, float | None] = (None, None), *, is_late: bool) -> bool:
        """Have it get what comes from now on, with what newcomers begin with; False where that is lost or too old."""
        tie = mirror.worker, mirror.tie
        if not self._engine.mirror(self.name, self._source, tie, (*newest, is_late)):
            return False
        mirror.is_joined = True
        return True

    def remove(self, worker: int) -> Mirror | None:
        """It is gone, or wants it no longer."""
        mirror = self.mirrors.pop(worker, None)
        if mirror is not None:
            self._part_with(mirror)
        return mirror

    def _part_with(self, mirror: Mirror) -> None:
        self._engine.unmirror(self.name, self._source, mirror.worker)
        self.lane.mirror_gone(mirror)

    def tell(self, what: str, *said: Any) -> None:
        """Tell those who get what comes."""
        for mirror in self.mirrors.values():
            if mirror.is_joined:
                mirror.tell(what, *said)

    def give_up_mirrors(self, what: str, *said: Any) -> None:
        """Nothing comes from here any more: they are told why."""
        for worker, mirror in list(self.mirrors.items()):
            mirror.tell(what, *said)
            self.remove(worker)

    def yield_to(self, worker: int) -> None:
        """It is held here, and there for longer."""
        self.sharing.let_go(self.id)
        self.give_up_mirrors("elsewhere", self.sharing.name_of(worker))
        self._is_taken_over = True
        self.lane.yielded()

    def take_over(self) -> None:
        """Both ask each other for it: it is held here."""
        self.untie()
        self._next = self.sharing.number
        self.lane.parted("two workers asked each other for it")

    def end(self, client: int) -> None:
        """There is no lane any more."""
        self.untie(client)
        self.sharing.let_go(self.id)
        self.give_up_mirrors("ended", "it has ended in the worker that held it")
