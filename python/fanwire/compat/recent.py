"""The newest messages of channels, for interfaces that give a newcomer what was sent before."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from fanwire.values import Whole, checked

T = TypeVar("T")

CHANNELS_MAX = 1024
"""So many channels are remembered; then the one that was quiet for longest is forgotten."""


class Recent(Generic[T]):
    """The last `count` of each channel, 0 or more; O(1) for each that is added."""

    __slots__ = ("_by_channel", "count")

    def __init__(self, count: int) -> None:
        """Raises TypeError, ValueError: `count` is no whole number, or below 0."""
        self.count: int = checked("history", count, Whole(0))
        self._by_channel: OrderedDict[str, deque[T]] = OrderedDict()

    def add(self, channel: str, message: T) -> None:
        """It is the newest now."""
        if not self.count:
            return
        kept = self._by_channel.get(channel)
        if kept is None:
            kept = self._by_channel[channel] = deque(maxlen=self.count)
            if len(self._by_channel) > CHANNELS_MAX:
                self._by_channel.popitem(last=False)
        else:
            self._by_channel.move_to_end(channel)
        kept.append(message)

    def last(self, channel: str, most: int | None = None) -> list[T]:
        """The newest `most`, or all that are kept, the oldest first."""
        kept = list(self._by_channel.get(channel, ()))
        return kept if most is None else kept[len(kept) - min(most, len(kept)) :]

    def forget(self, channel: str) -> None:
        """Nothing of it is kept any more; it need not have had anything."""
        self._by_channel.pop(channel, None)

    def channels(self) -> list[str]:
        """Those that something is kept of, the one that was quiet for longest first."""
        return list(self._by_channel)
