"""One relay of plain WebSockets: a path whose clients are a backend's, over one connection for each thing watched.

It says how a client is let in, and keeps the lanes by what they watch (``plain_lane``). No bytes come by here but what
clients send.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from fanwire._engine import Closed, HubMessage, Message, Opening, Relayed, canonical
from fanwire.errors import ClientGone
from fanwire.logs import name_of
from fanwire.owner import ClientEvent
from fanwire.relay.admit import SWITCHING, PlainAdmission, Verdict
from fanwire.relay.backed import Surroundings
from fanwire.relay.config import MessageShare, QueryShare, RelayConfig
from fanwire.relay.credentials import Reader, Visitor, visitor_of
from fanwire.relay.driver import Lane, LaneContext
from fanwire.relay.headers import query_of, values_of, with_query, without
from fanwire.relay.lane import PlainLane
from fanwire.relay.mirror import Part
from fanwire.relay.plain_client import MessageRelay, PlainClient, Wish
from fanwire.relay.shared import message_of
from fanwire.relay.wire import PlainWire

NOWHERE = object()
"""There is no value where a pointer points to."""


class PlainRelay(MessageRelay):
    """See the module."""

    def __init__(self, config: RelayConfig, around: Surroundings) -> None:
        super().__init__(config, around)
        self._clients: dict[int, PlainClient] = {}
        self._reader = Reader(self._passing)
        self._by_query = [share for share in config.share if isinstance(share, QueryShare)]
        self._by_message = [share for share in config.share if isinstance(share, MessageShare)]
        self._has_own_headers = bool(config.lanes.headers) or config.lanes.token is not None
        self._private_context = self._upstreams, self._own, self.gate, config.private.idle
        self._context = LaneContext(*self._of_lanes)
        asks = config.admit == "negotiate"
        asked = replace(self._own if asks else self._shared, connect_timeout=self._answer_s)
        self._admission = PlainAdmission(self._upstreams, asked, asks=asks, admit_for=config.admit_for)
        self._share_admission(self._admission)

    # Clients

    def opening(self, event: Opening) -> None:
        """A client asks to connect: the backend's answer will be its own."""
        visitor = visitor_of(event, self._reader)
        if self._by_query:
            self.names.connected_with(visitor.query)
        for index, share in enumerate(self._by_query):
            values = values_of(visitor.query, share.query)
            if values is None:
                break  # it is its own
            if any(values) or not share.query:
                self._visit_lane(event.connection, visitor, index, share, values)
                return
        client = self._client(event.connection, visitor, visitor.query)
        if not self._by_message:
            client.open_privately(visitor.subprotocols)
            return

        def answered(verdict: Verdict, cookies: Sequence[str] = ()) -> None:
            if client.is_over:
                return
            self._admission.give(cookies, client.headers)
            if verdict.status == SWITCHING:
                client.let_in(verdict.subprotocol)
            else:
                client.turned_away(verdict.status)

        client.forget_asking = self._admission.ask(visitor, answered)

    def message(self, event: Message | Relayed | HubMessage) -> None:
        """A client has sent a message."""
        assert isinstance(event, Relayed)  # the wire of its path
        client = self._clients.get(event.connection)
        if client is not None:
            client.take(event)

    def closed(self, event: Closed) -> None:
        """A client is gone, let in or not."""
        client = self._clients.pop(event.connection, None)
        if client is not None:
            client.end(ClientGone(event.code, event.reason, event.by))

    def failed(self, event: ClientEvent) -> None:
        """Something went wrong with an event that nobody expected: its connection is being ended."""
        client = self._clients.pop(event.connection, None) if isinstance(event, Opening) else None
        if client is not None:
            client.end(ClientGone(1006, "", "server"))

    def _visit_lane(
        self, connection: int, visitor: Visitor, index: int, share: QueryShare, values: tuple[tuple[str, ...], ...]
    ) -> None:
        rest = without(visitor.query, share.query)
        client = self._client(connection, visitor, rest)
        key = ("query", index, values, visitor.subprotocols)

        def answered(verdict: Verdict, cookies: Sequence[str] = ()) -> None:
            if client.is_over:
                return
            self._admission.give(cookies, client.headers)
            lane = self.lanes.get(key)
            if verdict.status != SWITCHING:
                client.turned_away(verdict.status)
            elif lane is None and not self.has_room([*key, None]):
                client.close_over_bound(self.over_max)
            else:
                client.join(lane or self._open_query(index, values, visitor.subprotocols))

        # Who shows nothing that the lane does not show, and the lane nothing either, is let in as the lane is.
        shows_nothing = visitor.is_anybody and not rest and not self._has_own_headers
        if shows_nothing or self.config.admit == "anyone":
            answered(Verdict(SWITCHING))
        else:
            client.forget_asking = self._admission.ask(visitor, answered)

    def _client(self, connection: int, visitor: Visitor, query: str) -> PlainClient:
        urls = with_query(self._own.urls, query)
        client = PlainClient(self, connection, visitor.credentials, urls, self._private_context)
        self._clients[connection] = client  # whatever becomes of it, it is ended
        return client

    # Lanes

    def wish_of(self, message: Relayed, subprotocol: str | None) -> Wish | None:
        """What a message wishes for that is shared; None of any other."""
        if not (self._by_message and message.is_text):
            return None
        read = message_of(message.data)
        if read is None:
            return None  # it is no JSON, or says what only its own bytes say
        form, document = read
        for index, share in enumerate(self._by_message):
            for pointer, is_subscribing in ((share.subscribe, True), (share.unsubscribe, False)):
                value = NOWHERE if pointer is None else value_of(pointer, document)
                if value is not NOWHERE:
                    self.names.pointed_to(pointer or "")
                    key = "message", index, canonical("json", msgspec.json.encode(value)), subprotocol
                    return Wish(is_subscribing, key, form, value)
        self.names.pointed_elsewhere(document if isinstance(document, dict) else ("",))
        return None

    def open_lane(self, wish: Wish, *, is_held: bool = False) -> PlainLane:
        """The lane of this wish, which has none yet; with `is_held` it is held here, whatever other workers hold."""
        _, index, _, subprotocol = wish.key
        offered, pointer = () if subprotocol is None else (subprotocol,), self._by_message[index].subscribe
        urls = self._own.urls
        return self._open(wish.key, pointer, urls, offered, wish.message, wish.what, is_held=is_held)

    def _open(
        self, key: Any, way: str, urls: Any, offered: Any, message: bytes | None, what: Any, *, is_held: bool = False
    ) -> PlainLane:
        wire = PlainWire(way, message, what)

        def make(name: str, on_end: Callable[[Lane[Any]], None], part: Part | None) -> PlainLane:
            return PlainLane(name, wire, urls, offered, self._context, on_end, part)

        return self._keep(key, [*key, message], make, is_held=is_held)

    def _open_for_other(self, what: Any) -> PlainLane | str | None:
        if not self.has_room():
            return self.over_max
        match what:
            case ["query", int(index), list(values), list(subprotocols), None] if index < len(self._by_query):
                return self._open_query(index, tuple(map(tuple, values)), tuple(subprotocols), is_held=True)
            case ["message", int(index), bytes(value), subprotocol, bytes(message)] if index < len(self._by_message):
                key = "message", index, value, subprotocol
                wish = Wish(True, key, message, msgspec.json.decode(value))
                return self.open_lane(wish, is_held=True)
        return None

    def _open_query(
        self, index: int, values: tuple[tuple[str, ...], ...], subprotocols: tuple[str, ...], *, is_held: bool = False
    ) -> PlainLane:
        share = self._by_query[index]
        urls = with_query(self._own.urls, query_of(share.query, values))
        what = dict(zip(share.query, values, strict=True))
        key, way = ("query", index, values, subprotocols), f"?{'&'.join(share.query)}"
        return self._open(key, way, urls, subprotocols, None, what, is_held=is_held)

    def _part_with_all(self, gone: ClientGone) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            with self.faults.contained("relay.end", "client %s could not be parted with", name_of(client.id)):
                client.end(gone)


def value_of(pointer: str, document: Any) -> Any:
    """What a JSON pointer (RFC 6901) points to in a document that holds nothing else; ``NOWHERE`` in any other."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and document.keys() == {name}:
            document = document[name]
        elif isinstance(document, list) and len(document) == 1 and name == "0":
            document = document[0]
        else:
            return NOWHERE
    return document
