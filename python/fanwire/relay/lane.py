"""The two kinds of lanes: of a SignalR backend, whose calls are answered, and of a plain one, which just sends.

A ``CallLane`` lets its clients watch once the backend has answered its call. What a ``PlainLane`` carries is said by
its URL, for clients that wait to be let in until the backend agrees. Or its first message says it, for clients that are
connected already.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fanwire._engine import Upstream
from fanwire.logs import name_of, relay_log
from fanwire.relay.config import CallShare
from fanwire.relay.driver import Lane, LaneContext, PendingWish, Watcher
from fanwire.relay.everyones import Everyones
from fanwire.relay.machine import Event, Phase
from fanwire.relay.mirror import Mirror, Part, ToldOutcome
from fanwire.relay.names import Names
from fanwire.relay.offering import Offering, Offers
from fanwire.relay.shared import SharedCall
from fanwire.relay.timing import Delay
from fanwire.relay.wire import LOST, NO_CALL, Asked, CallWire, Outcome, PlainWire

ASKED_AGAIN_MAX = 2
"""Connections in a row that may be lost without a word when the backend is asked once more: after that it is not."""


class CallWatcher(Watcher, Protocol):
    """A client of a SignalR relay, as a lane sees it."""

    def complete(self, call: Asked, outcome: Outcome) -> None:
        """The call ended so, for everybody who makes it."""

    def refused(self, lane: "CallLane", call: Asked, outcome: Outcome | None) -> None:
        """The backend refused the lane its call, or, without an outcome, to connect: the client may be allowed it."""

    def given_up(self, lane: "CallLane", call: Asked, why: str) -> None:
        """The call could not be made."""

    def left(self, lane: "CallLane", call: Asked) -> None:
        """The client's call that unsubscribes has had its turn."""


@dataclass(frozen=True, slots=True)
class CallLaneContext(LaneContext):
    """What all lanes of a SignalR relay have in common."""

    everyone: frozenset[str]
    """Targets that come over the broadcast lane, and are dropped here."""
    names: Names
    everyones: Everyones
    offers: Offers[Any] = field(default_factory=Offers)


