"""The only module that knows asyncio, uvloop and trio; everything else waits through anyio or not at all."""

import inspect
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial
from importlib.util import find_spec
from math import inf
from threading import Thread, get_ident
from typing import Any, TypeGuard

import anyio
from anyio.abc import TaskGroup, TaskStatus


class Loop:
    """The event loop that runs the current task, for use from its own thread."""

    __slots__ = ("_asyncio", "_token", "call_from_any_thread", "call_soon", "thread")

    def __init__(self) -> None:
        self.thread: int = get_ident()
        """The loop's thread, as ``threading.get_ident`` names it."""
        self.call_soon: Callable[[Callable[[], object]], object]
        """Run a function that must not raise when the loop turns, after what is ready now."""
        self.call_from_any_thread: Callable[[Callable[[], object]], object]
        """The same, for other threads. Raises RuntimeError where the loop has ended."""
        self._asyncio: Any = None
        self._token: Any = None
        trio = _trio()
        if trio is not None:
            self._token = trio.lowlevel.current_trio_token()
            self.call_soon = partial(self._token.run_sync_soon, idempotent=True)
            self.call_from_any_thread = self.call_soon
        else:
            import asyncio

            self._asyncio = loop = asyncio.get_running_loop()
            self.call_soon, self.call_from_any_thread = loop.call_soon, loop.call_soon_threadsafe

    @property
    def is_current(self) -> bool:
        """Whether the current task is one of this loop's: a thread may run several, one after another."""
        trio = _trio()
        if trio is not None:
            return trio.lowlevel.current_trio_token() is self._token
        return self._asyncio is not None and sys.modules["asyncio"]._get_running_loop() is self._asyncio

    @property
    def is_closed(self) -> bool:
        """Whether it was closed though tasks were at work, which only asyncio lets happen: they never go on."""
        return self._asyncio is not None and bool(self._asyncio.is_closed())


def _trio() -> Any:
    """The module, where it runs the current task."""
    trio = sys.modules.get("trio")
    is_in_task = getattr(getattr(trio, "lowlevel", None), "in_trio_task", None)
    return trio if is_in_task is not None and is_in_task() else None  # another thread may be importing it just now


def running() -> object:
    """The event loop that runs in this thread, to be compared. Raises RuntimeError where none does."""
    trio = _trio()
    if trio is not None:
        return trio.lowlevel.current_trio_token()
    import asyncio

    return asyncio.get_running_loop()


def is_transport(one: object) -> bool:
    """Whether it is a transport of asyncio's or uvloop's own, whose ways are known, and not what stands for one."""
    return type(one).__module__.partition(".")[0] in ("asyncio", "uvloop")


_spawned: set[object] = set()
"""Tasks that nobody else refers to: asyncio itself holds them weakly."""


def spawn(main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """Run `main` in a task that belongs to the loop, not to the current task. It must raise nothing but cancellation.

    When the loop ends before it did, it is cancelled.
    """
    trio = _trio()
    if trio is not None:
        trio.lowlevel.spawn_system_task(main, name=name, context=copy_context())
        return
    import asyncio

    task = asyncio.create_task(main(), name=name)
    _spawned.add(task)
    task.add_done_callback(_spawned.discard)


async def in_thread(function: Callable[[], object]) -> None:
    """Run `function` in a thread of its own, and return when it has; in any task, also one that outlives the program's.

    Raises what it raises. A worker of AnyIO's would wait for the end of the loop's main task, which may be over, and
    keep the process.
    """
    loop, is_done = Loop(), anyio.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)
        with suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits
            loop.call_from_any_thread(is_done.set)

    Thread(target=work, name="end of fanwire", daemon=True).start()
    await is_done.wait()
    if failures:
        raise failures[0]


class Interrupt:
    """A body of the current task, as a context manager, that another task may end: it is then left without an error.

    With asyncio no scope is tied to a task: a body that is left in another task, since the one that entered it has
    ended, cannot be interrupted, and nothing breaks. With trio it must be left in the task that entered it.
    """

    def __init__(self) -> None:
        trio = _trio()
        self._scope: Any = None
        self._is_used = False
        if trio is not None:
            self._scope = trio.CancelScope()
            return
        import asyncio

        task = asyncio.current_task()
        assert task is not None  # who awaits is in one
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()

    def now(self) -> None:
        """End the body. In the loop's thread, from another task."""
        if self._scope is not None:
            self._scope.cancel()
        elif not self._task.done():
            self._is_used = True
            self._task.cancel()

    def __enter__(self) -> "Interrupt":
        if self._scope is not None:
            self._scope.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: Any) -> bool:
        if self._scope is not None:
            return bool(self._scope.__exit__(kind, error, where))
        if not self._is_used:
            return False
        import asyncio

        is_ours = asyncio.current_task() is self._task and self._task.uncancel() <= self._cancelling
        return is_ours and isinstance(error, asyncio.CancelledError)


async def readable(descriptor: int) -> None:
    """Wait until `descriptor` can be read. Cancelled, it leaves nothing behind."""
    await anyio.wait_readable(descriptor)


