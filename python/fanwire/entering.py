"""Contexts that are entered with ``async with``, and say so to whoever enters them otherwise, or not at all."""

import warnings
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

T_co = TypeVar("T_co", covariant=True)


class AsyncOnly(AbstractAsyncContextManager[T_co, bool | None], Generic[T_co]):
    """`inner`, to be entered once.

    Args:
        inner: the context.
        what: the call that made it, as the application writes it: ``hub.serve(...)``.
        otherwise: what to do where no ``async with`` is at hand; empty where there is nothing.
    """

    def __init__(self, inner: AbstractAsyncContextManager[T_co, bool | None], what: str, otherwise: str = "") -> None:
        self._inner = inner
        self._what = what
        self._otherwise = otherwise
        self._is_entered = False

    async def __aenter__(self) -> T_co:
        self._is_entered = True
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, where)

    def __del__(self) -> None:
        if not getattr(self, "_is_entered", True):
            warnings.warn(f"{self._what} was never entered, so it did nothing: {self._hint}", RuntimeWarning, 2, self)

    @property
    def _hint(self) -> str:
        return f"write `async with {self._what}`" + (f", or {self._otherwise}" if self._otherwise else "")

    if not TYPE_CHECKING:  # a type checker is to go on calling these wrong

        def __enter__(self) -> NoReturn:
            self._is_entered = True
            raise TypeError(f"{self._what} cannot be entered by `with`: {self._hint}")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("it is never entered")

        def __await__(self) -> NoReturn:
            self._is_entered = True
            raise TypeError(f"{self._what} cannot be awaited: {self._hint}")

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            self._is_entered = True
            raise AttributeError(f"{self._what} has no {name!r} before it is entered: {self._hint}")
