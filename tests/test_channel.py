"""The bounds of a channel."""

import fanwire
import pytest


def test_defaults() -> None:
    channel = fanwire.Channel()
    assert (channel.policy, channel.backlog_bytes, channel.backlog_frames) == ("every", 1_048_576, 16_384)


@pytest.mark.parametrize("policy", ["latest", "keyframe", "drop", "evry"])
def test_an_unknown_policy_says_what_there_is(policy: str) -> None:
    with pytest.raises(ValueError, match=f"'{policy}' does not exist in this version, which knows 'every'"):
        fanwire.Channel(policy=policy)


@pytest.mark.parametrize("bound", ["backlog_bytes", "backlog_frames"])
def test_a_bound_is_positive_and_whole(bound: str) -> None:
    with pytest.raises(ValueError, match=f"{bound} must be > 0, not 0"):
        fanwire.Channel(**{bound: 0})
    with pytest.raises(TypeError, match=f"{bound} must be an int, not str"):
        fanwire.Channel(**{bound: "1 MiB"})
