"""What goes wrong for one does not end the others: it is logged once, counted, and ends what it belongs to."""

import asyncio
import logging

import anyio
import fanwire
import pytest
from fanwire._loop import background_tasks, ends_task
from fanwire.faults import Faults, Tasks
from fanwire.wording import sendable
from support.clients import connected, refusal
from support.hubs import MakeHub
from support.waiting import until

pytestmark = pytest.mark.anyio


def strays() -> list[BaseException]:
    """What would end a task group, or the process, if it got there."""
    return [ValueError("v"), GeneratorExit(), SystemExit(1), asyncio.CancelledError(), BaseException("panic")]


async def test_a_task_that_ends_by_an_exception_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    async with background_tasks() as group:
        tasks = Tasks(group, faults)

        async def fail(error: BaseException) -> None:
            await anyio.lowlevel.checkpoint()
            raise error

        for error in strays():
            tasks.start_soon(fail, error, where="here")
        with anyio.fail_after(60):
            while faults.counts != {"here": len(strays())}:
                await anyio.lowlevel.checkpoint()
        assert not group.cancel_scope.cancel_called
    assert len(caplog.records) == len(strays())
    assert all(record.exc_info for record in caplog.records)


async def test_a_task_that_is_cancelled_alone_ends_no_other(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio's tasks can be cancelled one by one")
    faults = Faults()
    async with background_tasks() as group:
        over = anyio.Event()

        async def cancel_itself() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            over.set()
            await anyio.sleep_forever()

        Tasks(group, faults).start_soon(cancel_itself)
        await over.wait()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert not group.cancel_scope.cancel_called
    assert faults.counts == {}


@pytest.mark.parametrize("waits", [True, False])
async def test_a_callback_that_cancels_its_own_task_costs_its_own_request(
    make_hub: MakeHub, anyio_backend_name: str, waits: bool
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio's tasks can be cancelled one by one")
    hub = make_hub({"in": fanwire.Channel(presence=True)}, openings_max=1)
    entered: list[str] = []

    async def cancel_itself(is_due: bool) -> None:
        if is_due:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        if waits or not is_due:
            await anyio.lowlevel.checkpoint()

    @hub.authenticate
    async def authenticate(request: fanwire.Request) -> str:
        await cancel_itself(request.query.get("cancel") == "1")
        return request.query["user"]

    @hub.on_presence
    async def enter(change: fanwire.PresenceChange) -> None:
        entered.extend(change.joined)
        await cancel_itself("ann" in change.joined)

    @hub.snapshot("in", interval=0.001)
    async def snapshot(channel: str) -> str:
        await cancel_itself(not entered)
        return "snapshot"

    @hub.on_message
    def answer(client: fanwire.Client, data: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel(data)  # that of all callbacks of this kind
        client.send(data)

    async with hub.serve("127.0.0.1:0") as serving, anyio.create_task_group() as tasks:

        async def come(user: str) -> None:
            if waits:
                assert (await refusal(serving.address, f"/ws?user={user}&cancel=1"))[0] == 500
            else:
                async with connected(serving.address, f"/ws?user={user}&cancel=1"):
                    pass

        for user in ("eve", "mal"):
            tasks.start_soon(come, user)
        async with connected(serving.address, "/ws?user=ann&channel=in") as ann:
            first = await ann.receive()
            assert first == "snapshot" if not waits else "no snapshot" in str(first)
            await until(lambda: entered == ["ann"])
            async with connected(serving.address, "/ws?user=bob&channel=in") as bob:
                assert await bob.receive() == "snapshot"
                await until(lambda: entered == ["ann", "bob"])
                for peer in (ann, bob):
                    await peer.send("still here")
                    assert await peer.receive() == "still here"


async def test_cancellation_and_keyboard_interrupt_go_their_way() -> None:
    faults = Faults()
    with anyio.move_on_after(0) as scope:
        with faults.contained("here", "a body"):
            await anyio.sleep_forever()
        raise AssertionError("it was cancelled")
    assert scope.cancelled_caught
    with pytest.raises(KeyboardInterrupt), faults.contained("here", "a body"):
        raise KeyboardInterrupt
    with faults.contained("here", "a body"):
        raise GeneratorExit
    assert faults.counts == {"here": 1}
    assert ends_task(BaseExceptionGroup("both", [ValueError(), KeyboardInterrupt()]))
    assert not ends_task(BaseExceptionGroup("both", [ValueError(), SystemExit()]))


def test_a_log_that_fails_ends_nobody() -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise OSError("disk full")

    log = logging.getLogger("fanwire.hub")
    log.addFilter(fail)
    try:
        faults = Faults()
        faults.note("here", ValueError(), "text")
    finally:
        log.removeFilter(fail)
    assert faults.counts == {"here": 1}


def test_text_is_cut_on_the_edge_of_a_character_and_surrogates_are_replaced() -> None:
    class Speechless(Exception):
        def __str__(self) -> str:
            raise ValueError("nothing to say")

    assert sendable("ü" * 5, 5) == "üü"
    assert sendable("lone \ud800", 10) == "lone ?"
    assert sendable(ValueError("why")) == "why"
    assert sendable(Speechless()) == "Speechless"


def test_a_flood_of_faults_fills_no_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("fanwire.logs.monotonic", lambda: now)
    faults = Faults()
    for _ in range(1_000):
        faults.note("here", ValueError("v"), "it failed")
    faults.note("there", ValueError("v"), "it failed, too")
    assert len(caplog.records) == 101
    assert faults.counts == {"here": 1_000, "there": 1}
    now += 11
    faults.note("here", ValueError("v"), "it failed again")
    assert [record.getMessage() for record in caplog.records[101:]] == [
        "here: 900 more were left out within 10 s; they are counted",
        "it failed again",
    ]


def test_a_flood_of_what_is_no_fault_fills_no_log_either(caplog: pytest.LogCaptureFixture) -> None:
    faults, log = Faults(), logging.getLogger("fanwire.hub")
    caplog.set_level(logging.INFO, "fanwire")
    for number in range(1_000):
        faults.tell(log, logging.INFO, "refused calls of 'a'", "call %d is refused", number, most=1)
        faults.tell(log, logging.INFO, "what the engine tells", "line %d", number)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["call 0 is refused", *(f"line {number}" for number in range(100))]
    assert faults.counts == {}


def test_a_flood_of_what_a_relay_tells_fills_no_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("fanwire.logs.monotonic", lambda: now)
    log = logging.getLogger("fanwire.relay")
    for number in range(1_000):
        log.warning("client %s: no private connection", number)
    log.warning("lane %s is down", "a")
    assert [record.getMessage() for record in caplog.records[99:]] == [
        "client 99: no private connection",
        "lane a is down",
    ]
    now += 11
    log.warning("client %s: no private connection", 1_000)
    assert caplog.records[-1].getMessage() == (
        "client 1000: no private connection (900 more of this kind were left out within 10 s)"
    )
