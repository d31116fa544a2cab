"""A SignalR hub beside the main one. Not here: what its methods do."""

from collections.abc import Callable
from typing import Any, Concatenate, TypeVar, overload

from fanwire.client import Client
from fanwire.methods import Method, Methods
from fanwire.values import told

M = TypeVar("M", bound=Callable[Concatenate[Client, ...], Any])
"""A method: its client, and what it is called with."""


class Endpoint:
    """A SignalR hub of its own: a path, and the methods that its clients may call. ``Hub.endpoint`` makes it."""

    def __init__(self, path: str, methods: Methods, may_register: Callable[[str], None]) -> None:
        self.path: str = path
        """Where clients connect; ``/negotiate`` is below it."""
        self._methods = methods
        self._may_register = may_register

    @overload
    def method(self, name: M) -> M: ...
    @overload
    def method(self, name: str) -> Callable[[M], M]: ...
    def method(self, name: Any) -> Any:
        """Let clients of this path call the function; see ``Hub.method``."""
        if not isinstance(name, str):
            if not callable(name):
                raise TypeError(f"method takes a function, or the name to register it by, a str, not {told(name)}")
            if not hasattr(name, "__name__"):
                raise TypeError(f"{name!r} has no name of its own: register it with method('Name')")
            return self.method(name.__name__)(name)
        if not name:
            raise ValueError("name must be a str that is not empty: clients call the method by it")

        def register(function: M) -> M:
            self._may_register(f"method {name!r}")
            self._methods.add(Method(name, function))
            return function

        return register
