"""The broadcast lane: what a backend sends to all its clients, and to each when it connects, once for all.

A message does not say whom it was sent to. So what goes to all is named in ``everyone.targets`` and taken from here
only; what greets each connection is named in ``everyone.welcome``, kept, and given to each client that comes.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from fanwire._engine import Upstream
from fanwire._loop import ends_task
from fanwire.errors import PayloadTooBig
from fanwire.logs import name_of, relay_log
from fanwire.relay.lane import CallLaneContext
from fanwire.relay.mirror import Mirror, Part
from fanwire.relay.timing import Backoff, Delay
from fanwire.relay.upstreams import REFUSING, SessionHandler
from fanwire.wording import INTERNAL_ERROR, brief

SPOKEN_BY_ALL = "json"
"""The hub protocol that no server is without: one that refuses it has a bad moment."""


class BroadcastLane(SessionHandler):
    """One hub protocol's; open from its first client until serving ends, once the backend has agreed to it.

    A backend that refuses its handshake, and has never agreed, does not speak the protocol, unless that is JSON, which
    all speak: it is not asked again before a client comes that does, and not sooner than `backoff_max`. Before it has
    agreed, and where it does not any more, it is asked for nobody.

    Args:
        refuse: is given the words with which the backend refused it, for all clients that speak it.
        on_end: called once it is over.
        part: in what several workers share, if there are any: one of them holds it, the others mirror it.
    """

    def __init__(
        self,
        context: CallLaneContext,
        protocol: str,
        route: tuple[str, str, frozenset[str], frozenset[str]],
        backoff: Backoff,
        greet: Callable[[bytes], None],
        refuse: Callable[[str], None],
        on_end: Callable[["BroadcastLane"], None],
        part: Part | None = None,
    ) -> None:
        self.part = part
        """See above."""
        if part is not None:
            part.belongs_to(self, route[1], protocol)
        self._pause = context.lanes.backoff_max
        self._upstreams, self._timers, self._backend = context.upstreams, context.timers, context.backend
        self._protocol = protocol
        self._route = route
        self._backoff = backoff
        self._greet, self._refuse, self._on_end = greet, refuse, on_end
        self._names, self._everyones = context.names, context.everyones
        self._welcome: dict[str, bytes] = {}
        self._waiting: dict[Callable[[], None], None] | None = {}
        self._give_up_at = self._timers.now() + context.backend.connect_timeout
        self.why = ""
        """Why it is down; empty while it is live or has not been opened."""
        self.refusal = ""
        """The backend's words, where it does not speak the protocol."""
        self.is_live = False
        # Whether the backend has agreed to it, and has not refused it since.
        self._has_agreed = False
        self._is_spoken_here = True
        self._is_over = False
        self._open_since: float | None = None
        # One that is there or asked for; and what happens later: a retry, or its end.
        self._session: int | None = None
        self._timer: Delay | None = None
        self._connect()

    @property
    def welcome(self) -> list[bytes]:
        """What a client gets when it connects, one by one."""
        return list(self._welcome.values())

    def when_ready(self, go_on: Callable[[], None]) -> bool:
        """Whether it is there, or has been waited for long enough; else `go_on` is called then."""
        if self._waiting is None:
            return True
        self._waiting[go_on] = None
        return False

    def forget(self, go_on: Callable[[], None]) -> None:
        """Who waited is gone."""
        if self._waiting:
            self._waiting.pop(go_on, None)

    @property
    def _is_mirrored_here(self) -> bool:
        return self.part is not None and self.part.holder is not None

    @property
    def _is_spoken(self) -> bool:
        """Whether any client speaks it, here or in other workers."""
        return self._is_spoken_here or (self.part is not None and bool(self.part.mirrors))

    def spoken(self, *, is_spoken: bool) -> None:
        """Whether any client speaks it has changed."""
        self._is_spoken_here = is_spoken
        # What is refused is remembered for a while; and what has been asked for says how the backend is.
        is_asked_for = self._session is not None or self._is_mirrored_here
        if not (self._is_spoken or self._has_agreed or self.refusal or is_asked_for):
            self.end()

    def end(self) -> None:
        """Close it. Raises nothing."""
        if self._is_over:
            return
        self._is_over = True
        self._call_off()
        self._everyones.lost(self._protocol)
        self._on_end(self)
        if self.part is not None:
            with self._upstreams.faults.contained("relay.broadcast", "other workers could not be told that it ends"):
                self.part.end(0)
        if self._session is not None:
            self._upstreams.close(self._session)

    def _call_off(self) -> None:
        if self._timer is not None:
            self._timer.call_off()
            self._timer = None

    def _connect(self) -> None:
        self._timer = None
        if self.part is not None and self.part.follow(0, None):
            return
        self._session = self._upstreams.open(self, self._backend, self._protocol, self._route)

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting or {}, None
        for go_on in waiting:
            with self._upstreams.faults.contained("relay.broadcast", "a client could not go on"):
                go_on()

    def fail(self) -> None:
        """Nobody waits for it; it is opened anew, if it was lost."""
        self._let_go()

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        if not self._is_over:
            self._go_live()

    def _go_live(self) -> None:
        self._has_agreed = True
        if self.part is not None:
            self.part.tell("live", list(self._welcome.items()))
        if self.why:
            relay_log.info("the broadcast lane of %s (%s) is back", self._route[1], self._protocol)
        self.is_live, self.why = True, ""
        self._everyones.opened(self._protocol)
        self._open_since = self._timers.now()
        self._let_go()

    def happened(self, event: Upstream) -> None:
        """A greeting, or the first message of another target."""
        if self._is_over:
            return
        if event.kind == "welcome":
            self._keep_welcome(event.id, event.body)
            self._names.greeted(event.id)
        elif event.kind == "came":
            self._names.came_to_all(event.id)
            self._everyones.came_to_all(self._protocol, event.id)
        elif event.kind == "unnamed":
            self._names.unnamed(event.id)

    def _keep_welcome(self, target: str, records: bytes) -> None:
        is_first = target not in self._welcome
        self._welcome[target] = records
        if is_first:
            self._greet(records)
        if self.part is not None:
            self.part.tell("welcome", target, records)

    def closed(self, event: Upstream) -> None:
        """It is down, and tried again, unless nobody needs it or the backend does not speak the protocol."""
        self._session = None
        if self._is_over:
            return
        self._everyones.lost(self._protocol)
        if event.fault == "handshake":
            if not self._has_agreed and self._protocol != SPOKEN_BY_ALL:
                self._be_refused(event.body.decode())
                return
            self._has_agreed = False  # it may be a bad moment: the next says
        if self.is_live or not self.why:
            relay_log.warning("the broadcast lane of %s (%s) is down: %s", self._route[1], self._protocol, event.text)
            if event.status in REFUSING and self._route[2]:
                relay_log.warning(
                    "nobody gets the targets of everyone (%s) until the backend lets the broadcast lane in: "
                    "lanes.token or lanes.headers say who it is",
                    ", ".join(sorted(self._route[2])),
                )
        self._go_down(brief(event.text) or "closed")
        if not (self._is_spoken or self._has_agreed):
            self.end()
            return
        self._connect_later()
        if self._timers.now() > self._give_up_at or event.status is not None:
            self._let_go()  # who waits for it longer waits in vain

    def _go_down(self, why: str) -> None:
        if self.is_live and self.part is not None:
            self.part.tell("down", why)
        self.is_live, self.why = False, why

    # Over workers

    def want(self, mirror: Mirror, lost_s: float | None = None) -> None:
        """Have another worker mirror it."""
        if self.part is None:
            return
        self.part.join(mirror, is_late=False)
        if self.refusal:
            mirror.tell("refused", None, self.refusal.encode(), None)
        elif self.is_live:
            mirror.tell("live", list(self._welcome.items()))

    def age(self) -> float:
        """Nothing that it has is old."""
        return 0.0

    def agreed_there(self, *said: Any) -> None:
        """See ``Shared``: what greets."""
        for target, records in said[0]:
            self._keep_welcome(target, records)
        self._go_live()

    def noted_there(self, what: str, *said: Any) -> None:
        """See ``Shared``."""
        if what == "welcome":
            self._keep_welcome(*said)

    def refused_there(self, outcome: str | None, body: bytes, status: int | None) -> None:
        """See ``Shared``."""
        self._be_refused(body.decode())

    def given_up_there(self, why: str) -> None:
        """See ``Shared``: nobody waits for it any longer."""
        self._let_go()

    def down_there(self, why: str) -> None:
        """See ``Shared``: it comes back by itself."""
        if self.is_live or not self.why:
            relay_log.warning("the broadcast lane of %s (%s) is down: %s", self._route[1], self._protocol, why)
        self._everyones.lost(self._protocol)
        self._go_down(why)

    def parted(self, why: str) -> None:
        """See ``Shared``."""
        self.down_there(why)
        if not self._is_over and self._timer is None and self._session is None:
            if self.part is not None and self.part.is_sent_on:
                self._connect()
            else:
                self._connect_later()

    def yielded(self) -> None:
        """See ``Shared``."""
        if self._session is not None:
            self._upstreams.close(self._session)

    def mirror_gone(self, mirror: Mirror) -> None:
        """See ``Shared``."""
        if not self._is_over:
            self.spoken(is_spoken=self._is_spoken_here)

    def _connect_later(self) -> None:
        lived = 0.0 if self._open_since is None else self._timers.now() - self._open_since
        self._open_since = None
        pause = None if self.part is None else self.part.pause()
        wait = self._backoff.next(lived) if pause is None else pause
        self._timer = self._timers.later(wait, self._connect, self._connect_later)

    def _be_refused(self, words: str) -> None:
        self.why, self.refusal = brief(f"refused: {words}"), words
        relay_log.warning(
            "the backend of %s does not speak %s, and clients that do are closed: %s",
            self._route[1],
            self._protocol,
            words,
        )
        self._waiting = None
        if self.part is not None:
            self.part.tell("refused", None, words.encode(), None)
        self._call_off()
        self._timer = self._timers.later(self._pause, self.end, self.end)
        self._refuse(words)


