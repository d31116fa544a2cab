"""What the application registered with its hub."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fanwire._loop import Callback
from fanwire.methods import Methods
from fanwire.snapshots import SnapshotRule


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

    async def may_watch(self, client: object, channel: str) -> bool:
        """Whether ``authorize`` allows it; what that raises is the caller's to answer.

        Raises TypeError for an answer that is neither a bool nor None: what is no answer must not allow anything.
        """
        if self.authorize is None:
            return True
        answer = await self.authorize(client, channel)
        if answer is not None and not isinstance(answer, bool):
            raise TypeError(f"authorize must return True or False, not {type(answer).__name__}")
        return bool(answer)
