"""The commands of the shell that ask a hub which runs."""

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import fanwire
import pytest
from anyio.to_thread import run_sync
from fanwire.cli import operating
from fanwire.cli.app import app
from support.administered import TOKEN, administered, config
from support.clients import connected
from support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def run(command: Callable[..., object], *arguments: Any, **options: Any) -> None:
    await run_sync(partial(command, *arguments, **options), abandon_on_cancel=True)


def fails(*arguments: str) -> None:
    with pytest.raises(SystemExit) as raised:
        app(list(arguments))
    assert raised.value.code == 1


async def test_publish_takes_json_text_and_lines_and_says_where_they_stand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administered(fanwire.Hub(admin=config())) as (serving, _):
        (where,) = serving.admin
        async with connected(serving.address, "/ws?channel=c") as peer:
            await run(operating.publish, "c", '{"home": 1.85}', admin=where)
            await run(operating.publish, "c", "bare words", text=True, admin=where, as_json=True)
            first, second = capsys.readouterr().out.splitlines()
            assert first.endswith("-1") and json.loads(second)["position"].endswith("-2")
            ours, theirs = os.pipe()
            with os.fdopen(ours) as stdin:
                monkeypatch.setattr("sys.stdin", stdin)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(run, operating.publish, "c", "-", admin=where))
                    os.write(theirs, b"1\n\n2\n[3,")
                    got = await peer.receive_all(4)
                    assert got == ['{"home":1.85}', "bare words", "1", "2"]
                    os.write(theirs, b"4]\n5")
                    os.close(theirs)
                assert await peer.receive_all(2) == ["[3,4]", "5"]
            assert len(capsys.readouterr().out.splitlines()) == 4


async def test_what_is_no_json_and_what_the_hub_refuses_end_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    async with administered(fanwire.Hub(admin=config())) as (serving, _):
        (where,) = serving.admin
        await run(fails, "publish", "c", "bare words", "--admin", where)
        assert "is no JSON" in capsys.readouterr().err
        await run(fails, "publish", "c*", "1", "--admin", where)
        assert "must not hold *" in capsys.readouterr().err
        await run(fails, "disconnect", "0:c9@9", "--admin", where)
        assert "no client 0:c9@9" in capsys.readouterr().err
        await run(fails, "stats", "--admin", "127.0.0.1:1")
        assert "127.0.0.1:1" in capsys.readouterr().err


async def test_clients_channels_and_stats_are_tables_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    hub = fanwire.Hub(admin=config())

    @hub.authenticate
    def authenticate(request: fanwire.Request) -> fanwire.Identity:
        return fanwire.Identity("an\x1b[31mna")

    async with administered(hub) as (serving, _), connected(serving.address, "/ws?channel=c") as peer:
        (where,) = serving.admin
        await run(operating.clients, admin=where)
        head, row = capsys.readouterr().out.splitlines()
        assert head.split() == ["client", "user", "address", "transport", "channels", "sent"]
        assert row.split()[0] == "0:c0@0" and "\x1b" not in row
        await run(operating.clients, admin=where, as_json=True)
        id = json.loads(capsys.readouterr().out)["client"]
        await run(operating.clients, lagging=True, admin=where)
        assert capsys.readouterr().out == ""
        await run(operating.channels, "c*", admin=where)
        assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["c", "every", "1"]
        await run(operating.channels, as_json=True, admin=where)
        assert json.loads(capsys.readouterr().out)["channel"] == "c"
        await run(operating.stats, admin=where)
        assert "connections" in capsys.readouterr().out
        await run(operating.stats, admin=where, as_json=True)
        assert json.loads(capsys.readouterr().out)["connections"] == 1
        await run(operating.disconnect, id, reason="bye", admin=where)
        assert await peer.closed() == (1008, "bye")


async def test_tail_goes_on_behind_a_position_and_follows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = fanwire.Hub({"c": fanwire.Channel(history=100)}, admin=config())
    async with administered(hub) as (serving, _):
        (where,) = serving.admin
        first = hub.publish("c", 0).position
        for number in range(1, 4):
            hub.publish("c", number)
        shown: list[str] = []
        monkeypatch.setattr("builtins.print", lambda *line, **options: shown.append(line[0]))
        async with anyio.create_task_group() as tasks:
            since = f"{first.epoch}-{first.offset}"
            tasks.start_soon(partial(run, operating.tail, ["c"], since=since, admin=where, as_json=True))
            await until(lambda: len(shown) == 3)
            hub.publish("c", 4)
            await until(lambda: len(shown) == 4)
            tasks.cancel_scope.cancel()
        assert [json.loads(line)["data"] for line in shown] == [1, 2, 3, 4]


async def test_a_token_comes_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administered(fanwire.Hub(admin=config(token=TOKEN))) as (serving, _):
        (where,) = serving.admin
        monkeypatch.delenv("FANWIRE_ADMIN__TOKEN", raising=False)
        await run(fails, "stats", "--admin", where)
        assert "FANWIRE_ADMIN__TOKEN" in capsys.readouterr().err
        monkeypatch.setenv("FANWIRE_ADMIN__TOKEN", TOKEN)
        monkeypatch.setenv("FANWIRE_ADMIN", where)
        await run(operating.stats)
        assert "connections" in capsys.readouterr().out
