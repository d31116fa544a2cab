"""What a channel promises its subscribers. Patterns are matched, and names checked, by the engine."""

from dataclasses import dataclass

from fanwire._engine import ChannelRule

POLICIES = ("every", "latest", "keyframe", "drop")
"""What may become of a subscriber that is further behind than the backlog."""
STARTS = ("live", "keyframe", "history")
"""Where a new subscriber may begin."""
PRESENCES = (False, True, "counts")
"""What may be told of who is in a channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """What the channels promise whose name matches a pattern of ``Hub(channels={pattern: Channel(...)})``.

    docs/promises.md tells, policy by policy, what each client gets.

    Args:
        policy: what becomes of a subscriber that is further behind than the backlog. ``every``: it gets every
            publication, or is closed with 1013 and a reason that names the channel. ``latest``: whenever it is behind
            it gets the newest publication of each ``key``, in their order; those without a key share one.
            ``keyframe``: it goes on at the newest keyframe, or waits for the next. ``drop``: it goes on with what
            comes.
        backlog_bytes: bytes of frames that a channel's log keeps for subscribers that are behind, > 0.
            One log is shared by all subscribers: a slow one costs no memory of its own.
        backlog_frames: the same bound as a number of frames, > 0.
        backlog_age: the same bound in seconds since the publication, > 0; None (default) is without. The bound that is
            hit first counts; time is looked at with each publication.
        history: publications that are kept for who comes back with a position, or asks for all; >= 0, default 0.
            They are kept once, and once more for each wire format in use.
        history_age: seconds that they are kept, > 0, default 300. The newest value of a key of ``latest`` has no age.
        history_bytes: bytes of them that are kept, > 0, default 16 MiB.
        start: where a new subscriber begins that does not ask for something else. ``keyframe`` (default): at the
            newest keyframe, or live where there is none; ``live``; ``history``: with the oldest that is kept, in a
            channel of ``latest`` with the newest of each key.
        presence: True: who comes and goes is told, to ``Hub.on_presence`` and on the channel ``presence:NAME``;
            ``"counts"``: only how many are there; False (default): nothing, which costs nothing.
        presence_linger: seconds for which one who is gone may come back before that is told, >= 0, default 5.

    Raises:
        ValueError: an unknown policy, start or presence, or a bound that is out of range.
        TypeError: a bound that is no number.
    """

    policy: str = "every"
    backlog_bytes: int = 1_048_576
    backlog_frames: int = 16_384
    backlog_age: float | None = None
    history: int = 0
    history_age: float = 300.0
    history_bytes: int = 16_777_216
    start: str = "keyframe"
    presence: bool | str = False
    presence_linger: float = 5.0

    def __post_init__(self) -> None:
        for name, known in (("policy", POLICIES), ("start", STARTS), ("presence", PRESENCES)):
            value = getattr(self, name)
            if value not in known or type(value) not in map(type, known):  # 1 is no True
                raise ValueError(f"{name} {value!r} does not exist; there are {', '.join(map(repr, known))}")
        for name in ("backlog_bytes", "backlog_frames", "history_bytes"):
            _check(name, getattr(self, name), int, is_zero_allowed=False)
        _check("history", self.history, int, is_zero_allowed=True)
        _check("history_age", self.history_age, float, is_zero_allowed=False)
        _check("presence_linger", self.presence_linger, float, is_zero_allowed=True)
        if self.backlog_age is not None:
            _check("backlog_age", self.backlog_age, float, is_zero_allowed=False)

    def rule(self, pattern: str) -> ChannelRule:
        """The same for the engine, for channels that match `pattern`."""
        return ChannelRule(
            pattern,
            policy=self.policy,
            backlog_bytes=self.backlog_bytes,
            backlog_frames=self.backlog_frames,
            backlog_age=self.backlog_age,
            history=self.history,
            history_age=self.history_age,
            history_bytes=self.history_bytes,
            start=self.start,
            presence=self.presence is not False,
        )


def _check(name: str, value: object, kind: type[int] | type[float], *, is_zero_allowed: bool) -> None:
    kinds = (int,) if kind is int else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} must be {'an int' if kind is int else 'a number'}, not {type(value).__name__}")
    if not (value > 0 or (is_zero_allowed and value == 0)):
        raise ValueError(f"{name} must be {'>=' if is_zero_allowed else '>'} 0, not {value}")
    if value >= 1 << 63 and value != float("inf"):
        raise ValueError(f"{name} must be < 2**63, not {value}")
