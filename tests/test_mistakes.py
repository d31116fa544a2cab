"""What newcomers got wrong and was not told, or told too late: each is refused where it is said, by name."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import fanwire
import pytest
from fanwire.cli.options import settings
from fanwire.testing import NotAccepted, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("answer", ["no", 1, NotImplemented, [True]])
async def test_what_is_no_answer_of_authorize_allows_nothing(hub: fanwire.Hub, answer: object) -> None:
    hub.authorize(lambda client, channel: answer)  # type: ignore[arg-type,return-value]
    async with serving(hub) as server:
        with pytest.raises(NotAccepted, match="500"):
            async with server.connect("/ws?channel=secret"):
                raise AssertionError


async def test_no_answer_of_authorize_is_a_denial(hub: fanwire.Hub) -> None:
    hub.authorize(lambda client, channel: None)  # type: ignore[arg-type,return-value]
    async with serving(hub) as server:
        with pytest.raises(NotAccepted, match="403"):
            async with server.connect("/ws?channel=secret"):
                raise AssertionError


def test_a_callback_with_a_yield_is_refused_as_its_body_would_never_run() -> None:
    hub = fanwire.Hub()

    def sync(client: fanwire.Client, channel: str) -> Iterator[bool]:
        yield False

    async def lazy(client: fanwire.Client) -> AsyncIterator[None]:
        yield

    with pytest.raises(TypeError, match="authorize 'sync' has a yield"):
        hub.authorize(sync)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_connect 'lazy' has a yield"):
        hub.on_connect(lazy)  # type: ignore[arg-type]


async def test_what_fails_before_it_serves_is_raised_by_start(
    hub: fanwire.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fanwire.serving.Pump", fail)
    with pytest.raises(ZeroDivisionError):
        await hub.start("127.0.0.1:0")
    await hub.stop()


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1010, 1015, 2999, 5000, "1000", True])
def test_a_drain_code_that_may_not_be_sent_is_refused_at_once(code: object) -> None:
    kind = ValueError if type(code) is int else TypeError
    with pytest.raises(
        kind, match="drain_code must be a close code, 1000 to 1003, 1007 to 1009, 1011 to 1014 or 3000 to 4999"
    ):
        fanwire.Hub(drain_code=code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('formats = ["xml"]', 'limits.formats[0] is "xml", must be "json" or "msgpack"'),
        ('formats = ["msgpack"]', "limits.formats must be ('json', 'msgpack') or ('json',)"),
        ("signalr_transports = []", "limits.signalr_transports must be a non-empty list of"),
        ('congestion_control = "nope"', 'limits.congestion_control is "nope", must be one that the kernel knows: '),
        ("unix_mode = 0o1777", "limits.unix_mode is 0o1777, must be permissions, 0o0 to 0o777"),
        (f"unix_mode = 0x{'f' * 5_000}", f"limits.unix_mode is 0o37{'7' * 60}…, must be permissions, 0o0 to 0o777"),
        ('ping_interval = "1ms"', 'limits.ping_interval is "1ms", must be 100ms to 24h'),
        ("ping_interval = 0", "limits.ping_interval is 0, must be 100ms to 24h"),
        ("events_pending_max = 15", "limits.events_pending_max is 15, must be a whole number, 16 to 16,777,216"),
        ("histroy = 5", "limits.histroy is unknown"),
        ("max_size = 5", "limits.max_size is called message_bytes_max here"),
        ("workers = 5", "limits.workers is written as workers under [listen]"),
        ("processes = 5", "limits.processes is called workers here, under [listen]"),
        ("threads = 5", "limits.threads is called shards here, under [listen]"),
        ("shards = 5", "limits.shards is written as shards under [listen]"),
        ("port = 5", "limits.port is part of address under [listen]"),
        ("history = 5", "limits.history is a key of each [[channel]]"),
        (f'[[channel]]\npattern = "{"x" * 250}"\npresence = true', "too long for its presence to be told on"),
        ('[[relay]]\npath = "/b"\nupstream = "http://a:"', 'upstream is "http://a:", must be an http, https'),
        ('[[relay]]\npath = "/b"\nupstream = "http://a,b/"', "must be an http, https"),
        ('[[relay]]\npath = "/b"\nupstream = "http://[v1.x]/"', "must be an http, https"),
        ('[drain]\nspread = "2h"', 'drain.spread is "2h", must be 0s to 1h'),
        ('[listen]\naddress = "unix:' + 108 * "x" + '"', "must be unix:PATH with a path of 1 to 107 bytes"),
        ('signalr_transports = ["WebSocket"]', "limits.signalr_transports"),
        ('encode = ["x"]', "limits.encode is a function, and so an option of Hub(...) alone"),
        (
            '[[channel]]\npattern = "a"\nstart = "history"',
            "start is \"history\", must be 'live' or 'keyframe' where history",
        ),
        ("drain_code = 1005", "limits.drain_code is written as code under [drain]"),
    ],
)
def test_check_refuses_what_serve_could_not_serve(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "fanwire.toml"
    file.write_text(f'[[relay]]\npath = "/live"\nupstream = "http://127.0.0.1:5000/live"\n[limits]\n{line}\n')
    with pytest.raises(ExceptionGroup) as raised:
        settings(file, {}, {})
    assert [told in str(error) for error in raised.value.exceptions] == [True], raised.value.exceptions


def test_a_start_at_a_history_that_is_not_kept_is_refused() -> None:
    with pytest.raises(ValueError, match=r"start must be 'live' or 'keyframe' where history is 0, .*, not 'history'"):
        fanwire.Channel(start="history")
    assert fanwire.Channel(start="history", history=1).start == "history"


@pytest.mark.parametrize(
    "call",
    [
        lambda hub: hub.presence("a"),
        lambda hub: hub.occupancy("a"),
        lambda hub: hub.disconnect_user("ann"),
        lambda hub: hub.publish("a", 1),
    ],
)
def test_what_a_hub_does_not_do_before_it_serves_is_not_taken_for_publishing(
    call: Callable[[fanwire.Hub], object],
) -> None:
    with pytest.raises(fanwire.HubStopped, match="not serving yet: do this inside `async with"):
        call(fanwire.Hub())


async def test_an_on_presence_that_no_channel_calls_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    for channel, told in ((fanwire.Channel(), 1), (fanwire.Channel(presence="counts"), 0)):
        caplog.clear()
        hub = fanwire.Hub({"a": channel})
        hub.on_presence(lambda change: None)
        async with serving(hub):
            assert [record.levelname for record in caplog.records if "on_presence" in record.message] == [
                "WARNING"
            ] * told


def test_an_upstream_that_is_no_url_is_told_of_once_and_as_it_was_given() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        settings(None, {}, {"upstream": ["localhost:5000"]})
    told = [str(error) for error in raised.value.exceptions if "--upstream" in str(error)]
    assert [text.partition(" URL")[0] for text in told] == [
        '--upstream is "localhost:5000", must be an http, https, ws or wss'
    ]