class Broadcasts:
    """Those of a relay, by hub protocol.

    Args:
        turn_away: closes the client of this number, with the words in which the backend refused its hub protocol.
        present: gives the clients that have shaken hands and speak this hub protocol.
        part_of: gives a lane's part in what workers share, held here or wherever it is.
        changed: is told of each lane that is there, and that is not any more.
    """

    def __init__(
        self,
        context: CallLaneContext,
        route: tuple[str, str, frozenset[str], frozenset[str]],
        turn_away: Callable[[int, str], None],
        present: Callable[[str], Iterable[int]],
        part_of: Callable[[str, bool], Part | None] = lambda protocol, is_held: None,
        changed: Callable[[BroadcastLane, bool], object] = lambda lane, is_there: None,
    ) -> None:
        self._context, self._route, self._turn_away, self._present = context, route, turn_away, present
        self._part_of, self._changed = part_of, changed
        self._lanes: dict[str, BroadcastLane] = {}
        # How many of the clients that are connected speak each.
        self._speaking: Counter[str] = Counter()

    def came(self, id: int, protocol: str) -> bool:
        """A client has shaken hands, and is greeted; or it is turned away, and False given."""
        self._speaking[protocol] += 1
        lane = self._lane(protocol)
        lane.spoken(is_spoken=True)
        if lane.refusal:
            self._turn_away(id, lane.refusal)
            return False
        self._welcome(id, lane.welcome)
        return True

    def left(self, protocol: str) -> None:
        """One that came is gone."""
        self._speaking[protocol] -= 1
        lane = self._lanes.get(protocol)
        if lane is not None and not self._speaking[protocol]:
            lane.spoken(is_spoken=False)

    def when_ready(self, protocol: str, go_on: Callable[[], None]) -> bool:
        """Whether clients of this protocol may begin; else `go_on` is called when they may."""
        return self._lane(protocol).when_ready(go_on)

    def forget(self, protocol: str, go_on: Callable[[], None]) -> None:
        """Who waited for that is gone."""
        lane = self._lanes.get(protocol)
        if lane is not None:
            lane.forget(go_on)

    def end(self) -> None:
        """Close all. Raises nothing."""
        for lane in list(self._lanes.values()):
            lane.end()

    def stats(self) -> dict[str, str]:
        """How each stands: ``live``, or why it is down."""
        return {protocol: lane.why or "live" for protocol, lane in self._lanes.items()}

    def hold(self, protocol: str) -> BroadcastLane:
        """The one of this protocol, held here for other workers. There is none yet."""
        lane = self._lane(protocol, is_held=True)
        lane.spoken(is_spoken=self._speaking[protocol] > 0)
        return lane

    def _lane(self, protocol: str, *, is_held: bool = False) -> BroadcastLane:
        lane = self._lanes.get(protocol)
        if lane is None:
            lanes, greet, refuse = self._context.lanes, partial(self._greet, protocol), partial(self._refuse, protocol)
            backoff = Backoff(lanes.backoff_min, lanes.backoff_max)
            lane = self._lanes[protocol] = BroadcastLane(
                self._context,
                protocol,
                self._route,
                backoff,
                greet,
                refuse,
                self._forget_lane,
                self._part_of(protocol, is_held),
            )
            self._changed(lane, True)
        return lane

    def _forget_lane(self, lane: BroadcastLane) -> None:
        self._lanes = {protocol: one for protocol, one in self._lanes.items() if one is not lane}
        self._changed(lane, False)

    def _refuse(self, protocol: str, words: str) -> None:
        for id in list(self._present(protocol)):
            self._turn_away(id, words)

    def _greet(self, protocol: str, records: bytes) -> None:
        """Give a welcome that has just come to those who came before it."""
        for id in self._present(protocol):
            self._welcome(id, (records,))

    def _welcome(self, id: int, welcome: Iterable[bytes]) -> None:
        """Give a client each greeting by itself: together they may be more than what may wait for it."""
        upstreams = self._context.upstreams
        for records in welcome:
            try:
                self._context.engine.send_records(id, records)
            except PayloadTooBig as error:
                upstreams.endings.close(id, 1013, error)
                return
            except BaseException as error:
                if ends_task(error):
                    raise
                upstreams.faults.note("relay.welcome", error, "client %s could not be greeted", name_of(id))
                upstreams.endings.close(id, 1011, INTERNAL_ERROR)
                return
