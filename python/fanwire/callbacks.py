"""What the application registered with its hub."""

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
    on_disconnect: Callback | None = None
    on_presence: Callback | None = None
    methods: Methods = field(default_factory=Methods)
    endpoints: dict[str, Methods] = field(default_factory=dict)
    snapshots: list[SnapshotRule] = field(default_factory=list)

    async def may_watch(self, client: object, channel: str) -> bool:
        """Whether ``authorize`` allows it; what that raises is the caller's to answer."""
        return self.authorize is None or bool(await self.authorize(client, channel))
