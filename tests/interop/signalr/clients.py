"""The stock SignalR clients: how each is started, and which transports, protocols and features it has. One table."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.chromium import CHROMIUM

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
ORIGIN = Path(os.environ.get("SIGNALR_ORIGIN", HERE.parents[3] / "shared/tools/signalr-origin/signalr-origin"))
JVM = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
JAVA_CLASSES = DRIVERS / "java/target"

JSON_ONLY = ("json",)
BOTH = ("json", "messagepack")
MICROSOFT = {"websockets": BOTH, "sse": JSON_ONLY, "longpolling": BOTH}
"""Over SSE .NET and JavaScript clients refuse MessagePack by themselves."""
WEBSOCKETS_ONLY = frozenset({"skip-negotiation", "stateful"})
OVER_HTTP = {"sse": WEBSOCKETS_ONLY, "longpolling": WEBSOCKETS_ONLY}


@dataclass(frozen=True)
class Kind:
    """A client library.

    `lacks` are features that no transport of it has, `lacks_over` those that one transport hasn't: `answer` (client
    results), `cancel`, `upload`, `send` (a call that wants no answer), `lost` (a call fails when the connection ends),
    `own-id` (the application is told the connection's id), `final` (a Close without leave to reconnect is the end), and
    the options `reconnect` (by itself, with events that say so), `stateful` (the connection outlives its socket),
    `skip-negotiation`.
    """

    name: str
    command: tuple[str, ...]
    transports: dict[str, tuple[str, ...]]
    lacks: frozenset[str] = frozenset()
    lacks_over: dict[str, frozenset[str]] = field(default_factory=dict)


KINDS = [
    # Its driver is the reference's, and has no words for the id.
    Kind("dotnet", (str(ORIGIN), "client"), MICROSOFT, lacks=frozenset({"own-id"}), lacks_over=OVER_HTTP),
    Kind("node", ("node", str(DRIVERS / "node/node.js")), MICROSOFT, lacks_over=OVER_HTTP),
    Kind(
        "chromium",
        ("node", str(DRIVERS / "node/chromium.js"), "--browser", CHROMIUM),
        MICROSOFT,
        # A browser sends a GET again whose connection was lost: a poll is not lost so easily.
        lacks_over=OVER_HTTP | {"longpolling": WEBSOCKETS_ONLY | {"reconnect"}},
    ),
    Kind(
        "java",
        (*JVM, "-cp", f"{JAVA_CLASSES / 'classes'}{os.pathsep}{JAVA_CLASSES / 'lib'}/*", "Driver"),
        # Its MessagePack is an artifact of its own, which can't be had here; it has no SSE.
        {"websockets": JSON_ONLY, "longpolling": JSON_ONLY},
        lacks=frozenset({"reconnect", "stateful"}),
        # Each message is a POST that waits for no other: items of an upload overtake each other and their end.
        lacks_over={"longpolling": frozenset({"upload", "skip-negotiation"})},
    ),
    Kind(
        "pysignalr",
        (sys.executable, str(DRIVERS / "python/drive_pysignalr.py")),
        {"websockets": BOTH},
        # Its upload has no invocation id, so that nothing comes back; a lost call is never told, and where the
        # connection is lost it dials with the old id again, which a hub refuses.
        lacks=frozenset({"cancel", "upload", "send", "lost", "own-id", "reconnect", "stateful", "skip-negotiation"}),
    ),
    Kind(
        "signalrcore",
        (sys.executable, str(DRIVERS / "python/drive_signalrcore.py")),
        # Its long polling hands over one message a poll and keeps the others until the next answer, and its Server-Sent
        # Events stall at times where many small messages come close together: neither tells a story to its end.
        {"websockets": BOTH},
        lacks=frozenset({"answer", "cancel", "upload", "send", "lost", "own-id", "final", "stateful"}),
    ),
]


@dataclass(frozen=True)
class Mode:
    """A client with a transport and a protocol."""

    kind: Kind
    transport: str
    protocol: str

    def __str__(self) -> str:
        return f"{self.kind.name}-{self.transport}-{self.protocol}"

    def lacks(self, needs: list[str]) -> bool:
        """Whether a command with these `needs` is left out."""
        other = {"json": "messagepack", "messagepack": "json"}[self.protocol]
        missing = self.kind.lacks | self.kind.lacks_over.get(self.transport, frozenset()) | {other}
        return bool(missing.intersection(needs))

    def command(self, url: str, token: str | None, *features: str) -> list[str]:
        """The driver's command line; `features` are switched on."""
        words = [*self.kind.command, "--url", url, "--transport", self.transport, "--protocol", self.protocol]
        words += ["--token", token] if token else []
        return [*words, *(f"--{feature}" for feature in features)]


def modes() -> Iterator[Mode]:
    """Every client over each of its transports in each of its protocols."""
    for kind in KINDS:
        for transport, protocols in kind.transports.items():
            for protocol in protocols:
                yield Mode(kind, transport, protocol)


def missing(kind: Kind) -> str | None:
    """Why a client can't run here; None where it can."""
    if kind.name == "dotnet":
        return None if ORIGIN.is_file() else f"there is no {ORIGIN.name} (SIGNALR_ORIGIN names it)"
    if kind.name in ("node", "chromium") and not (DRIVERS / "node/node_modules/@microsoft/signalr").is_dir():
        return "the npm packages are not installed: run `npm ci` in drivers/node"
    if kind.name == "chromium" and not CHROMIUM:
        return "there is no Chromium"
    if not shutil.which(kind.command[0]):
        return f"there is no {kind.command[0]}"
    if kind.name == "java" and not (JAVA_CLASSES / "classes/Driver.class").is_file():
        return "the Java driver is not built: run `make tests/interop/signalr/drivers/java/target/.stamp`"
    return None
