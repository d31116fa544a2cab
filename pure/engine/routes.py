"""Paths as they are compared: what the application registers is checked as where it will be served."""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from fanwire.errors import InvalidChannel

from .names import check_name, quoted

ROUTES_MAX = 1_024
"""Paths that an engine may have at once."""
PATH_BYTES_MAX = 255
PLAIN = "-._~!$&'()*+,;=:@"
"""What may stand in a segment by itself, beside letters and digits (RFC 3986 §3.3)."""
WIRES = ("websocket", "events", "signalr", "plain", "request", "health", "ready")
ASKS = ("opening", "subscribing", "connected", "messages", "bodies", "records")
TRANSPORTS = ("WebSockets", "ServerSentEvents", "LongPolling")

Part: TypeAlias = tuple[Literal["text", "placeholder"], str]
"""A part of a path or of a channel's name."""


def _normal(segment: str) -> str:
    return quote(unquote_to_bytes(segment.encode()), safe=PLAIN)


def _parts(template: str) -> list[Part]:
    """Texts and placeholders in their order. Raises ValueError with the rule that they break."""
    parts: list[Part] = []
    at = 0
    for found in re.finditer(r"\{([A-Za-z0-9_]+)\}", template):
        parts += [("text", template[at : found.start()])] * (found.start() > at)
        parts.append(("placeholder", found[1]))
        at = found.end()
    if at < len(template) or not parts:
        parts.append(("text", template[at:]))
    if any(kind == "text" and ("{" in text or "}" in text) for kind, text in parts):
        raise ValueError("have each { closed by a }, with a name of letters, digits and _ between them")
    return parts


def _segments(path: str) -> list[Part]:
    """The segments of a path. Raises ValueError with the rule that it breaks."""
    if not path.startswith("/"):
        raise ValueError("begin with /")
    if len(path.encode()) > PATH_BYTES_MAX:
        raise ValueError("not be over 255 bytes")
    if "?" in path or "#" in path or any(one.isspace() or ord(one) < 32 or 127 <= ord(one) < 160 for one in path):
        raise ValueError("hold no ?, no #, no space and no control character")
    if "\\" in path:
        raise ValueError("hold no \\, for which browsers send /")
    if path == "/":
        return [("text", "")]
    if path.endswith("/"):
        raise ValueError("not end with /")
    segments: list[Part] = []
    for segment in path[1:].split("/"):
        if not segment:
            raise ValueError("hold no empty segment")
        (kind, text), *more = _parts(segment)
        if more:
            raise ValueError("have each placeholder in a segment of its own, as in /rooms/{room}")
        part: Part = (kind, _normal(text) if kind == "text" else text)
        if kind == "placeholder" and part in segments:
            raise ValueError("hold each placeholder once")
        if kind == "text" and part[1] in (".", ".."):
            raise ValueError("hold no segment . or .., which browsers take out")
        segments.append(part)
    if len(_shape(segments)) > PATH_BYTES_MAX:
        raise ValueError("not be over 255 bytes, percent-encoded")
    return segments


def _shape(segments: Sequence[Part]) -> str:
    return "".join("/" + ("{}" if kind == "placeholder" else text) for kind, text in segments)


class Route:
    """A path, and who answers for it. Raises ValueError for a path that no request can have, and an unknown name."""

    def __init__(
        self,
        path: str,
        wire: str,
        owner: int = 0,
        *,
        channel: str | None = None,
        transports: Sequence[str] | None = None,
        asks: Sequence[str] = (),
        origins: Sequence[str] | None = None,
        message_bytes_max: int | None = None,
    ) -> None:
        for name in transports or ():
            if name not in TRANSPORTS:
                must = "must be 'WebSockets', 'ServerSentEvents' or 'LongPolling'"
                raise ValueError(f'a transport {must}, not "{name}"')
        if transports is not None and not transports:
            raise ValueError("a hub must have at least one transport")
        if wire not in WIRES:
            raise ValueError(f"there is no wire {quoted(wire)}")
        self._path, self._wire = path, wire
        has_channels = wire in ("websocket", "events")
        try:
            self._segments = _segments(path)
            if not has_channels and any(kind == "placeholder" for kind, _ in self._segments):
                raise ValueError("hold no placeholder: only paths of WebSockets and event streams have some")
        except UnicodeEncodeError:
            raise
        except ValueError as error:
            raise ValueError(f"path {quoted(path[:80])}: must {error}") from None
        if channel is not None:
            self._check_channel(channel, has_channels)
        for name in asks:
            if name not in ASKS:
                raise ValueError(f"no owner is asked {quoted(name)}")

    def _check_channel(self, template: str, has_channels: bool) -> None:
        try:
            parts = _parts(template)
        except ValueError as error:
            why = f"must {error}"
        else:
            unknown = [part[1] for part in parts if part[0] == "placeholder" and part not in self._segments]
            if not has_channels:
                why = "only paths of WebSockets and event streams have one"
            elif unknown:
                why = f"the path has no {{{unknown[0]}}}"
            else:
                try:
                    check_name("".join(text if kind == "text" else "x" for kind, text in parts))
                    return
                except InvalidChannel as error:
                    why = f"channel name {quoted(error.channel)}: {error.why}"
        raise ValueError(f"channel {quoted(template[:80])} of path {quoted(self._path)}: {why}")

    @property
    def path(self) -> str:
        """As given."""
        return self._path

    @property
    def key(self) -> str:
        """In the one form in which requests are compared with it."""
        shape = _shape(self._segments)
        return shape.lower() if self._wire == "signalr" else shape

    def clashes_with(self, other: "Route") -> bool:
        """Whether a request could mean either with equal right."""
        is_folded = "signalr" in (self._wire, other._wire)
        return not self._names(is_folded).isdisjoint(other._names(is_folded))

    def _names(self, is_folded: bool) -> set[str]:
        shape = _shape(self._segments)
        shape = shape.lower() if is_folded else shape
        return {shape, *([f"{shape}/negotiate"] if self._wire == "signalr" else ())}
