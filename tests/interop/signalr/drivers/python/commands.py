"""The command language of ``signalr-origin client``, for clients written in Python: commands in, events out."""

import base64
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

ANSWER_WITHIN_S = 10.0


class Stage:
    """Where a client's application says what it saw; what was said can be waited for."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._changed = threading.Condition()

    def say(self, ev: str, **members: Any) -> None:
        """Print one event."""
        line = json.dumps({"ev": ev, **members}, ensure_ascii=False, default=plain)
        with self._changed:
            print(line, flush=True)
            about = {f"{ev}:{members[name]}" for name in ("target", "id") if name in members}
            self._seen.update({ev, *about})
            self._changed.notify_all()

    def wait(self, command: dict[str, Any]) -> bool:
        """Whether as many events as a ``wait`` asks for were said in time."""
        about = command.get("target", command.get("id"))
        key = command["ev"] if about is None else f"{command['ev']}:{about}"
        wanted = command.get("count", 1)
        with self._changed:
            if self._changed.wait_for(lambda: self._seen[key] >= wanted, command.get("timeoutMs", 10_000) / 1000):
                return True
        self.say("timeout", waitedFor=key, wanted=wanted, seen=self._seen[key])
        return False


class Client(Protocol):
    """What a driver makes of its library; what the library lacks is not here."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def on(self, target: str) -> None: ...
    def answer(self, target: str, value: str | None) -> None: ...
    def invoke(self, id: str, method: str, args: list[Any]) -> Callable[[], None]:
        """Begin a call; what comes back waits until it is answered."""
        ...

    def stream(self, id: str, method: str, args: list[Any]) -> None: ...


def plain(value: Any) -> Any:
    """A value that JSON has no name for."""
    return {"$bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else str(value)


def given(value: Any, is_binary: bool) -> Any:
    """A command's value as an application would pass it: base64 is what stands for bytes in JSON."""
    if isinstance(value, list):
        return [given(item, is_binary) for item in value]
    if isinstance(value, dict):
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"]) if is_binary else value["$bytes"]
        return {name: given(item, is_binary) for name, item in value.items()}
    return value


def options() -> dict[str, str]:
    """``--name value`` of the command line; a ``--name`` alone is "true"."""
    words = [*sys.argv[1:], "--"]
    return {
        name.removeprefix("--"): "true" if value.startswith("--") else value
        for name, value in pairwise(words)
        if name.startswith("--")
    }


def carry_out(command: dict[str, Any], client: Client, stage: Stage, is_binary: bool) -> bool:
    """One command; false where a wait ran out."""
    op, id, method = command["op"], str(command.get("id", "")), command.get("method", "")
    args = given(command.get("args", []), is_binary)
    match op:
        case "start" | "stop":
            getattr(client, op)()
        case "on":
            client.on(command["target"])
        case "answer":
            client.answer(command["target"], command.get("value"))
        case "invoke":
            client.invoke(id, method, args)()
        case "invoke-later":
            client.invoke(id, method, args)
        case "stream":
            client.stream(id, method, args)
        case "wait":
            return stage.wait(command)
        case _:
            raise ValueError(f"unknown op '{op}'")
    return True


def run(client: Client, stage: Stage, is_binary: bool) -> bool:
    """Carry out what stdin says; whether all went well."""
    is_good = True
    for line in sys.stdin:
        if not line.strip() or line.startswith("#"):
            continue
        command = json.loads(line)
        try:
            is_good = carry_out(command, client, stage, is_binary) and is_good
        except Exception as error:
            stage.say("failed", op=command["op"], error=type(error).__name__, message=str(error))
            is_good = False
    return is_good
