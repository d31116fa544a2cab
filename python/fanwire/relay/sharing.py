"""Who holds which of a relay's lanes, where several workers serve one port, or several machines one backend.

Not here: what a lane is.

One worker *holds* a lane, by its connection to the backend; the others *mirror* it. Each tells all what it holds. What
nobody holds yet is to be held by the one of them that rendezvous hashing names, so that all ask the same. Should two
hold one all the same, as they knew of different workers for a moment, the one that has held it for longer goes on.
Machines number each other as they come: what they say of a worker names it (``name_of``), and so does the hashing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from time import time
from typing import Any, Protocol

import msgspec

from fanwire.faults import Faults
from fanwire.workers.bus import NUMBERS, Bus, named, pieces

KIND = "lanes"
"""Of messages between workers."""
ID_BYTES = 16
"""Of what names a lane to all workers."""


class Verb:
    """What a message says."""

    HELD = 0
    """The sender holds these, each since when, and for the relay at which path."""
    LET_GO = 1
    """And this no more, of that path."""
    RETIRING = 2
    """It will end soon: what it holds others are to hold."""
    TO_RELAY = 3
    """To the relay at a path: what that knows to read."""
    WANT = 4
    """To who holds one, or is to: tell me of it, and all that comes."""
    AGAIN = 5
    """Newcomers here need something newer than there is."""
    LEAVE = 6
    """Nobody watches it here any more."""
    TOLD = 7
    """From who holds one to who mirrors it."""
    NAMED = 8
    """The first to a worker of another machine: what the sender's machine is called."""


class Sharer(Protocol):
    """A relay, as others of its path in other workers see it."""

    def wanted(self, worker: int, id: bytes, *said: Any) -> None:
        """A worker wants to mirror one of its lanes."""

    def of_mirror(self, worker: int, verb: int, id: bytes, *said: Any) -> None:
        """A worker that mirrors says more of it."""

    def heard(self, worker: int, what: str, *said: Any) -> None:
        """The relay of another worker tells this."""

    def welcome(self, worker: int) -> None:
        """A worker has come."""

    def parted(self, worker: int) -> None:
        """It is gone."""

    def yield_to(self, worker: int, id: bytes) -> None:
        """That one has held this for longer."""

    def one_more(self) -> None:
        """A worker holds a lane of its path that it did not."""

    def retire(self) -> None:
        """This worker will end soon: others are to hold what they have from it."""


class Follower(Protocol):
    """What mirrors a lane here."""

    def told(self, what: str, *said: Any) -> None:
        """Who holds it says this."""

    def parted(self, why: str) -> None:
        """Who holds it is gone, or has lost something on the way."""


def rank(id: bytes, name: bytes) -> bytes:
    """By which workers are compared for a lane: the highest is to hold it (rendezvous hashing)."""
    return blake2b(id, digest_size=8, salt=name).digest()


