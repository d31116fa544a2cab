"""What is logged, as it is written: a line an event, no flood, no secrets."""

import io
import json
import logging
from typing import Any

import pytest
from fanwire import logs
from fanwire.cli.options import settings
from fanwire.loglines import FLOOD_LINES_MAX, TEXT_MAX, JsonLines, PairLines, Sparingly, TerminalLines, without_secrets
from fanwire.logs import LOG_S, NumberFilter, name_of


def record(text: str, *arguments: object, error: BaseException | None = None, **more: Any) -> logging.LogRecord:
    """One of the hub's, of the first second of 1970."""
    info = None if error is None else (type(error), error, error.__traceback__)
    one = logging.LogRecord("fanwire.hub", logging.WARNING, "", 0, text, arguments, info)
    one.created = 0.25
    for name, value in more.items():
        setattr(one, name, value)
    return one


def raised(text: str) -> BaseException:
    """With a traceback."""
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        return error


def test_an_event_is_an_object_on_one_line() -> None:
    connection = 2 << 24 | 17
    line = JsonLines().format(record("client %s said\n%r", name_of(connection), "\x1b[2J"))
    assert line.isascii() and "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "fanwire.hub",
        "event": "client %s said\n%r",
        "message": "client c17@2 said\n'\\x1b[2J'",
        "connection": "c17@2",
    }


def test_a_worker_is_named_once() -> None:
    one = record("serving")
    assert NumberFilter(3).filter(one)
    told = json.loads(JsonLines().format(one))
    assert (told["worker"], told["event"], told["message"]) == (3, "serving", "serving")
    assert PairLines().format(one).endswith(' message="worker 3: serving"')


@pytest.mark.parametrize("formatter", [JsonLines(), PairLines()])
def test_a_traceback_is_on_the_line_of_its_event(formatter: logging.Formatter) -> None:
    line = formatter.format(record("it raised", error=raised("of all things")))
    assert "\n" not in line and "Traceback (most recent call last):" in line and "of all things" in line
    long = formatter.format(record("it raised", error=raised("x" * 10 * TEXT_MAX)))
    assert len(long) < 2 * TEXT_MAX


@pytest.mark.parametrize("formatter", [JsonLines(), PairLines(), TerminalLines()])
@pytest.mark.parametrize(
    "text",
    [
        "GET /ws?channel=a&access_token=hunter2-hunter2",
        "GET /ws?token=hunter2-hunter2 HTTP/1.1",
        "Authorization: Bearer hunter2-hunter2",
        "redis://user:hunter2-hunter2@cache:6379/0",
    ],
)
def test_no_secret_is_written(formatter: logging.Formatter, text: str) -> None:
    for one in (record("%s", text), record(text), record("it raised", error=raised(text))):
        assert "hunter2" not in formatter.format(one)


@pytest.mark.parametrize("text", ["token 5", "http://host:80/a@b", "the basic idea"])
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert without_secrets(text) == text


def test_a_flood_is_counted_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(logs, "monotonic", lambda: now)
    stream = io.StringIO()
    handler = Sparingly(stream)
    for number in range(FLOOD_LINES_MAX + 500):
        handler.handle(record("client %d is here", number))
    handler.handle(record("something else"))
    assert len(stream.getvalue().splitlines()) == FLOOD_LINES_MAX + 1
    now += LOG_S
    for _ in range(3):
        handler.handle(record("something else"))
    lines = stream.getvalue().splitlines()[FLOOD_LINES_MAX + 1 :]
    told = "500 more lines were left out within 10 s: fanwire.hub: client %d is here"
    assert lines == [told, *["something else"] * 3]
    assert not handler._sparing._kinds.keys() - {"fanwire.hub: something else"}


def test_the_format_is_a_setting() -> None:
    given = {"upstream": ["http://127.0.0.1:1/live"]}
    assert settings(None, {}, given).log.format == "text"
    assert settings(None, {"FANWIRE_LOG_FORMAT": "json"}, given).log.format == "json"
    assert settings(None, {"FANWIRE_LOG_FORMAT": "text"}, {**given, "log_format": "json"}).log.format == "json"
