"""Somebody follows a publication."""

from .channel import Channel
from .events import Progress


class Track:
    """How far one publication is among the subscribers of its channel."""

    def __init__(self, token: int, channel: Channel, place: int) -> None:
        self.token, self.channel, self.place = token, channel, place
        self.skipped = 0
        self._told: tuple[int, int, int] | None = None

    def progress(self) -> Progress | None:
        """How far it is, if that has changed."""
        behind = sum(one.cursor.place < self.place for one in self.channel.subscriptions)
        now = (len(self.channel.subscriptions), behind, self.skipped)
        if now == self._told:
            return None
        self._told = now
        return Progress(self.token, 0, *now)