class CallLane(Lane[CallWatcher]):
    """One subscription at a SignalR backend."""

    __slots__ = (
        *("_asks_again", "_call", "_call_timeout", "_calls", "_dropped", "_keeps_more", "_life", "_lost_asking_again"),
        *("_offering", "_outcome", "_outcome_at", "_patience", "call", "share"),
    )

    context: CallLaneContext

    def __init__(
        self,
        name: str,
        share: CallShare,
        call: SharedCall,
        context: CallLaneContext,
        on_end: Callable[[Lane[Any]], None],
        part: Part | None = None,
    ) -> None:
        self.share = share
        self.call = call
        """That subscribes."""
        self._calls = 0
        self._call: str | None = None
        self._call_timeout: Delay | None = None
        # Until the first of those who wait has waited long enough.
        self._patience: Delay | None = None
        self._outcome: Outcome | None = None
        self._outcome_at = 0.0
        # Whether all that the backend sends before its answer is kept, for those who wait.
        self._keeps_more = False
        # Whether the backend lets it subscribe more than once over one connection.
        self._asks_again = True
        # Connections in a row that were lost as it did, without a word.
        self._lost_asking_again = 0
        # Reports of this connection, by target, and the life of the broadcast lane when it was opened.
        self._dropped: Counter[str] | None = None
        self._life = 0
        self._offering = Offering(context.offers)
        super().__init__(name, CallWire(share, call), context, on_end, part)

    # Clients

    def subscribe(self, client: CallWatcher, call: Asked) -> None:
        """Have the client watch, and answer its call as the backend answered the lane's.

        Raises LimitReached where it would have to wait, and has no room left for that: then nothing has changed.
        """
        is_next = client not in self._waiting  # else this call is behind its others
        is_needed = bool(self.watchers)
        if self._machine.is_live and is_next and self._join_at_once(client):
            if not is_needed:  # else it is one more, and all is settled
                self._settle()
            assert self._outcome is not None  # it is live
            client.complete(call, self._outcome)
            return
        self._wait(client, call, patience_s=self.context.backend.connect_timeout)
        if self.is_mirrored_here and self._machine.is_down and self.part is not None:
            self.part.again()  # who holds it may be refused it
        self._step(Event.WANTED)

    def want(self, mirror: Mirror, lost_s: float | None = None) -> None:
        """Have another worker mirror it, as clients subscribe; or be told something newer than what there is.

        Args:
            lost_s: seconds since when those who watch there have missed what came.
        """
        if self._machine.is_live and mirror not in self._waiting and self._join_mirror(mirror, lost_s):
            self._settle()
            assert self._outcome is not None  # it is live
            mirror.complete(NO_CALL, self._outcome)
        else:
            self._wait(mirror, patience_s=self.context.backend.connect_timeout)
            self._step(Event.WANTED)

    def _join_mirror(self, mirror: Mirror, lost_s: float | None) -> bool:
        share = self.share
        is_new = self.age() < share.fresh
        age_max = None if is_new else share.fresh
        if share.snapshot is None:
            is_joined = is_new and self._join(mirror)
        else:  # who has missed something needs a snapshot that came since
            bound = age_max if lost_s is None else min(lost_s, age_max or lost_s)
            is_joined = self._join(mirror, newest=(share.snapshot_messages_max, bound))
        if is_joined or self._asks_again:
            return is_joined
        if not self._join(mirror):
            self._join_late(mirror)
        return True

    def age(self) -> float:
        """Seconds since the backend's last answer."""
        return self.context.timers.now() - self._outcome_at

    def unsubscribe(self, client: CallWatcher, call: Asked) -> None:
        """Have the client watch no longer, once what it asked for before is done."""
        if client in self._waiting:
            self._wait(client, call, is_leaving=True, patience_s=self.context.backend.connect_timeout)
        else:
            self._let_go(client)
            client.left(self, call)
            self._settle()

    def came(self, client: CallWatcher | None, offer: int) -> None:
        """A client has joined by an offer, and is answered; or one that is gone."""
        is_to_stay, is_first = self._offering.told(offer), not self.watchers
        is_closed = self._machine.phase is Phase.CLOSED
        if client is not None:
            if not is_closed:
                self.watchers[client] = None
            if is_closed or not is_to_stay:
                self._send_away(client)
        if is_first and not is_closed:
            self._settle()

    @property
    def underway(self) -> int:
        """See ``Lane``."""
        return self._offering.underway

    def _join_at_once(self, client: CallWatcher) -> bool:
        """Subscribe the client with what is there; False where the backend is to be asked for something newer."""
        share = self.share
        is_new = self.age() < share.fresh
        if share.snapshot is None:
            if is_new and self._join_again(client):
                return True
        # Newer than an answer that is new enough the backend's next one would not be.
        elif self._join_again(client, share.snapshot_messages_max, None if is_new else share.fresh):
            return True
        if self._asks_again:
            return False
        if not self._join_again(client):
            self._join_late(client)
        return True

    def _join_again(self, client: CallWatcher, messages_max: int | None = None, age_max: float | None = None) -> bool:
        """As ``_join``; one that watches begins once more at the newest snapshot, as it would at the backend."""
        is_again = client in self.watchers
        if is_again and self.share.snapshot is None:
            return True
        return self._join(client, is_again=is_again, newest=(messages_max, age_max))

    def _welcome(self, one: PendingWish[CallWatcher], cause: Upstream | ToldOutcome | None) -> None:
        if not self._join_again(one.client):
            self._join_late(one.client)
        assert self._outcome is not None  # it is the answer
        one.client.complete(one.call, self._outcome)

    def _welcome_all(self, cause: Upstream | ToldOutcome | None) -> None:
        self._offering.withdraw(self)  # the answer is another
        super()._welcome_all(cause)
        if self.share.snapshot is None:
            self.context.engine.forget_beginning(self.name)

    def _refuse(self, one: PendingWish[CallWatcher], cause: Upstream | ToldOutcome | None) -> None:
        is_answer = cause is not None and cause.kind == "completion"
        one.client.refused(self, one.call, cause if is_answer else None)

    def _give_up(self, one: PendingWish[CallWatcher], why: str) -> None:
        one.client.given_up(self, one.call, why)

    def _part(self, one: PendingWish[CallWatcher]) -> None:
        super()._part(one)
        one.client.left(self, one.call)

    def _blame(self) -> None:
        def give_up(one: PendingWish[CallWatcher]) -> None:
            relay_log.warning("%s: the backend ended the connection at this call: %s", self, self.why)
            one.client.given_up(self, one.call, LOST)

        is_told = False
        while self._waiting and not is_told:
            one = self._waiting.take()
            is_told = not one.is_leaving
            self._tell(one, give_up)

    def _send_away(self, client: CallWatcher) -> None:
        self.context.upstreams.endings.close(client.id, 1012, "")

    # The backend

    def _open(self) -> int:
        context = self.context
        context.engine.set_beginning(self.name, context.lanes.snapshot_bytes_max)
        route = ("lane", self.name, context.everyone, self.share.snapshot)
        return context.upstreams.open(self, context.backend, self.call.protocol, route)

    def _ask(self) -> None:
        context = self.context
        context.engine.bound_beginning(self.name, context.asked_bytes_max)
        self._keeps_more = True
        if self._session is None:
            self._ask_holder()
            return
        if self._machine.phase is Phase.RENEWING and self.share.snapshot is not None:
            context.engine.expect_snapshot(self.name)
        self._calls += 1
        self._call = str(self._calls)
        context.upstreams.send(self._session, self.call.record(self._call))
        self._call_timeout = context.timers.later(context.backend.connect_timeout, self._lose_answer, self.fail)

    def _ask_holder(self) -> None:
        """The same of the worker that holds it."""
        if self.part is not None and self._machine.phase is Phase.RENEWING:
            self.part.again()

    def _live_said(self) -> tuple[Any, ...]:
        assert self._outcome is not None  # it has come
        return self._outcome.outcome, self._outcome.body, self.age()

    def _forget_asking(self) -> None:
        if self._call is None:
            return
        self._call = None
        if self._call_timeout is not None:
            self._call_timeout.call_off()
            self._call_timeout = None
        if self.share.snapshot is not None:
            self.context.engine.expect_snapshot(self.name, False)  # one that still comes is everyone's

    def _ask_no_more(self) -> None:
        self._asks_again = False  # its own subscription was fine

    def _suspect(self) -> None:
        self._lost_asking_again += 1
        if self._lost_asking_again >= ASKED_AGAIN_MAX:
            self._ask_no_more()

    def _lose_answer(self) -> None:
        why = f"{self.share.subscribe} was not answered within {self.context.backend.connect_timeout:g} s"
        if self._machine.is_live:  # it was asked again for newcomers: whoever watches goes on
            relay_log.warning("%s: late joiners: %s", self, why)
        else:
            self.why = why
        self._step(Event.UNANSWERED)

    def opened(self, event: Upstream) -> None:
        """The backend has shaken hands."""
        self._dropped = None
        self._life = self.context.everyones.life_of(self.call.protocol)
        self._step(Event.OPENED)

    def happened(self, event: Upstream) -> None:
        """The first message of a target has come; or twice as many of one that is dropped here, as everyone gets it."""
        if event.kind != "came":
            return
        self.context.names.came_over_lane(event.id)
        if event.id in self.context.everyone:
            dropped = self._dropped = self._dropped or Counter()
            dropped[event.id] += 1
            self.context.everyones.dropped(self.call.protocol, event.id, dropped[event.id], self._life)

    def completed(self, event: Upstream) -> None:
        """The backend has answered the lane's call."""
        if event.id != self._call:
            return
        if self._machine.phase is Phase.RENEWING:
            self._lost_asking_again = 0
        if event.outcome != "error":
            self._outcome, self._outcome_at = event, self.context.timers.now()
            self._step(Event.AGREED, event)
            return
        if not self._machine.is_live:
            self.why = f"{self.share.subscribe} was refused"
        self._step(Event.REFUSED, event)

    # Over workers: what the one says who holds it

    def agreed_there(self, *said: Any) -> None:
        """See ``Shared``: outcome, body, and seconds since then."""
        outcome, body, age = said
        self._hear_answer()
        self._outcome, self._outcome_at = ToldOutcome(outcome, body), self.context.timers.now() - age
        self._step(Event.AGREED, self._outcome)

    def refused_there(self, outcome: str | None, body: bytes, status: int | None) -> None:
        """See ``Shared``."""
        answer = None if outcome is None else ToldOutcome(outcome, body)
        if self._machine.phase is Phase.RENEWING:
            self._step(Event.REFUSED, answer)
            return
        self._part_from_holder()
        self.why = f"{self.share.subscribe} was refused"
        if answer is None:
            self._look_again()
            self._step(Event.BARRED)
        else:
            self._hear_answer()
            self._step(Event.REFUSED, answer)

    def given_up_there(self, why: str) -> None:
        """See ``Shared``."""
        if self._machine.phase is Phase.RENEWING:
            self._step(Event.UNANSWERED)
            return
        self._part_from_holder()
        self._hear_answer()
        self.why = why
        self._step(Event.BLAMED if why == LOST else Event.LOST)

    def noted_there(self, what: str, *said: Any) -> None:
        """See ``Shared``: there is no room for it."""
        if what == "no room":
            self._tell_all(lambda one: one.client.given_up(self, one.call, said[0]))
            self._part_from_holder()
            self._lose(said[0])

    def parted(self, why: str) -> None:
        """See ``Shared``."""
        lost = self._lost_asking_again
        super().parted(why)
        self._lost_asking_again = lost  # it was no connection of the backend's

    def _hear_answer(self) -> None:
        """What is told is an answer, whatever was known before."""
        self._look_again()
        if self._machine.phase is Phase.OPENING:
            self._step(Event.OPENED)

    # Time

    def _go_live(self) -> None:
        if self.gap_since is not None and self.context.lanes.on_gap == "close":
            self._offering.outdate()
        super()._go_live()

    def _settle(self) -> None:
        if not (self._machine.is_live and self.watchers):  # before it is asked whether anybody watches
            self._offering.withdraw(self)
        super()._settle()
        if self._machine.is_live and self.watchers and self._outcome is not None:
            self._offering.make(self, self._outcome, self.age())
        if self._keeps_more and not self._machine.is_asking and self._machine.phase is not Phase.CLOSED:
            self._keeps_more = False
            self.context.engine.bound_beginning(self.name, self.context.lanes.snapshot_bytes_max)
        self._be_patient()

    def end(self) -> None:
        """Close it; nobody watches. Raises nothing."""
        self._offering.withdraw(self)
        super().end()
        self._be_patient()

    def _be_patient(self) -> None:
        """Have those who wait told in time that it was in vain, whatever the backend does."""
        if self._waiting and self._machine.phase is not Phase.CLOSED:
            if self._patience is None:
                wait = max(0.0, self._waiting.first.until - self.context.timers.now())
                self._patience = self.context.timers.later(wait, self._lose_patience, self.fail)
        elif self._patience is not None:
            self._patience.call_off()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        self._give_up_all(until=self.context.timers.now())
        if self.is_mirrored_here and self.part is not None and self._machine.phase is Phase.OPENING:
            self.part.parted("the worker that is to hold it says nothing")
        self._settle()


