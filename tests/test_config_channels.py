"""``[[channel]]`` of ``fanwire serve``: what ``fanwire.Channel`` takes, with units."""

from dataclasses import fields
from pathlib import Path

import fanwire
import pytest
from fanwire.cli.config import ChannelConfig, ServeConfig, load

RELAY = '[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n'


def loaded(tmp_path: Path, text: str) -> ServeConfig:
    """What a file with a relay and this says."""
    file = tmp_path / "fanwire.toml"
    file.write_text(RELAY + text)
    return load(file, {})


def test_the_defaults_are_those_of_a_channel(tmp_path: Path) -> None:
    (channel,) = loaded(tmp_path, '[[channel]]\npattern = "a"\n').channel
    assert channel.channel() == fanwire.Channel()
    assert {each.name for each in fields(ChannelConfig)} == {each.name for each in fields(fanwire.Channel)} | {
        "pattern"
    }


def test_everything_may_be_said_with_units(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
[[channel]]
pattern = "odds:*"
policy = "latest"
backlog_bytes = "64KiB"
backlog_frames = 100
backlog_age = "2s"
history = 256
history_age = "5m"
history_bytes = "1MiB"
start = "history"
presence = "counts"
presence_linger = "500ms"

[[channel]]
pattern = "*"
presence = true
""",
    )
    assert [(one.pattern, one.channel()) for one in config.channel] == [
        (
            "odds:*",
            fanwire.Channel(
                policy="latest",
                backlog_bytes=65_536,
                backlog_frames=100,
                backlog_age=2,
                history=256,
                history_age=300,
                history_bytes=1_048_576,
                start="history",
                presence="counts",
                presence_linger=0.5,
            ),
        ),
        ("*", fanwire.Channel(presence=True)),
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('policy = "newest"', 'policy is "newest", must be "every", "latest", "keyframe" or "drop"'),
        ('start = "now"', 'start is "now", must be "live", "keyframe" or "history"'),
        ("history = -1", "history is -1, must be a whole number, 0 to 2,147,483,647"),
        ("history_age = 60", "history_age is 60, must have a unit, such as 60s"),
        ('backlog_age = "0s"', 'backlog_age is "0s", must be 1ms to 366d'),
        ('backlog_bytes = "0B"', 'backlog_bytes is "0B", must be 1B to 1TiB'),
        ('presence = "names"', 'presence is "names", must be true, false or "counts"'),
        ('polcy = "every"', "polcy is unknown; the nearest known one is policy"),
        ('pattern = ""', 'pattern is "", must be a channel\'s name in which * is any run of characters'),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, line: str, error: str) -> None:
    pattern = "" if line.startswith("pattern") else 'pattern = "a"\n'
    with pytest.raises(ExceptionGroup) as raised:
        loaded(tmp_path, f"[[channel]]\n{pattern}{line}\n")
    (one,) = raised.value.exceptions
    assert str(one).partition(": ")[2] == f"channel[0].{error}"


def test_a_pattern_stands_once(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        loaded(tmp_path, '[[channel]]\npattern = "a"\n' * 2)
    assert str(raised.value.exceptions[0]).endswith('channel[1].pattern is "a", which is channel[0]\'s already')


def test_there_may_be_as_many_patterns_as_a_hub_takes(tmp_path: Path) -> None:
    tables = "".join(f'[[channel]]\npattern = "odds:{index}:*"\n' for index in range(3_000))
    config = loaded(tmp_path, tables)
    assert len(config.channel) == 3_000
    assert fanwire.Hub({one.pattern: one.channel() for one in config.channel})
