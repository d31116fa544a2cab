"""Addresses and origins as people write them, in the form that the engine compares and binds. ✗ sockets."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from socket import has_dualstack_ipv6

ADDRESS = re.compile(r"unix:.+|(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+):(?P<port>[0-9]{1,5})", re.DOTALL)
ADDRESS_FORMS = "HOST:PORT, [V6]:PORT or unix:PATH; a PORT alone is on 127.0.0.1, :PORT on all addresses"
PORT_MAX = 65_535
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^\s/?#@:\[\]*,\"]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?/?"
)
ORIGIN_FORM = "SCHEME://HOST or SCHEME://HOST:PORT as a browser sends it, such as 'https://bets.example'"
DEFAULT_PORTS = {"http": 80, "https": 443}


def address_of(address: object) -> str:
    """What the engine listens on for what was given: ``8000``, ``"8000"``, ``":8000"`` or a whole address.

    Raises:
        TypeError: neither a str nor an int.
        ValueError: no address, or a port over 65535.
    """
    if not isinstance(address, str | int) or isinstance(address, bool):
        raise TypeError(f"address must be {ADDRESS_FORMS}, not of type {type(address).__name__}")
    text = str(address).strip()
    if re.fullmatch("[0-9]{1,5}", text):
        text = f"127.0.0.1:{text}"
    elif re.fullmatch(":[0-9]{1,5}", text):
        text = f"{'[::]' if has_dualstack_ipv6() else '0.0.0.0'}{text}"
    match = ADDRESS.fullmatch(text)
    if match is None or int(match["port"] or 0) > PORT_MAX:
        raise ValueError(f"address must be {ADDRESS_FORMS}, not {address!r}")
    return text


def origin_of(origin: object) -> str:
    """One origin as a browser writes it (RFC 6454 §6.1): lower case, no default port, no slash, the host in ASCII.

    Raises:
        TypeError: no str.
        ValueError: no origin, such as a bare host or one with a path.
    """
    if not isinstance(origin, str):
        raise TypeError(f"an origin must be a str, not of type {type(origin).__name__}")
    text = origin.strip().lower()
    if text == "null":  # of a sandboxed frame, or a page out of a file
        return text
    if not text.isascii():
        with suppress(UnicodeError):
            scheme, mark, rest = text.partition("://")
            text = scheme + mark + rest.encode("idna").decode()
    match = ORIGIN.fullmatch(text)
    if match is None or int(match["port"] or 0) > PORT_MAX:
        hint = "; no part of it can be *" if "*" in text else ""
        raise ValueError(f"an origin must be {ORIGIN_FORM}{hint}, not {origin!r}")
    scheme, host, port = match["scheme"], match["host"], match["port"]
    is_default = port is None or DEFAULT_PORTS.get(scheme) == int(port)
    return f"{scheme}://{host}" if is_default else f"{scheme}://{host}:{int(port)}"


def origins_of(origins: str | Iterable[str] | None) -> Sequence[str] | None:
    """The origins that may connect; None is all, as ``"*"`` and ``["*"]`` are. Raises what ``origin_of`` raises.

    An empty list lets no page in.
    """
    if origins is None:
        return None
    try:
        given = [origins] if isinstance(origins, str) else list(origins)
    except TypeError:
        raise TypeError(f"origins must be a list of str or None, not of type {type(origins).__name__}") from None
    if given == ["*"]:
        return None
    if "*" in given:
        raise ValueError("origins: '*' lets all in, and so must stand alone")
    return list(dict.fromkeys(origin_of(origin) for origin in given))