class Readable:
    """Waits until a descriptor can be read, again and again: for one task, which has it as a context manager.

    With asyncio the loop watches the descriptor all the time: to watch it anew at each wait is ten system calls. So
    whoever has waited reads before it waits again, or the loop turns for nothing.
    """

    __slots__ = ("_asyncio", "_descriptor", "_waiting")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._asyncio: Any = None
        self._waiting: Any = None

    def __enter__(self) -> Callable[[], Awaitable[None]]:
        """Gives what waits."""
        if _trio() is not None:
            return partial(readable, self._descriptor)
        import asyncio

        self._asyncio = asyncio.get_running_loop()
        self._asyncio.add_reader(self._descriptor, self._is_readable)
        return self._wait

    def __exit__(self, *_: object) -> None:
        if self._asyncio is not None and not self._asyncio.is_closed():
            self._asyncio.remove_reader(self._descriptor)

    def _wait(self) -> Awaitable[None]:
        self._waiting = self._asyncio.create_future()
        waiting: Awaitable[None] = self._waiting
        return waiting

    def _is_readable(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Strayed(Exception):
    """What an application's code raised would have ended more than its callback; it is the ``__cause__``."""


def ends_task(error: BaseException) -> bool:
    """Whether an exception that was caught must go on its way: it is the end of the task that runs, or of the process.

    That is ``KeyboardInterrupt``, and the cancellation of the task or of a scope that it is in. A ``CancelledError``
    that came from elsewhere (only asyncio lets that happen), ``SystemExit``, ``GeneratorExit`` or the engine's panic
    are not: a task group would take each for the end of all that is in it.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, BaseExceptionGroup):
        return any(ends_task(one) for one in error.exceptions)
    if isinstance(error, KeyboardInterrupt):
        return True
    try:
        if isinstance(error, anyio.get_cancelled_exc_class()):
            return is_cancelled() or _is_cancelled_alone()
        return isinstance(error, GeneratorExit) and not _is_in_task()
    except RuntimeError:  # no loop runs: what is left of a task is taken away
        return True


def is_cancelled() -> bool:
    """Whether a scope that the task is in is cancelled."""
    return anyio.current_effective_deadline() == -inf


def _is_cancelled_alone() -> bool:
    """Whether somebody has cancelled this very task, which only asyncio lets happen."""
    if _trio() is not None:
        return False
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_in_task() -> bool:
    """Else it is the garbage collector that ends a coroutine."""
    if _trio() is not None:
        return True
    import asyncio

    return asyncio.current_task() is not None


def outlives(error: BaseException) -> bool:
    """Whether it is the cancellation of the running task alone; that is undone, and the task goes on.

    For tasks of the hub, whose own end comes by the scope of their group, also where a loop that ends cancels them all:
    else it was the application's code, which cancelled the task that it was called in.
    """
    if not isinstance(error, anyio.get_cancelled_exc_class()) or is_cancelled() or not _is_cancelled_alone():
        return False
    _uncancel()
    return True


async def outlive_cancellation() -> None:
    """Undo that the running task alone is to be cancelled: what waits next would end, or the task group at its end."""
    if _is_cancelled_alone() and not is_cancelled():
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.lowlevel.cancel_shielded_checkpoint()
        _uncancel()


def _uncancel() -> None:
    import asyncio

    task = asyncio.current_task()
    while task is not None and task.uncancel():
        pass


def raise_if_strayed(error: BaseException) -> None:
    """Raise ``Strayed`` for what the application's code raised, unless it is an ``Exception`` or ends the task.

    A task of the hub that this code cancelled, and nobody else, is not ended.
    """
    if not isinstance(error, Exception) and (outlives(error) or not ends_task(error)):
        raise Strayed(f"{type(error).__name__} came out of the application's code") from error


class Callback:
    """A function of the application, ``def`` or ``async def``, that is awaited alike."""

    __slots__ = ("function", "is_async")

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"a callback must be a function, not {type(function).__name__}")
        self.function = function
        self.is_async: bool = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 an object may have an async __call__
        )
        """Whether it may wait, and so needs a task."""

    def __str__(self) -> str:
        return repr(getattr(self.function, "__name__", None) or type(self.function).__name__)

    async def __call__(self, *arguments: Any) -> Any:
        try:
            result = self.function(*arguments)
            if self.is_async:
                return await result
        except BaseException as error:
            raise_if_strayed(error)
            raise
        if has_to_be_awaited(result):
            if isinstance(result, Coroutine):
                result.close()
            raise TypeError(f"{self.function!r} returned an awaitable; define it with `async def`")
        return result


def has_to_be_awaited(result: object) -> TypeGuard[Awaitable[Any]]:
    """Whether a function has left something to wait for; what ``hub.publish`` gives can be awaited, and needs not."""
    if not isinstance(result, Awaitable):
        return False
    from fanwire._engine import Publication

    return not isinstance(result, Publication)


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to its end, here and now, a coroutine that awaits nothing but sync callbacks."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("only sync callbacks are run inline, and they cannot wait")


def run(main: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run `main` in a new event loop: uvloop where it can be imported, else asyncio."""
    anyio.run(main, *arguments, backend_options={"use_uvloop": find_spec("uvloop") is not None})


@asynccontextmanager
async def background_tasks() -> AsyncIterator[TaskGroup]:
    """A task group that serves its body: at the body's end its tasks are cancelled and waited for.

    What the body raises comes out as it is, not wrapped in an ExceptionGroup; what a task raises ends the body.
    """
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def watch_signals(*actions: Callable[[], object], task_status: TaskStatus[None]) -> None:
    """Call the first of `actions` at the first SIGINT or SIGTERM, and so on; then they do nothing. Main thread only."""
    waiting = iter(actions)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            next(waiting, lambda: None)()


def load() -> None:
    """Have in memory what ``run`` and the above need, for a process that is about to be copied."""

    async def main() -> None:
        async with background_tasks() as tasks:
            await tasks.start(watch_signals)

    run(main)
