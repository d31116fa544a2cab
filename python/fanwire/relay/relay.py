"""One relay: a path whose clients are a backend's, over as few connections to it as there are things watched.

It says who may connect (``admit``), keeps the lanes by what they watch (``lane``), the broadcast lanes
(``broadcast``), the pools (``pool``) and its clients (``client``).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from fanwire._engine import Closed, Connected, HubMessage, Message, Opening, Relayed
from fanwire._loop import ends_task
from fanwire.auth import Request, is_negotiate
from fanwire.client import Client
from fanwire.errors import ClientGone, LimitReached, PayloadTooBig
from fanwire.hosting import Hosting
from fanwire.logs import name_of, relay_log
from fanwire.relay.admit import HubAdmission, Verdict, nothing
from fanwire.relay.backed import Surroundings
from fanwire.relay.broadcast import BroadcastLane
from fanwire.relay.client import CallRelay, RelayedClient
from fanwire.relay.config import CallShare, RelayConfig
from fanwire.relay.everyones import Everyones
from fanwire.relay.lane import CallLane, CallLaneContext
from fanwire.relay.pool import Pool
from fanwire.relay.shared import SharedCall
from fanwire.relay.unsubscribing import LearnedAnswers
from fanwire.relay.wire import Asked
from fanwire.wording import INTERNAL_ERROR

NOT_SPOKEN = 1003
"""The close code of a client whose hub protocol the backend does not speak: it is not to come back with it."""


class Relay(Hosting, CallRelay):
    """See the module."""

    def __init__(self, config: RelayConfig, around: Surroundings) -> None:
        Hosting.__init__(self, around.link)
        CallRelay.__init__(self, config, around)
        # Of those who are asked about: what cancels that.
        self._at_work: dict[int, Callable[[], object]] = {}
        shares = [share for share in config.share if isinstance(share, CallShare)]
        self.subscribing: dict[str, CallShare] = {share.subscribe.casefold(): share for share in shares}
        self.unsubscribing: dict[str, CallShare] = {
            share.unsubscribe.casefold(): share for share in shares if share.unsubscribe is not None
        }
        self.pooled = {method.casefold(): method for method in config.private.pooled}
        everyone, welcome = frozenset(config.everyone.targets), frozenset(config.everyone.welcome)
        subscribing = frozenset(share.subscribe.lower() for share in shares)
        self.private_context = self._upstreams, self._own, everyone | welcome, subscribing
        self._admission = HubAdmission(
            self._upstreams,
            replace(self._own, connect_timeout=self._answer_s),
            asks=config.admit == "negotiate",
            admit_for=config.admit_for,
            passing=self._passing,
        )
        self._context = CallLaneContext(
            self.engine,
            self._upstreams,
            self._timers,
            self._shared,
            config.linger,
            config.lanes,
            self._lingering,
            everyone | welcome,
            self.names,
            Everyones(config.path, config.everyone.targets, self._timers.later),
        )
        self._broadcast_route = ("broadcast", config.path, everyone, welcome)
        self._broadcasts: dict[str, BroadcastLane] = {}
        self._pools: dict[str, Pool] = {}
        self._answers = LearnedAnswers(self._context)
        # Hub protocols of the clients that are connected, and how many speak each.
        self._present: dict[int, str] = {}
        self._speaking: Counter[str] = Counter()

    # Clients

    def opening(self, event: Opening) -> None:
        """Somebody asks to connect, or what to connect with; the backend's answer may come later."""
        request = Request(event)
        visitor, identity = self._admission.visitor(request)
        self._clients[event.connection] = Client(event.connection, self._link, identity)
        call_off = self._admission.ask(visitor, partial(self._answered, event, request))
        if call_off is not nothing:
            self._at_work[event.connection] = call_off

    def _answered(self, event: Opening, request: Request, verdict: Verdict, cookies: Sequence[str]) -> None:
        """What the backend says of one that asks to connect."""
        id, headers = event.connection, request.response_headers
        self._at_work.pop(id, None)
        try:
            self._admission.give(cookies, headers)
            if not 100 <= verdict.status < 300:
                self.endings.refuse(id, *verdict.refusal, list(headers))
            elif request.method == "POST" and verdict.body:  # an error in the backend's own words, to be read
                self.engine.respond(id, 200, "application/json", verdict.body, list(headers))
            else:
                self.engine.accept(id, event.channels, None, list(headers), request.subprotocol)
                if is_negotiate(event):  # its transport is asked about, too
                    self._clients.pop(id, None)
        except LimitReached as error:
            self.endings.refuse(id, 503, error)
        except BaseException as error:
            if ends_task(error):
                raise
            text = "the relay at %s, on the opening of client %s, raised"
            self.faults.note("opening", error, text, self.config.path, name_of(id))
            self.endings.refuse(id, 500, INTERNAL_ERROR)

    def connected(self, event: Connected) -> None:
        """A client has shaken hands: it hears from now on what is sent to all."""
        client = self._arrived(event)
        protocol = client.hub_protocol or "json"
        self._present[client.id] = protocol
        self._speaking[protocol] += 1
        broadcast = self._broadcast(protocol)
        broadcast.spoken(is_spoken=True)
        if broadcast.refusal:
            self._turn_away(client, NOT_SPOKEN, broadcast.refusal)
            return
        self._welcome(client.id, broadcast.welcome)
        if self.config.private.eager:
            client._calls = relayed = RelayedClient(self, client)
            relayed.hold()

    def message(self, event: Message | Relayed | HubMessage) -> None:
        """A client has sent a message of the hub protocol."""
        assert isinstance(event, HubMessage)  # the wire of its path
        client = self._clients.get(event.connection)
        if client is None:
            return
        if client._is_turned_away:
            self.acknowledge(client.id)
            return
        if client._calls is None:
            client._calls = RelayedClient(self, client)
        client._calls.take(event)

    def closed(self, event: Closed) -> None:
        """A client is gone, or somebody who asked to connect has left."""
        self._part(event.connection, ClientGone(event.code, event.reason, event.by))

    def _part(self, id: int, gone: ClientGone) -> None:
        self._forget_speaker(id)
        self._call_off(id)
        client = self._left(id, gone)
        if client is not None and client._calls is not None:
            client._calls.end(gone)

    def _call_off(self, connection: int) -> None:
        call_off = self._at_work.pop(connection, None)
        if call_off is not None:
            relay_log.debug("client %s left before it was answered", name_of(connection))
            call_off()

    def _forget_speaker(self, id: int) -> None:
        protocol = self._present.pop(id, None)
        if protocol is None:
            return
        self._speaking[protocol] -= 1
        broadcast = self._broadcasts.get(protocol)
        if broadcast is not None and not self._speaking[protocol]:
            broadcast.spoken(is_spoken=False)

    def _turn_away_all(self, protocol: str, words: str) -> None:
        for id, spoken in list(self._present.items()):
            if spoken == protocol:
                self._turn_away(self._clients[id], NOT_SPOKEN, words)

    def _greet(self, protocol: str, records: bytes) -> None:
        """Give a welcome that has just come to those who came before it."""
        for id, spoken in self._present.items():
            if spoken == protocol:
                self._welcome(id, (records,))

    def _welcome(self, id: int, welcome: Iterable[bytes]) -> None:
        """Give a client each greeting by itself: together they may be more than what may wait for it."""
        for records in welcome:
            try:
                self.engine.send_records(id, records)
            except PayloadTooBig as error:
                self.endings.close(id, 1013, error)
                return
            except BaseException as error:
                if ends_task(error):
                    raise
                self.faults.note("relay.welcome", error, "client %s could not be greeted", name_of(id))
                self.endings.close(id, 1011, INTERNAL_ERROR)
                return

    def when_ready(self, protocol: str, go_on: Callable[[], None]) -> bool:
        """Whether clients of this protocol may begin; else `go_on` is called when they may."""
        return self._broadcast(protocol).when_ready(go_on)

    def _broadcast(self, protocol: str) -> BroadcastLane:
        broadcast = self._broadcasts.get(protocol)
        if broadcast is None:
            greet, refuse = partial(self._greet, protocol), partial(self._turn_away_all, protocol)
            broadcast = self._broadcasts[protocol] = BroadcastLane(
                self._context, protocol, self._broadcast_route, self.backoff(), greet, refuse, self._end_broadcast
            )
        return broadcast

    def _end_broadcast(self, broadcast: BroadcastLane) -> None:
        self._broadcasts = {protocol: one for protocol, one in self._broadcasts.items() if one is not broadcast}

    # Lanes

    def open_lane(self, share: CallShare, call: SharedCall) -> CallLane:
        """The lane of this call, which has none yet."""
        return self._keep(call, lambda name, on_end: CallLane(name, share, call, self._context, on_end))

    def answer_unsubscribe(self, client: RelayedClient, lane: CallLane, call: Asked) -> None:
        """Answer a client that has left a lane as the backend would have."""
        if call.id:
            self._answers.answer(client, lane, call)

    def forget(self, client: RelayedClient) -> None:
        """A client is gone: what waits for it elsewhere is for nobody."""
        self._answers.gone(client)
        broadcast = self._broadcasts.get(client.protocol)
        if broadcast is not None:
            broadcast.forget(client.release)
        for pool in self._pools.values():
            pool.gone(client)

    def pool_of(self, protocol: str) -> Pool:
        """The shared connections for pooled methods."""
        pool = self._pools.get(protocol)
        if pool is None:
            private = self.config.private
            pool = self._pools[protocol] = Pool(self._context, protocol, private.pool_size, private.idle)
        return pool

    # Its end, and what is visible

    def _part_with_all(self, gone: ClientGone) -> None:
        for id in [*self._at_work, *self._clients]:
            with self.faults.contained("relay.end", "client %s could not be parted with", name_of(id)):
                self._part(id, gone)
        for broadcast in list(self._broadcasts.values()):
            broadcast.end()

    def _broadcasts_stats(self) -> dict[str, str]:
        return {protocol: one.why or "live" for protocol, one in self._broadcasts.items()}
