"""Addresses and origins as people write them, in the form that the engine compares and binds. Not here: sockets."""

import os
import re
from contextlib import suppress
from socket import has_dualstack_ipv6
from typing import Any

from fanwire.errors import ListenFailed
from fanwire.values import Listed, Mistake, WrongType, checked, part

ADDRESS = re.compile(
    r"unix:.+|fd:[0-9]{1,9}(,[0-9]{1,9})*|systemd|(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+):(?P<port>[0-9]{1,5})",
    re.DOTALL,
)
ADDRESS_FORMS = (
    "HOST:PORT, [V6]:PORT or unix:PATH, with a PORT of 0 to 65535; a PORT alone is on 127.0.0.1, :PORT on all addresses"
    "; or what was inherited: fd:N, or systemd for its sockets"
)
PORT_MAX = 65_535
UNIX_PATH_BYTES_MAX = 107
"""What ``sun_path`` holds besides its end."""
FDS_START, FDS_MAX = 3, 64
"""The first descriptor of socket activation; how many there may be here."""
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^\s/?#@:\[\]*,\"]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?/?"
)
ORIGIN_FORM = "SCHEME://HOST or SCHEME://HOST:PORT as a browser sends it, such as 'https://bets.example'"
DEFAULT_PORTS = {"http": 80, "https": 443}


def address_of(address: object) -> str:
    """What the engine listens on for what was given: ``8000``, ``"8000"``, ``":8000"`` or a whole address.

    Raises:
        TypeError: neither a str nor an int.
        ValueError: no address, a port over 65535, or a Unix path that a socket cannot have (unix(7)).
    """
    text: str = checked("address", address, read_address)
    return text


def read_address(address: Any) -> str:
    """The same. Raises Mistake for what is no address."""
    must = f"must be {ADDRESS_FORMS}"
    if not isinstance(address, str | int) or isinstance(address, bool):
        raise WrongType(must)
    if isinstance(address, int) and not 0 <= address <= PORT_MAX:
        raise Mistake(must)
    text = str(address).strip()
    if re.fullmatch("[0-9]{1,5}", text):
        text = f"127.0.0.1:{text}"
    elif re.fullmatch(":[0-9]{1,5}", text):
        text = f"{'[::]' if has_dualstack_ipv6() else '0.0.0.0'}{text}"
    match = ADDRESS.fullmatch(text)
    if match is None or int(match["port"] or 0) > PORT_MAX:
        raise Mistake(must)
    if text.startswith("unix:"):
        path = os.fsencode(text.removeprefix("unix:"))
        if b"\0" in path or len(path) > UNIX_PATH_BYTES_MAX:
            raise Mistake(f"must be unix:PATH with a path of 1 to {UNIX_PATH_BYTES_MAX} bytes without NUL")
    return text


def inherited(address: str) -> str:
    """What the engine listens on for an address that was checked: ``systemd`` as the descriptors that it gave.

    Raises:
        ListenFailed: it gave none to this process (sd_listen_fds(3)).
    """
    if address != "systemd":
        return address
    count, process = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if process != str(os.getpid()) or not count.isdecimal() or not 1 <= int(count) <= FDS_MAX:
        given = f"LISTEN_FDS is {count!r} and LISTEN_PID {process!r}, in process {os.getpid()}"
        raise ListenFailed(0, f"no socket was handed to this process: {given}", address)
    return f"fd:{','.join(str(FDS_START + index) for index in range(int(count)))}"


def origin_of(origin: Any) -> str:
    """One origin as a browser writes it (RFC 6454 §6.1): lower case, no default port, no slash, the host in ASCII.

    Raises Mistake for what is no origin, such as a bare host or one with a path.
    """
    must = f"must be {ORIGIN_FORM}"
    if not isinstance(origin, str):
        raise WrongType(must)
    text = origin.strip().lower()
    if text == "null":  # of a sandboxed frame, or a page out of a file
        return text
    if not text.isascii():
        with suppress(UnicodeError):
            scheme, mark, rest = text.partition("://")
            text = scheme + mark + rest.encode("idna").decode()
    match = ORIGIN.fullmatch(text)
    if match is None or int(match["port"] or 0) > PORT_MAX:
        raise Mistake(f"{must}; no part of it can be *" if "*" in text else must)
    scheme, host, port = match["scheme"], match["host"], match["port"]
    is_default = port is None or DEFAULT_PORTS.get(scheme) == int(port)
    return f"{scheme}://{host}" if is_default else f"{scheme}://{host}:{int(port)}"


def origins_of(origins: Any) -> tuple[str, ...] | None:
    """The origins that may connect; None is all, as ``"*"`` and ``["*"]`` are. A str stands for a list of it.

    An empty list lets no page in. Raises Mistake for what is no origin.
    """
    if origins is None or origins == "*":
        return None
    if isinstance(origins, str):
        return (origin_of(origins),)
    given = Listed(lambda origin: origin, "origins such as 'https://bets.example', or None")(origins)
    if given == ("*",):
        return None
    if "*" in given:
        raise Mistake("must not have others beside '*', which lets all in")
    return tuple(dict.fromkeys(part(index, origin, origin_of) for index, origin in enumerate(given)))
