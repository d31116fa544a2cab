"""What a channel promises its subscribers. Patterns are matched, and names checked, by the engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fanwire._engine import ChannelRule, matches
from fanwire.errors import InvalidChannel
from fanwire.values import Choice, Named, checked, rows_of, rule_of

PRESENCES = (False, True, "counts")
"""What may be told of who is in a channel."""
NO_HISTORY = "must be 'live' or 'keyframe' where history is 0, since nothing is kept then"
"""What is wrong with the start of a channel at a history that it does not have."""

ROWS = rows_of("channel")
RULES = {name: rule_of(row, {"presence": Choice(PRESENCES)}) for name, row in ROWS.items()}
"""What each field may be."""
STARTS = tuple(ROWS["start"].choices)
"""Where a new subscriber may begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel(Named):
    """What the channels promise whose name matches a pattern of ``Hub(channels={pattern: Channel(...)})``.

    docs/promises.md tells, policy by policy, what each client gets, docs/settings.md the defaults and bounds.

    Args:
        policy: what becomes of a subscriber that is further behind than the backlog. ``every``: it gets every
            publication, or is closed with 1013 and a reason that names the channel. ``latest``: whenever it is behind
            it gets the newest publication of each ``key``, in their order; those without a key share one.
            ``keyframe``: it goes on at the newest keyframe, or waits for the next. ``drop``: it goes on with what
            comes.
        backlog_bytes: bytes of frames that a channel's log keeps for subscribers that are behind.
            One log is shared by all subscribers: a slow one costs no memory of its own.
        backlog_frames: the same bound as a number of frames.
        compression: True: what is published is compressed once for all WebSockets that agreed on permessage-deflate
            (RFC 7692; ``Hub(permessage_deflate=True)``). Never let one channel carry secrets and text of others.
        compression_readers: so many subscribers that inflate have to be there, in one shard, before that begins.
        backlog_age: the same bound in seconds since the publication; None is without. The bound that is hit first
            counts; time is looked at with each publication.
        history: publications that are kept for who comes back with a position, or asks for all. They are kept
            once, and once more for each wire format in use.
        history_age: seconds that they are kept. The newest value of a key of ``latest`` has no age.
        history_bytes: bytes of them that are kept.
        start: where a new subscriber begins that does not ask for something else. ``keyframe``: at the
            newest keyframe, or live where there is none; ``live``; ``history``: with the oldest that is kept, in a
            channel of ``latest`` with the newest of each key.
        filters_max: distinct filters that its subscribers may have at once, see docs/filters.md.
        presence: True: who comes and goes is told, to ``Hub.on_presence`` and on the channel ``presence:NAME``;
            ``"counts"``: only how many are there; False: nothing, which costs nothing.
        presence_linger: seconds for which one who is gone may come back before that is told.

    Raises:
        ValueError: an unknown policy, start or presence, a bound that is out of range, or a start at a history of 0.
        TypeError: a value of a wrong type, or an argument that there is not, with the nearest one.
    """

    policy: str = ROWS["policy"].default
    backlog_bytes: int = ROWS["backlog_bytes"].default
    backlog_frames: int = ROWS["backlog_frames"].default
    compression: bool = ROWS["compression"].default
    compression_readers: int = ROWS["compression_readers"].default
    backlog_age: float | None = ROWS["backlog_age"].default
    history: int = ROWS["history"].default
    history_age: float = ROWS["history_age"].default
    history_bytes: int = ROWS["history_bytes"].default
    start: str = ROWS["start"].default
    filters_max: int = ROWS["filters_max"].default
    presence: bool | str = ROWS["presence"].default
    presence_linger: float = ROWS["presence_linger"].default

    LATER: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("name", "pattern"), "is the key: Hub({'odds:*': Channel(...)})"),
        **dict.fromkeys(("ttl", "key", "event", "keyframe", "tags"), "is an argument of publish"),
        **dict.fromkeys(("history_size", "history_length", "history_frames", "history_max"), "is called history here"),
        "history_ttl": "is called history_age here",
    }

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            checked(name, getattr(self, name), rule)
        if self.start == "history" and not self.history:
            raise ValueError(f"start {NO_HISTORY}, not 'history'")

    def rule(self, pattern: str) -> ChannelRule:
        """The same for the engine, for channels that match `pattern`."""
        values = {name: getattr(self, name) for name in RULES if not name.startswith("presence")}
        return ChannelRule(pattern, presence=self.presence is not False, **values)


def check_pattern(pattern: str) -> None:
    """Raises InvalidChannel for a pattern that no channel's name can match."""
    try:
        matches(pattern, "")
    except UnicodeEncodeError as error:
        raise InvalidChannel(pattern, "must not hold a lone surrogate: UTF-8 has none") from error
