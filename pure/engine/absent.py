"""What the compiled engine does for its own clients, for relays, and in the place of transports: none of it is here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .missing import missing

if TYPE_CHECKING:
    from .seat import Adopted


class Absent:
    """The base of ``Engine``: calls that are refused, and those that do nothing, as for a client that is gone."""

    def listen(self, address: str) -> NoReturn:
        """Raises EngineMissing."""
        missing(f"serving on {address}")

    def welcome(self, fd: int, client: str = "", read: bytes | None = None) -> NoReturn:
        """Raises EngineMissing."""
        missing("a client of the hub's own")

    @property
    def worker(self) -> None:
        """It is none of several."""
        return

    @property
    def is_apart(self) -> bool:
        """Nobody orders for it."""
        return False

    def join(self, path: str) -> NoReturn:
        """Raises EngineMissing."""
        missing("serving by workers")

    def tell(self, to: int | None, message: bytes, *, is_for_all: bool = False) -> NoReturn:
        """Raises EngineMissing."""
        missing("serving by workers")

    def set_unready(self, why: str | None, others_serve: bool = False) -> None:
        """Nobody asks."""

    def broadcast(self, adopted: list["Adopted"], frame: bytes, *, above: int) -> NoReturn:
        """Raises EngineMissing."""
        missing("writing in the place of a framework's transport")

    def acknowledge(self, connections: Sequence[int]) -> None:
        """Nobody waits for it."""


def _refusing(name: str, what: str) -> Any:
    def refused(self: Absent, *positional: object, **named: object) -> NoReturn:
        """Raises EngineMissing."""
        missing(what)

    refused.__name__ = name
    return refused


def _idle(name: str) -> Any:
    def nothing(self: Absent, *positional: object, **named: object) -> None:
        """Does nothing, as for a client that is gone: there are none."""

    nothing.__name__ = name
    return nothing


CLIENTS = (
    "accept accept_relayed ask_drained complete complete_error complete_raw complete_void grant invoke refuse reply "
    "respond send send_records stream_item subscribe unsubscribe"
)
RELAYS = (
    "admit_alike ask_about_all bound_beginning expect_snapshot follow forget_beginning join_lane join_live "
    "leave_lane mirror offer_lane publish_to_lane set_beginning unfollow unmirror upstream_close upstream_negotiate "
    "upstream_open upstream_open_plain upstream_send upstream_send_message withdraw_lane"
)
for _name in CLIENTS.split():
    setattr(Absent, _name, _idle(_name))
for _name in RELAYS.split():
    setattr(Absent, _name, _refusing(_name, "a relay"))
