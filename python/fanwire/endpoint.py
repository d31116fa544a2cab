"""A SignalR hub beside the main one. ✗ what its methods do."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from fanwire._loop import Callback
from fanwire.methods import Method, Methods

F = TypeVar("F", bound=Callable[..., Any])


class Endpoint:
    """A SignalR hub of its own: a path, and the methods that its clients may call. ``Hub.endpoint`` makes it."""

    def __init__(self, path: str, methods: Methods, may_register: Callable[[str], None]) -> None:
        self.path: str = path
        """Where clients connect; ``/negotiate`` is below it."""
        self._methods = methods
        self._may_register = may_register

    @overload
    def method(self, name: F) -> F: ...
    @overload
    def method(self, name: str) -> Callable[[F], F]: ...
    def method(self, name: Any) -> Any:
        """Let clients of this path call the function; see ``Hub.method``."""
        if not isinstance(name, str):
            return self.method(name.__name__)(name)

        def register(function: F) -> F:
            self._may_register(f"method {name!r}")
            self._methods.add(Method(name, Callback(function)))
            return function

        return register
