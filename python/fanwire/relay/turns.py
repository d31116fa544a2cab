"""Who waits, in order, and on whose budget. Whatever one client leaves behind is found without looking at others'."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from fanwire.budget import Budget


class Charged(Protocol):
    """A client."""

    @property
    def budget(self) -> Budget:
        """What waits for it is on it."""


class Item(Protocol):
    """What waits."""

    @property
    def client(self) -> Any:
        """Whose it is; a ``Charged``."""

    @property
    def cost(self) -> int:
        """What its client is charged meanwhile, in bytes."""


I = TypeVar("I", bound=Item)  # noqa: E741 an item
NOBODY: OrderedDict[Any, Any] = OrderedDict()
"""What a queue has in which nobody waits, as in most: nothing is ever put here."""


class Turns(Generic[I]):
    """A queue. Each step takes the same time however many wait."""

    __slots__ = ("_all", "_of")

    def __init__(self) -> None:
        self._all: OrderedDict[I, None] = NOBODY
        self._of: OrderedDict[Charged, OrderedDict[I, None]] = NOBODY

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[I]:
        return iter(self._all)

    def __contains__(self, client: Charged) -> bool:
        """Whether something of this client's waits."""
        return client in self._of

    @property
    def first(self) -> I:
        """Whose turn is next."""
        return next(iter(self._all))

    def add(self, one: I) -> None:
        """Have it wait behind the others. Raises LimitReached where its client's budget has no room for it."""
        one.client.budget.require(one.cost)
        if not self._all:
            self._all, self._of = OrderedDict(), OrderedDict()
        self._all[one] = None
        self._of.setdefault(one.client, OrderedDict())[one] = None

    def take(self) -> I:
        """Whose turn it is; it waits no longer."""
        one = self.first
        self.remove(one)
        return one

    def remove(self, one: I) -> None:
        """It waits no longer."""
        del self._all[one]
        one.client.budget.release(one.cost)
        own = self._of[one.client]
        del own[one]
        if not own:
            del self._of[one.client]
        if not self._all:
            self._all = self._of = NOBODY

    def of(self, client: Charged) -> list[I]:
        """What waits for a client, in order."""
        return list(self._of.get(client, ()))

    def drop(self, client: Charged) -> list[I]:
        """The client is gone, and so is what waited for it, which is given."""
        gone = self.of(client)
        for one in gone:
            self.remove(one)
        return gone
