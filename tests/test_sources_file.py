"""What a ``[[source]]`` may say, and what is told of one that cannot be."""

import re
from pathlib import Path

import pytest
from fanwire.cli.check import summary
from fanwire.cli.config import ServeConfig, load

URLS = {"redis-stream": "redis://u:hush@h:1", "postgres": "postgresql://u:hush@h/db", "nats": "nats://u:hush@h:1"}
NEEDED = {"redis-stream": 'stream = "events"', "postgres": "", "nats": 'subject = "odds.>"'}


def loaded(tmp_path: Path, *sources: str, **variables: str) -> ServeConfig:
    """A file with these."""
    file = tmp_path / "fanwire.toml"
    file.write_text("\n".join(f"[[source]]\n{one}" for one in sources))
    return load(file, variables)


def said(kind: str, more: str = "") -> str:
    """One that can be."""
    return f'kind = "{kind}"\nurl = "{URLS[kind]}"\n{NEEDED[kind]}\n{more}'


def test_each_kind_is_made_and_named_in_what_would_be_served(tmp_path: Path) -> None:
    for module in ("redis", "psycopg", "nats"):
        pytest.importorskip(module)
    more = ["", 'deletes = false\nchannel = "odds"\nbatch = 10', 'stream = "ODDS"\npayload = "data"\nname = "n"']
    config = loaded(tmp_path, *map(said, URLS, more))
    made = [one.source("fanwire") for one in config.source]
    assert [(one.name, one.channel, one.batch) for one in made] == [
        ("events", None, 256),
        ("outbox", "odds", 10),
        ("n", None, 256),
    ]
    lines = list(summary(config))
    assert "publishes redis-stream events to the channels that entries name, its place is events" in lines
    assert "publishes postgres the outbox to channel odds, its place is outbox" in lines
    assert "hush" not in repr(config) + "".join(lines)


def test_its_url_may_be_a_variable(tmp_path: Path) -> None:
    one = 'kind = "redis-stream"\nstream = "events"\nurl = { env = "EVENTS" }'
    assert loaded(tmp_path, one, EVENTS="redis://h").source[0].url.reveal() == "redis://h"
    (made,) = loaded(tmp_path, said("postgres"), FANWIRE_SOURCE__0__URL="postgres://other").source
    assert made.url.reveal() == "postgres://other"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('kind = "kafka"\nurl = "redis://h"', 'kind is "kafka", must be "redis-stream", "postgres" or "nats"'),
        ('kind = "postgres"', "url is missing, must be the URL of a server"),
        ('kind = "postgres"\nurl = "redis://u:hush@h"', "url must begin with postgresql:// or postgres://"),
        ('kind = "redis-stream"\nurl = "redis://h"', 'stream is missing: kind = "redis-stream" needs one'),
        ('kind = "nats"\nurl = "nats://h"', 'subject is missing: kind = "nats" needs one'),
        (said("nats", "deletes = false"), 'deletes belongs to kind = "postgres"'),
        (said("postgres", 'stream = "x"'), 'stream belongs to kind = "redis-stream" or kind = "nats"'),
        (said("redis-stream", 'payload = "text"'), 'payload belongs to kind = "nats"'),
        (said("nats", "batch = 0"), "batch is 0, must be a whole number, 1 to"),
        (said("nats", 'channel = "a*"'), 'channel is "a*", must not hold *'),
        (said("nats", f'name = "{"n" * 101}"'), "must be a name of 1 to 100 bytes"),
        (said("postgres") + "\n[[source]]\n" + said("postgres"), 'source[1].name is "outbox", which is source[0]\'s'),
        ("\n[[source]]\n".join(said("postgres", f'name = "{n}"') for n in range(65)), "has 65 tables, must have 64"),
        (said("nats", 'strem = "x"'), "strem is unknown; the nearest known one is stream"),
    ],
)
def test_what_cannot_be_is_told_and_no_url_is_shown(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        loaded(tmp_path, text)
    told = "\n".join(map(str, raised.value.exceptions))
    assert re.search(re.escape(why), told), told
    assert "hush" not in told


def test_without_its_package_a_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanwire.sources.config.find_spec", lambda name: None)
    with pytest.raises(ExceptionGroup) as raised:
        loaded(tmp_path, said("nats"))
    assert "needs the package nats: pip install 'fanwire[nats]'" in str(raised.value.exceptions[0])