class Sharing:
    """Of all relays of one serving, in the event loop's thread. Without other workers there is none.

    Args:
        key: a secret that all workers have.
        count: of workers, as they are to be.
        clock: seconds, alike in all workers of a machine. Over machines it decides who has held a lane for longer, and
            nothing else.
    """

    def __init__(
        self, bus: Bus, faults: Faults, key: bytes = b"", count: int = 1, clock: Callable[[], float] = time
    ) -> None:
        self.bus = bus
        self._count = count
        self.secret = blake2b(key, person=b"admission", digest_size=32).digest()
        """For hashes that all workers make alike."""
        self._faults = faults
        self._clock = clock
        self._relays: dict[str, Sharer] = {}
        # What machines are called, by their numbers here: 0 is this one.
        self._machines: dict[int, bytes] = {0: blake2b(key, person=b"machine", digest_size=8).digest()}
        # What each worker holds, this one as well, and since when.
        self._held: dict[int, dict[bytes, float]] = {bus.number: {}}
        # For the relays at which paths: of each worker in numbers, of this one each.
        self._counts: dict[int, Counter[str]] = {bus.number: Counter()}
        self._paths: dict[bytes, str] = {}
        # Those that end soon.
        self._retiring: set[int] = set()
        # What is mirrored here: by who holds it, with the number of the attempt.
        self._following: dict[tuple[int, bytes], tuple[int, Follower]] = {}
        self._ties = 0
        bus.on(KIND, self._told)
        bus.on_change(self._changed)

    def add(self, path: str, relay: Sharer) -> None:
        """There is a relay there."""
        self._relays[path] = relay

    def remove(self, path: str) -> None:
        """There is none any more."""
        self._relays.pop(path, None)

    # Who holds what

    @property
    def of_whom(self) -> str:
        """Whose these are, as an error says it."""
        return "machines" if self.bus.spans_machines else "workers"

    @property
    def number(self) -> int:
        """Of this worker."""
        return self.bus.number

    @property
    def is_retiring(self) -> bool:
        """Whether this worker will end soon."""
        return self.number in self._retiring

    def name_of(self, worker: int) -> bytes:
        """What all call this worker; empty while its machine has not said what that is called."""
        machine, number = divmod(worker, NUMBERS)
        return self._machines[machine] + bytes([number]) if machine in self._machines else b""

    def number_of(self, name: bytes) -> int | None:
        """Whose name that is; None where it is of a machine that is not known here."""
        machine = next((number for number, known in self._machines.items() if known == name[:-1]), None)
        return None if machine is None else machine * NUMBERS + name[-1]

    def is_before(self, id: bytes, worker: int) -> bool:
        """Whether that worker is rather to hold this than this one is."""
        return rank(id, self.name_of(worker)) > rank(id, self.name_of(self.number))

    def part_of_each(self, count: int) -> int:
        """Of so many connections for all workers, how many each may have: one at least."""
        return max(1, -(-count // max(self._count, 1 + len(self.bus.others))))

    def claimed(self, id: bytes) -> int | None:
        """Who says that it holds this; the one that has for longest."""
        claims = [(held[id], self.name_of(worker), worker) for worker, held in self._held.items() if id in held]
        return min(claims)[2] if claims else None

    def holder_of(self, id: bytes) -> int:
        """Who holds it, or is to."""
        claimed = self.claimed(id)
        return self.elected(id) if claimed is None else claimed

    def elected(self, id: bytes) -> int:
        """Whom rendezvous hashing names, of those that are there and stay."""
        there = (one for one in (self.number, *self.bus.others) if one not in self._retiring)
        names = {one: name for one in there if (name := self.name_of(one))}
        return max(names, key=lambda worker: (rank(id, names[worker]), names[worker]), default=self.number)

    def lanes_at(self, path: str) -> int:
        """How many the relays at this path hold in all workers."""
        return sum(counts[path] for counts in self._counts.values())

    def hold(self, id: bytes, path: str = "") -> None:
        """This worker holds it from now on, as a lane of the relay at a path; all are told."""
        own = self._held[self.number]
        if id not in own:
            own[id] = self._clock()
            self._paths[id] = path
            self._count_one(self.number, path)
            self._tell(None, Verb.HELD, [[id, own[id], path]])

    def _count_one(self, worker: int, path: str) -> None:
        self._counts.setdefault(worker, Counter())[path] += 1
        if path in self._relays:
            with self._faults.contained("relay.sharing", "room could not be made for lanes"):
                self._relays[path].one_more()

    def let_go(self, id: bytes) -> None:
        """It does not any more."""
        if self._held[self.number].pop(id, None) is not None:
            path = self._paths.pop(id)
            self._counts[self.number][path] -= 1
            self._tell(None, Verb.LET_GO, id, path)

    def retire(self) -> None:
        """This worker will end soon, and its clients with it."""
        if self.is_retiring or not self.bus.others:
            return
        self._retiring.add(self.number)
        self._tell(None, Verb.RETIRING)
        for relay in self._relays.values():
            with self._faults.contained("relay.sharing", "lanes of a relay could not be handed over"):
                relay.retire()

    # What is said

    def follow(self, holder: int, id: bytes, follower: Follower) -> int:
        """Have what `holder` says of this be told; gives the number of the attempt."""
        self._ties = self._ties % 0xFFFF_FFFF + 1
        self._following[holder, id] = self._ties, follower
        return self._ties

    def unfollow(self, holder: int, id: bytes) -> None:
        """It is not told any more."""
        self._following.pop((holder, id), None)

    def say(self, to: int, path: str, verb: int, id: bytes, *said: Any) -> None:
        """To who holds a lane of the relay at a path, or is to."""
        self._tell(to, verb, path, id, *said)

    def tell_mirror(self, to: int, id: bytes, tie: int, what: str, *said: Any) -> None:
        """To who mirrors what this worker holds."""
        self._tell(to, Verb.TOLD, id, tie, what, *said)

    def tell_relays(self, path: str, what: str, *said: Any, to: int | None = None) -> None:
        """To the relay of this path in another worker, or in all others."""
        self._tell(to, Verb.TO_RELAY, path, what, *said)

    def _tell(self, to: int | None, *message: Any) -> None:
        if self.bus.others:
            with self._faults.contained("relay.sharing", "other workers could not be told of a lane"):
                self.bus.tell(KIND, message, to)

    def lost(self, holder: int, id: bytes) -> None:
        """Something of it has not come here: that begins anew."""
        _, follower = self._following.get((holder, id), (0, None))
        if follower is not None:
            follower.parted("not all of it has come from the worker that holds it")

    def _told(self, worker: int, message: Any) -> None:
        verb, *said = message
        match verb:
            case Verb.NAMED:
                self._machines[worker // NUMBERS] = said[0]
            case Verb.HELD:
                self._others_hold(worker, said[0])
            case Verb.LET_GO:
                id, path = said
                if self._held.get(worker, {}).pop(id, None) is not None:
                    self._counts[worker][path] -= 1
            case Verb.RETIRING:
                self._retiring.add(worker)
                self._forget(worker)
            case Verb.TOLD:
                id, tie, *rest = said
                expected, follower = self._following.get((worker, id), (0, None))
                if follower is not None and tie == expected:
                    follower.told(*rest)
            case _:
                self._to_relay(worker, verb, *said)

    def _to_relay(self, worker: int, verb: int, path: str, *said: Any) -> None:
        relay = self._relays.get(path)
        if relay is None:
            if verb == Verb.WANT:
                self.refuse(worker, *said[:2])
        elif verb == Verb.TO_RELAY:
            relay.heard(worker, *said)
        elif verb == Verb.WANT:
            relay.wanted(worker, *said)
        else:
            relay.of_mirror(worker, verb, *said)

    def refuse(self, worker: int, id: bytes, tie: int) -> None:
        """That is nothing that this worker could hold: its relay is another, or none. Who asks holds it by itself."""
        self.send_on(worker, id, tie, None)

    def send_on(self, worker: int, id: bytes, tie: int, holder: int | None) -> None:
        """Another holds what it asks for; or with None it is to hold that by itself."""
        self.tell_mirror(worker, id, tie, "elsewhere", None if holder is None else self.name_of(holder))

    def _forget(self, worker: int) -> None:
        self._held.pop(worker, None)
        self._counts.pop(worker, None)

    def _others_hold(self, worker: int, claims: Iterable[tuple[bytes, float, str]]) -> None:
        own = self._held[self.number]
        if worker in self._retiring:
            return
        theirs = self._held.setdefault(worker, {})
        for id, since, path in claims:
            is_new = id not in theirs
            theirs[id] = since
            if is_new:
                self._count_one(worker, path)
            if id in own and (since, self.name_of(worker)) < (own[id], self.name_of(self.number)):
                for relay in self._relays.values():
                    with self._faults.contained("relay.sharing", "a lane that two hold could not be given up"):
                        relay.yield_to(worker, id)

    def _changed(self, worker: int, has_come: bool) -> None:
        machine = worker // NUMBERS
        if has_come:
            if machine:
                self._tell(worker, Verb.NAMED, self._machines[0])
            own = [(id, since, self._paths[id]) for id, since in self._held[self.number].items()]
            for piece in pieces(own):
                self._tell(worker, Verb.HELD, piece)
            if self.is_retiring:
                self._tell(worker, Verb.RETIRING)
            for relay in self._relays.values():
                relay.welcome(worker)
            return
        self._forget(worker)
        self._retiring.discard(worker)
        for relay in self._relays.values():
            with self._faults.contained("relay.sharing", "what a worker had of lanes could not be ended"):
                relay.parted(worker)
        for follower in list(self._followers_of(worker)):
            with self._faults.contained("relay.sharing", "a lane of a worker that is gone could not be taken over"):
                follower.parted(f"worker {named(worker)}, which held it, is gone")
        if machine and not any(other // NUMBERS == machine for other in self.bus.others):
            self._machines.pop(machine, None)

    def _followers_of(self, worker: int) -> Iterator[Follower]:
        return (follower for (holder, _), (_, follower) in self._following.items() if holder == worker)


def client_of(worker: int, client: int) -> int:
    """What tells a client of that worker from all others here: each machine numbers its own."""
    return client and client | worker // NUMBERS << 64


def id_of(fingerprint: bytes, what: Any) -> bytes:
    """What names a lane to all workers whose relay has these settings."""
    return blake2b(fingerprint + msgspec.msgpack.encode(what), digest_size=ID_BYTES).digest()


def fingerprint_of(*settings: object) -> bytes:
    """Of a relay's settings: lanes of others are not its own. No secret can be read from it."""
    return blake2b(repr(settings).encode(), digest_size=32).digest()
