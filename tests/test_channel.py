"""The bounds of a channel."""

import fanwire
import pytest


def test_defaults() -> None:
    channel = fanwire.Channel()
    assert (channel.policy, channel.backlog_bytes, channel.backlog_frames) == ("every", 1_048_576, 16_384)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("policy", "'every', 'latest', 'keyframe', 'drop'"),
        ("start", "'live', 'keyframe', 'history'"),
        ("presence", "False, True, 'counts'"),
    ],
)
def test_an_unknown_word_says_what_there_is(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{name} 'evry' does not exist; there are {known}"):
        fanwire.Channel(**{name: "evry"})


@pytest.mark.parametrize("name", ["history", "presence_linger"])
def test_none_of_it_is_allowed_but_not_less(name: str) -> None:
    assert getattr(fanwire.Channel(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"{name} must be >= 0, not -1"):
        fanwire.Channel(**{name: -1})


@pytest.mark.parametrize("name", ["history_age", "backlog_age"])
def test_an_age_is_over_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be > 0, not 0"):
        fanwire.Channel(**{name: 0})
    with pytest.raises(TypeError, match=f"{name} must be a number, not str"):
        fanwire.Channel(**{name: "60s"})


@pytest.mark.parametrize("bound", ["backlog_bytes", "backlog_frames", "history_bytes"])
def test_a_bound_is_positive_and_whole(bound: str) -> None:
    with pytest.raises(ValueError, match=f"{bound} must be > 0, not 0"):
        fanwire.Channel(**{bound: 0})
    with pytest.raises(TypeError, match=f"{bound} must be an int, not str"):
        fanwire.Channel(**{bound: "1 MiB"})
