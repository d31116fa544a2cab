"""What the application registered with its hub; and of that the function that lasts as long as its client."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fanwire._engine import Filter
from fanwire._loop import Callback
from fanwire.auth import Refused
from fanwire.calls import read_filter
from fanwire.client import Client, Inbox
from fanwire.errors import Told
from fanwire.faults import Tasks
from fanwire.methods import Methods
from fanwire.snapshots import SnapshotRule
from fanwire.timings import LaneTracing
from fanwire.wording import CLOSED_WITH_ERROR, INTERNAL_ERROR, Wording


class HubTracing(LaneTracing, Protocol):
    """See ``fanwire.otel``."""

    def openings(self, *arguments: Any) -> Any:
        """What takes the place of ``Openings``."""


@dataclass(slots=True)
class Callbacks:
    """What the application registered with its hub."""

    authenticate: Callback | None = None
    authorize: Callback | None = None
    on_connect: Callback | None = None
    on_message: Callback | None = None
    client: Callback | None = None
    on_disconnect: Callback | None = None
    on_presence: Callback | None = None
    methods: Methods = field(default_factory=Methods)
    endpoints: dict[str, Methods] = field(default_factory=dict)
    transports: dict[str, Sequence[str]] = field(default_factory=dict)
    """Of endpoints that have a choice of their own."""
    snapshots: list[SnapshotRule] = field(default_factory=list)
    subprotocols: frozenset[str] = frozenset()
    """Those that are chosen without a callback; see ``Options.subprotocols``."""
    tracing: "HubTracing | None" = None
    """What makes spans, where the hub is instrumented."""

    @property
    def know_clients(self) -> bool:
        """Whether each client is asked or told about from its opening on."""
        return bool(self.authenticate or self.authorize or self.is_told_of_clients)

    @property
    def is_told_of_clients(self) -> bool:
        """Whether something hears of each client's first or last."""
        return bool(self.on_connect or self.on_disconnect or self.client)

    @property
    def use_requests(self) -> bool:
        """Whether some callback sees a client that has connected, and so may look at its request."""
        later = self.on_message or self.methods or any(self.endpoints.values())
        return bool(self.is_told_of_clients or self.authorize or (self.authenticate and later))

    async def may_watch(self, client: object, channel: str, asked: Filter | None) -> tuple[bool, Filter | None]:
        """Whether ``authorize`` allows it, and what the client gets: by the filter that it asked for, and by its own.

        What that raises is the caller's to answer. Raises TypeError for an answer that is no bool, filter or None: what
        is no answer must not allow anything. Raises Refused where both filters together are over a bound.
        """
        if self.authorize is None:
            return True, asked
        answer = await self.authorize(client, channel)
        if isinstance(answer, dict):
            own = read_filter("what authorize returns", answer)
            if own is None or asked is None:
                return True, own or asked
            try:
                return True, asked.both(own)
            except ValueError as error:
                raise Refused(str(error), status=400) from None
        if answer is not None and not isinstance(answer, bool):
            raise TypeError(f"authorize must return True, False or a filter, not {type(answer).__name__}")
        return bool(answer), asked


TurnAway = Callable[[Client, int, str], None]


class Conversations:
    """Those of one serving. All state is the loop's thread's own.

    Args:
        callback: what the application registered; None: nothing is begun.
        turn_away: closes a client of which nothing is dealt with any more.
    """

    def __init__(self, callback: Callback | None, tasks: Tasks, wording: Wording, turn_away: TurnAway) -> None:
        self._callback = callback
        self._tasks = tasks
        self._wording = wording
        self._turn_away = turn_away
        self.count = 0
        """How many are at work."""

    def begin(self, client: Client) -> None:
        """The client is connected: its function begins."""
        if self._callback is not None:
            client._inbox = Inbox()
            self.count += 1
            self._tasks.start_soon(self._converse, self._callback, client, client._inbox)

    async def _converse(self, callback: Callback, client: Client, inbox: Inbox) -> None:
        code, reason = 1011, INTERNAL_ERROR  # of one that cancelled itself
        try:
            await callback(client)
            code, reason = 1000, ""
        except Exception as error:
            code, reason = self._told(callback, client, error)
        finally:
            self.count -= 1
            inbox.end()
            if client._gone is None:
                self._turn_away(client, code, reason)

    def _told(self, callback: Callback, client: Client, error: Exception) -> tuple[int, str]:
        is_told = isinstance(error, Told)
        if not is_told:
            client._note("client", error, "client %s, for client %s, raised", callback, client)
        if client.connection_id is not None:
            return 1008, self._wording.of(CLOSED_WITH_ERROR, error)
        return (1008 if is_told else 1011), self._wording.raw(error)


async def hand_over(client: Client, message: str | bytes) -> None:
    """Hand a message to the client's function."""
    if client._inbox is not None:
        await client._inbox.offer(message)
