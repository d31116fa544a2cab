"""The bounds of a channel."""

import fanwire
import pytest


def test_defaults() -> None:
    channel = fanwire.Channel()
    assert (channel.policy, channel.backlog_bytes, channel.backlog_frames) == ("every", 1_048_576, 16_384)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("policy", "'every', 'latest', 'keyframe' or 'drop'"),
        ("start", "'live', 'keyframe' or 'history'"),
        ("presence", "False, True or 'counts'"),
    ],
)
def test_an_unknown_word_says_what_there_is(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be {known}, not 'evry'"):
        fanwire.Channel(**{name: "evry"})


@pytest.mark.parametrize("name", ["history", "presence_linger"])
def test_none_of_it_is_allowed_but_not_less(name: str) -> None:
    assert getattr(fanwire.Channel(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"{name} must be a .*, 0 to .*, not -1"):
        fanwire.Channel(**{name: -1})


@pytest.mark.parametrize("name", ["history_age", "backlog_age"])
def test_an_age_is_over_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds, 0.001 to 31,622,400.*, not 0"):
        fanwire.Channel(**{name: 0})
    with pytest.raises(TypeError, match=f"{name} must be a number of seconds, .*, not '60s'"):
        fanwire.Channel(**{name: "60s"})


@pytest.mark.parametrize("bound", ["backlog_bytes", "backlog_frames", "history_bytes"])
def test_a_bound_is_positive_and_whole(bound: str) -> None:
    with pytest.raises(ValueError, match=f"{bound} must be a whole number.*, 1 to .*, not 0"):
        fanwire.Channel(**{bound: 0})
    with pytest.raises(TypeError, match=f"{bound} must be a whole number.*, not '1 MiB'"):
        fanwire.Channel(**{bound: "1 MiB"})
