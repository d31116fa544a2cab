"""What a channel promises its subscribers. Patterns are matched, and names checked, by the engine."""

from dataclasses import dataclass

from fanwire._engine import ChannelRule

POLICIES = ("every",)
"""What may happen at a channel's bound; those that this version knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """The bounds of the channels whose name matches a pattern of ``Hub(channels={pattern: Channel(...)})``.

    Args:
        policy: ``every``: a subscriber gets every publication, or is closed with 1013 and a reason that names the
            channel once it is further behind than the backlog.
        backlog_bytes: bytes of frames that a channel's log keeps for subscribers that are behind, > 0.
            One log is shared by all subscribers: a slow one costs no memory of its own.
        backlog_frames: the same bound as a number of frames, > 0. What is hit first counts.

    Raises:
        ValueError: an unknown policy, or a bound that is not positive.
    """

    policy: str = "every"
    backlog_bytes: int = 1_048_576
    backlog_frames: int = 16_384

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            known = ", ".join(map(repr, POLICIES))
            raise ValueError(f"policy {self.policy!r} does not exist in this version, which knows {known}")
        for name in ("backlog_bytes", "backlog_frames"):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value <= 0:
                raise ValueError(f"{name} must be > 0, not {value}")

    def rule(self, pattern: str) -> ChannelRule:
        """The same for the engine, for channels that match `pattern`."""
        return ChannelRule(pattern, backlog_bytes=self.backlog_bytes, backlog_frames=self.backlog_frames)
