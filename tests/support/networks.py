"""Machines in network namespaces of their own, on one switch, and cables that are pulled."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


def ip(*words: str) -> None:
    """The command. Raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@cache
def why_not() -> str:
    """What this machine lacks; empty where it can be done."""
    if shutil.which("ip") is None:
        return "there is no ip(8)"
    name = f"fw{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("netns", "exec", name, "ip", "link", "add", "name", "bridge", "type", "bridge")
        ip("netns", "exec", name, "ip", "link", "add", "name", "eth", "type", "veth", "peer", "name", "port")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces, bridges and cables are to be had: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    return ""


class Network:
    """A switch, in a namespace, and who is connected to it. Nothing outside reaches anybody there."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._prefix = f"fw{os.getpid()}"
        self._switch = self._add("s")
        self._inside(self._switch, "ip", "link", "add", "name", "bridge", "type", "bridge")
        self._inside(self._switch, "ip", "link", "set", "bridge", "up")

    def _add(self, name: str) -> str:
        space = f"{self._prefix}{name}"
        ip("netns", "add", space)
        self._names.append(space)
        ip("-n", space, "link", "set", "lo", "up")
        return space

    def _inside(self, space: str, *words: str) -> None:
        ip("netns", "exec", space, *words)

    def machine(self, number: int) -> str:
        """One more, 1 to 99; gives its address."""
        space, port = self._add(f"m{number}"), f"p{number}"
        ip("-n", self._switch, "link", "add", "name", port, "type", "veth", "peer", "name", "eth", "netns", space)
        ip("-n", self._switch, "link", "set", port, "master", "bridge")
        ip("-n", self._switch, "link", "set", port, "up")
        address = f"10.77.0.{number}"
        ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth")
        ip("-n", space, "link", "set", "eth", "up")
        return address

    def on(self, number: int) -> list[str]:
        """What stands before a command that is to run on a machine."""
        return ["ip", "netns", "exec", f"{self._prefix}m{number}"]

    def pull(self, number: int) -> None:
        """A machine's cable out: nothing comes or goes, and nobody is told."""
        ip("-n", self._switch, "link", "set", f"p{number}", "nomaster")

    def plug(self, number: int) -> None:
        """And in again."""
        ip("-n", self._switch, "link", "set", f"p{number}", "master", "bridge")

    def close(self) -> None:
        """Nothing is left of it."""
        for space in self._names:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@contextmanager
def network() -> Iterator[Network]:
    """One, for as long as the context lasts."""
    one = Network()
    try:
        yield one
    finally:
        one.close()
