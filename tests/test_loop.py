"""The one module that knows event loops."""

import functools
import os
from threading import get_ident

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fanwire._loop import Callback, Loop, Readable, background_tasks, finish, readable

pytestmark = pytest.mark.anyio


async def test_call_soon_runs_after_this_turn() -> None:
    loop = Loop()
    ran = anyio.Event()
    loop.call_soon(ran.set)
    assert not ran.is_set()
    with anyio.fail_after(60):
        await ran.wait()
    assert loop.thread == get_ident()


async def test_readable_waits_for_an_eventfd_and_leaves_nothing_when_cancelled() -> None:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with anyio.move_on_after(0.01) as scope:
            await readable(descriptor)
        assert scope.cancelled_caught
        os.eventfd_write(descriptor, 1)
        with anyio.fail_after(60):
            await readable(descriptor)
    finally:
        os.close(descriptor)


async def test_what_is_waited_for_again_and_again_is_watched_once_and_then_no_longer() -> None:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with anyio.fail_after(60):
            with Readable(descriptor) as wait:
                with anyio.move_on_after(0.01) as scope:
                    await wait()
                assert scope.cancelled_caught
                for _ in range(3):
                    os.eventfd_write(descriptor, 1)
                    await checkpoint()  # it is told of it while nobody waits
                    await wait()
                    assert os.eventfd_read(descriptor) == 1
            os.eventfd_write(descriptor, 1)
            await readable(descriptor)  # which nobody else watches any more
    finally:
        os.close(descriptor)


async def test_callbacks_are_awaited_alike() -> None:
    async def later(value: int) -> int:
        await checkpoint()
        return value

    class Later:
        async def __call__(self, value: int) -> int:
            return await later(value)

    for function in (later, Later(), functools.partial(later)):
        callback = Callback(function)
        assert callback.is_async
        assert await callback(7) == 7
    callback = Callback(lambda value: value)
    assert not callback.is_async
    assert await callback(7) == 7


def test_finish_runs_what_never_waits() -> None:
    seen: list[int] = []

    async def now() -> None:
        seen.append(await Callback(lambda: 7)())

    finish(now())
    assert seen == [7]


async def test_background_tasks_end_with_their_body_and_wrap_nothing() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await anyio.Event().wait()
        finally:
            ended.append("task")

    with pytest.raises(KeyError):
        async with background_tasks() as tasks:
            tasks.start_soon(wait)
            await checkpoint()
            raise KeyError
    assert ended == ["task"]


async def test_a_background_task_that_fails_ends_the_body() -> None:
    async def fail() -> None:
        raise KeyError("task")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with background_tasks() as tasks:
            tasks.start_soon(fail)
            await anyio.Event().wait()
    assert caught.group_contains(KeyError)