class Visiting(Watcher, Protocol):
    """A client of a plain relay, as a lane sees it."""

    def let_in(self, subprotocol: str | None) -> None:
        """The backend has agreed: the client's upgrade is answered."""

    def turned_away(self, status: int | None) -> None:
        """The backend has refused with that status, or cannot be reached."""

    def refused(self, lane: "PlainLane", message: bytes) -> None:
        """The backend refused the lane that this message of the client was to have: it may be allowed it by itself."""

    def fail(self) -> None:
        """Something went wrong that nobody expected: the client goes."""


class PlainLane(Lane[Visiting]):
    """One connection to a plain backend.

    Args:
        offered: subprotocols.
    """

    __slots__ = ("_offered", "_subprotocol", "_urls", "message")

    def __init__(
        self,
        name: str,
        wire: PlainWire,
        urls: Sequence[str],
        offered: Sequence[str],
        context: LaneContext,
        on_end: Callable[[Lane[Any]], None],
        part: Part | None = None,
    ) -> None:
        self.message = wire.message
        self._urls = urls
        self._offered = offered
        # What the backend chose.
        self._subprotocol: str | None = None
        super().__init__(name, wire, context, on_end, part)

    # Clients

    def admit(self, client: Visiting) -> None:
        """Let the client in and have it watch, once the backend has agreed."""
        if self._machine.is_live:
            self._let_in(client)
            self._settle()
        else:
            self._wait(client)

    def watch(self, client: Visiting) -> None:
        """Have a client that is connected watch from now on.

        Raises LimitReached, as at ``channels_max``: then ``leave`` makes it undone.
        """
        if not self._join(client):
            self._join_late(client)
        if self._machine.is_live:
            self._settle()
        else:  # should the backend refuse, it is refused too
            self._wait(client)

    def want(self, mirror: Mirror, lost_s: float | None = None) -> None:
        """Have another worker mirror it: what its message says from the beginning, else once the backend has agreed."""
        if self.message is not None:
            self._join(mirror)
        if self._machine.is_live:
            self._let_in_mirror(mirror)
            self._settle()
        else:
            self._wait(mirror)

    def _let_in_mirror(self, mirror: Mirror) -> None:
        if not mirror.is_joined and not self._join(mirror):
            self._join_late(mirror)
        mirror.let_in(self._subprotocol)

    def leave(self, client: Visiting) -> None:
        """Have the client watch no longer."""
        self._waiting.drop(client)
        self._let_go(client)
        self._settle()

    def _let_in(self, client: Visiting) -> None:
        client.let_in(self._subprotocol)
        if not self._join(client):
            self._join_late(client)

    def _welcome(self, one: PendingWish[Visiting], cause: Upstream | ToldOutcome | None) -> None:
        if isinstance(one.client, Mirror):
            self._let_in_mirror(one.client)
        elif self.message is None:
            self._let_in(one.client)

    def _welcome_all(self, cause: Upstream | ToldOutcome | None) -> None:
        super()._welcome_all(cause)
        self.context.engine.forget_beginning(self.name)

    def _refuse(self, one: PendingWish[Visiting], cause: Upstream | ToldOutcome | None) -> None:
        if self.message is None:
            one.client.turned_away(None if cause is None else cause.status)
        else:
            self._let_go(one.client)
            one.client.refused(self, self.message)

    def _give_up(self, one: PendingWish[Visiting], why: str) -> None:
        one.client.fail()

    def _blame(self) -> None:
        for client in self.watchers:
            text = "client %s of %s could not go on"
            with self.context.upstreams.faults.contained("relay.lane", text, name_of(client.id), self):
                self._let_go(client)
                client.refused(self, self.message or b"")
            return
        for mirror in [] if self.part is None else list(self.part.mirrors.values()):
            mirror.refused(self)
            return

    def _send_away(self, client: Visiting) -> None:
        client.fail()

    # The backend

    def _open(self) -> int:
        context = self.context
        if self.message is None:
            # For those who wait: what the backend sends first may be here before they are let in.
            context.engine.set_beginning(self.name, context.asked_bytes_max)
        offered = self._offered if self._subprotocol is None else (self._subprotocol,)
        route = ("lane", self.name)
        session = self._session = context.upstreams.open_plain(self, context.backend, offered, route, urls=self._urls)
        if self.message is not None:
            context.upstreams.send_message(session, self.message, is_text=True)
        return session

    def opened(self, event: Upstream) -> None:
        """The backend has agreed."""
        self._subprotocol = event.subprotocol
        self._step(Event.AGREED, event)

    def closed(self, event: Upstream) -> None:
        """The connection is gone, or could not be had."""
        if self._waiting and event.status is None:
            relay_log.warning("%s cannot be opened: %s", self, event.text)
        super().closed(event)

    # Over workers

    def _live_said(self) -> tuple[Any, ...]:
        return (self._subprotocol,)

    def agreed_there(self, *said: Any) -> None:
        """See ``Shared``: the subprotocol."""
        (subprotocol,) = said
        self._look_again()
        self._subprotocol = subprotocol
        self._step(Event.AGREED)

    def refused_there(self, outcome: str | None, body: bytes, status: int | None) -> None:
        """See ``Shared``: of one that is live it was the first one's message."""
        self._part_from_holder()
        if self._machine.is_live:
            self._note_lived()
            self._step(Event.BLAMED)
        else:
            self._look_again()
            self._step(Event.BARRED, ToldOutcome("", b"", status, "closed"))

    def given_up_there(self, why: str) -> None:
        """See ``Shared``."""
        self._part_from_holder()
        self._lose(why)

    def noted_there(self, what: str, *said: Any) -> None:
        """See ``Shared``: there is no room for it."""
        if what == "no room":
            self._part_from_holder()
            self._look_again()
            self._step(Event.BARRED, ToldOutcome("", b"", None, "closed"))
