"""The house's rules, enforced: which way imports point, sizes, names, rooms of `unsafe`, docs.

An exception stands here, with its reason; one that nothing needs any more fails.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest
from support.rust_modules import circles, uses_of

ROOT = Path(__file__).parent.parent
FOLDERS = ("python", "pure", "rust", "tests", "bench", "examples")
NOT_OURS = {"target", "node_modules", "__pycache__", "results", "corpus", "artifacts"}
FILE_LINES_MAX = 600
FILE_EXCEPTIONS = {"python/fanwire/_engine.pyi": "one extension module has one stub, with a word on each of its names"}
FUNCTION_LINES_MAX = 70

PYTHON_LAYERS = [
    ["_engine", "_options", "arrivals", "dumps", "entering", "errors", "process", "timespans", "timings"],
    ["_loop"],
    ["scope", "uvicorn.mailbox"],
    ["daphne", "owner", "placing", "uvicorn.denial", "uvicorn.handing", "wording"],
    ["backbone", "frames", "logs", "uvicorn.protocol", "uvicorn.sansio", "values"],
    ["loglines", "stand_in"],
    ["workers", "workers.folder", "workers.foreign", "workers.systemd", "workers.zygote"],
    ["workers.seat"],
    ["addresses", "channel", "faults", "uvicorn", "workers.siblings"],
    ["endings", "workers.bus"],
    ["arguments", "attendance", "auth", "budget", "options", "workers.elders"],
    ["calls", "workers.attending", "workers.stats", "workers.summing"],
    ["client"],
    ["adapters.foreign", "deliveries", "hearing", "hosting", "methods", "presence", "snapshots", "to", "uploads"],
    ["adapters.aiohttp", "adapters.asgi", "adapters.websockets", "callbacks"],
    ["adapters.starlette"],
    ["adapters", "signalr"],
    ["adopt", "adopt.proxy"],
    ["adopt.joining", "adopt.plain"],
    ["adopt.seats"],
    ["adopt.attachments", "adopt.local"],
    ["adopt.broadcast"],
    ["adopt.outlets", "adopt.rooms"],
    ["config"],
    ["config.kinds"],
    ["config.sources"],
    ["config.reading"],
    ["config.building", "config.sourced"],
    ["relay.headers", "relay.stats", "sources", "sources.stats"],
    ["metrics", "relay.readiness"],
    ["relay.config", "relay.lingering", "relay.machine"],
    ["relay.shared", "relay.timing", "relay.turns", "relay.upstreams"],
    ["relay.door", "relay.everyones", "relay.names"],
    ["relay.wire"],
    ["relay.sharing"],
    ["relay.admitting", "relay.mirror"],
    ["relay.credentials", "relay.driver", "relay.offering", "relay.servers"],
    ["relay.admit", "relay.alike", "relay.lane", "relay.session"],
    ["relay.backed", "relay.broadcast", "relay.pool", "relay.unsubscribing"],
    ["relay.calls", "relay.plain_client"],
    ["relay.private"],
    ["relay.client"],
    ["relay.relay"],
    ["relay", "relay.plain"],
    ["scraping"],
    ["across", "asking", "openings"],
    ["application"],
    ["paths", "pump"],
    ["asgi.heads", "asgi.pair", "registering", "serving"],
    ["asgi.handing", "asgi.requests"],
    ["asgi.websockets"],
    ["asgi"],
    ["publisher", "publishing"],
    ["exchange"],
    ["workers.crew"],
    ["workers.starting"],
    ["attaching", "workers.supervisor"],
    ["admin.config", "admin.console", "admin.problems", "admin.shapes"],
    ["admin", "admin.door", "admin.ids", "admin.local", "admin.once", "admin.payloads", "admin.table"],
    ["admin.desk", "admin.openapi"],
    ["admin.acting", "admin.channels", "admin.clients", "admin.live", "admin.overview", "admin.settings"],
    ["admin.side"],
    ["hub"],
    ["otel", "sources.source", "testing"],
    ["sources.beside", "sources.nats", "sources.postgres", "sources.redis_stream"],
    ["sources.config"],
    ["fastapi"],
    ["compat"],
    ["compat.crossing", "compat.recent"],
    ["compat.broadcaster", "compat.django_channels", "compat.litestar", "compat.socketio"],
    ["pytest_plugin"],
    ["demo"],
    ["demo.backend", "demo.figures", "demo.processes"],
    ["demo.backends"],
    ["demo.acts"],
    ["demo.screen"],
    ["demo.summary"],
    ["cli"],
    ["cli.backbone"],
    ["cli.config", "cli.instance", "cli.machine", "cli.reaching", "cli.telling"],
    ["cli.options"],
    ["cli.check", "cli.doctor", "cli.load", "cli.operating", "cli.restart", "cli.script", "cli.serving"],
    ["top", "top.differences", "top.figures"],
    ["top.listings"],
    ["top.wishes"],
    ["top.observer", "top.summary"],
    ["top.lines", "top.palette"],
    ["top.pane", "top.panels"],
    ["top.screen"],
    ["cli.demo", "cli.serve", "cli.sources", "cli.top"],
    ["cli.app"],
]
"""A module imports from the layers before its own. `__init__` and `__main__` stand outside: they only collect."""

CORE_LAYERS = [
    ["backoff", "bytes", "position"],
    ["clock", "error", "notify", "socket", "sync"],
    ["failure"],
    ["settings", "mailbox", "http"],
    ["listening", "ws"],
    ["protocol"],
    ["connection_id"],
    ["channel", "tokens"],
    ["adopted", "looking", "routes", "siblings", "stats"],
    ["alike", "node", "offers"],
    ["messages"],
    ["events"],
    ["session"],
    ["shard"],
    ["engine"],
]
CORE_EXCEPTIONS = {
    ("settings", "channel"): "a rule holds a parsed Pattern, so that a bad one is refused with the settings",
}

LOAD_LAYERS = [
    ["error", "histogram", "payload", "sys"],
    ["commands", "completion", "draw"],
    ["args"],
    ["check", "connect"],
    ["receive", "report"],
    ["client"],
    ["session"],
    ["children"],
    ["feed", "floor", "signalr"],
]

NODE_LAYERS = [
    ["answer", "bell", "bounds", "error", "linked", "orphans", "thread"],
    ["frame", "heard", "place", "poller"],
    ["outbox", "sender"],
    ["connection"],
    ["peers"],
    ["serving"],
    ["owner"],
    ["link", "server"],
    ["outside"],
    ["publisher", "sequencing"],
    ["joining"],
]

BACKBONE_LAYERS = [
    ["api"],
    ["inbox", "names", "record", "roots", "url"],
    ["channels", "connection", "script"],
    ["server"],
    ["topology"],
    ["asking", "rounds"],
    ["machines"],
    ["session"],
    ["edge", "nats"],
    ["running"],
    ["link"],
]

UPSTREAM_LAYERS = [
    ["roots", "target"],
    ["api"],
    ["connect", "outbox", "pending", "request"],
    ["shared"],
    ["inbox", "negotiate"],
    ["upgrade"],
    ["opening"],
    ["session"],
    ["thread"],
]

BINDING_SEES = {"channel", "http", "messages", "node", "protocol", "settings", "error", "ws"}
"""Modules of fanwire-core that the binding names; what the crate's root exports it may have anyway."""

UNSAFE_ROOMS = {
    "rust/core/src/notify.rs": "the eventfd",
    "rust/core/src/channel/segment.rs": "bytes that are written once beside readers",
    "rust/core/src/socket.rs": "system calls",
    "rust/core/src/shard/poller/": "epoll and io_uring",
    "rust/python/src/encode/": "CPython's own type checks and buffers",
    "rust/load/src/sys.rs": "system calls",
    "rust/load/src/floor/ring.rs": "io_uring",
}

SLEEP_EXCEPTIONS = {
    "bench/micro/test_events.py": "no claim of readiness: a pause before the timing, so that a batch is whole",
    "tests/interop/signalr/live_hub.py": "the reference's methods take their time, too",
    "tests/peers/hubs.py": "the methods that the peers' suites call take their time, too",
}

OTHERS_NAMES = {
    "ConnectionManager": "FastAPI's tutorial calls it so",
    **dict.fromkeys(
        ("AsyncFanwireManager", "AsyncBackboneManager", "BackboneManager"),
        "python-socketio calls it so: AsyncManager, AsyncRedisManager",
    ),
}
"""Names that other libraries have given."""

WORDS = {"util", "utils", "helper", "helpers", "manager", "managers", "data2"}

PROSE_COLUMNS_MAX = 100
SENTENCE_WORDS_MAX = 25

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def files(*suffixes: str) -> list[Path]:
    """Our files with one of the suffixes, relative to the root, in order."""
    found = [
        path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in suffixes
    ]
    assert found, suffixes
    return sorted(path for path in found if not NOT_OURS.intersection(path.parts))


@cache
def text(path: Path) -> str:
    """What is in a file of ours."""
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(text(path), str(path))


NOT_CODE = re.compile(
    r"""
    //[^\n]*
    | /\*.*?\*/
    | \b b?r (?P<hashes>\#*) ".*?" (?P=hashes)
    | b?" (?:\\.|[^"\\])* "
    | b?' (?:\\(?:x..|u\{[^}]*\}|.)|[^'\\\n]) '
    """,
    re.VERBOSE | re.DOTALL,
)


@cache
def code(path: Path) -> str:
    """A Rust file with spaces in place of comments, strings and characters; its lines stay."""
    return NOT_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text(path))


def in_tests(path: Path) -> str:
    """The part of a Rust file that is tests: all of it under tests/, else what follows `#[cfg(test)]`."""
    return code(path) if "tests" in path.parts else code(path).partition("#[cfg(test)]")[2]


def body_end(source: str, start: int) -> int:
    """Where the brace that opens at or after `start` closes; `start` when a `;` comes first (a declaration)."""
    depth = nested = 0
    for match in re.compile(r"[{}()\[\];]").finditer(source, start):
        sign = match[0]
        nested += (sign in "([") - (sign in ")]")
        depth += (sign == "{") - (sign == "}")
        if sign == "}" and depth == 0:
            return match.end()
        if sign == ";" and depth == 0 and nested == 0:
            return start
    raise AssertionError("a brace never closes")


def definitions(node: ast.AST, is_public: bool = False) -> Iterator[Definition]:
    """Functions and classes below a node; with `is_public` those that a caller can name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            if is_public and child.name.startswith("_"):
                continue
            yield child
            if is_public and not isinstance(child, ast.ClassDef):
                continue
        yield from definitions(child, is_public)


def python_module(path: Path) -> str:
    """`python/fanwire/cli/demo.py` as `cli.demo`."""
    return ".".join(path.with_suffix("").parts[2:]).removesuffix(".__init__")


def python_imports(path: Path, modules: set[str]) -> Iterator[str]:
    """Modules of ours that a Python file imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] != "fanwire":
                continue
            within = name.removeprefix("fanwire").removeprefix(".")
            while within and within not in modules:
                within = within.rpartition(".")[0]
            yield within or "fanwire"


def rust_uses(path: Path) -> set[str]:
    """Modules of its crate that a Rust file uses outside its tests. `super::` stays inside a module's own room."""
    source = code(path).partition("#[cfg(test)]")[0]
    assert not re.search(r"\bcrate::\{|\bsuper::super::super::", source), (
        f"{path}: name each module in a line of its own"
    )
    return set(re.findall(r"(?<!\$)\bcrate::([a-z_]\w*)", source))


def misplaced(
    imports: dict[str, set[str]], layers: list[list[str]], exceptions: dict[tuple[str, str], str]
) -> list[str]:
    """What points right, what has no place, and exceptions that nothing needs."""
    rank = {module: index for index, layer in enumerate(layers) for module in layer}
    found = [f"{module} has no place in the table" for module in sorted(imports.keys() - rank.keys())]
    found += [f"{module} stands in the table and not in the tree" for module in sorted(rank.keys() - imports.keys())]
    needed = set()
    for module, others in imports.items():
        for other in others - {module}:
            if module in rank and rank.get(other, len(layers)) >= rank[module]:
                needed.add((module, other))
    found += [
        f"{module} imports {other}, which does not stand left of it"
        for module, other in sorted(needed - exceptions.keys())
    ]
    return found + [f"{module} → {other} needs no exception" for module, other in sorted(exceptions.keys() - needed)]


def test_python_imports_point_left() -> None:
    paths = [path for path in files(".py", ".pyi") if path.parts[:2] == ("python", "fanwire")]
    modules = {python_module(path) for path in paths} - {"__init__", "__main__"}
    imports = {
        python_module(path): set(python_imports(path, modules)) for path in paths if python_module(path) in modules
    }
    assert sum(map(len, imports.values())) > 20
    assert misplaced(imports, PYTHON_LAYERS, {}) == []


@pytest.mark.parametrize(
    ("source", "layers", "exceptions"),
    [
        ("rust/backbone/src", BACKBONE_LAYERS, {}),
        ("rust/core/src", CORE_LAYERS, CORE_EXCEPTIONS),
        ("rust/load/src", LOAD_LAYERS, {}),
        ("rust/node/src", NODE_LAYERS, {}),
        ("rust/upstream/src", UPSTREAM_LAYERS, {}),
    ],
    ids=["backbone", "core", "load", "node", "upstream"],
)
def test_rust_uses_point_left(source: str, layers: list[list[str]], exceptions: dict[tuple[str, str], str]) -> None:
    uses: dict[str, set[str]] = {}
    for path in files(".rs"):
        if path.is_relative_to(source) and path.name not in ("lib.rs", "main.rs") and "bin" not in path.parts:
            module = path.relative_to(source).with_suffix("").parts[0]
            uses.setdefault(module, set()).update(rust_uses(path))
    assert sum(map(len, uses.values())) > 20
    assert misplaced(uses, layers, exceptions) == []


@pytest.mark.parametrize("crate", ["backbone", "core", "load", "node", "python", "upstream"])
def test_no_modules_of_a_crate_use_each_other_in_a_circle(crate: str) -> None:
    found = circles(uses_of(ROOT / "rust" / crate / "src"))
    assert [sorted("::".join(one) for one in circle) for circle in found] == []


def test_crates_stay_out_of_each_other() -> None:
    core = text(Path("rust/core/Cargo.toml"))
    load = text(Path("rust/load/Cargo.toml"))
    assert not re.search(r"^(pyo3|tokio|async-std|smol)\b", core, re.MULTILINE)
    assert not re.search(r"^fanwire-core\b", load, re.MULTILINE)
    assert not re.search(r"^pyo3\b", text(Path("rust/upstream/Cargo.toml")), re.MULTILINE)
    node = text(Path("rust/node/Cargo.toml"))
    assert not re.search(r"^(pyo3|tokio|fanwire-(?!backbone\b|core\b|node\b)\w+)\b", node, re.MULTILINE)
    backbone = text(Path("rust/backbone/Cargo.toml"))
    assert not re.search(r"^(pyo3|fanwire-(?!core\b|backbone\b)\w+)\b", backbone, re.MULTILINE)
    sources = [path for path in files(".rs") if path.is_relative_to("rust/core/src")]
    assert [str(path) for path in sources if re.search(r"\benv::|\benv!\(", code(path))] == []


def test_the_binding_sees_only_the_core_s_front_rooms() -> None:
    seen = set()
    for path in files(".rs"):
        if path.is_relative_to("rust/python/src"):
            seen |= set(re.findall(r"\bfanwire_core::([a-z]\w*)", code(path)))
    assert "messages" in seen
    assert seen <= BINDING_SEES


def test_no_file_is_over_600_lines() -> None:
    lines = {str(path): text(path).count("\n") for path in files(".py", ".pyi", ".rs", ".js", ".html")}
    assert {path for path, count in lines.items() if count > FILE_LINES_MAX} <= FILE_EXCEPTIONS.keys()


def test_no_python_function_is_over_70_lines() -> None:
    found = {}
    for path in files(".py", ".pyi"):
        for node in definitions(tree(path)):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if not isinstance(node, ast.ClassDef) and count > FUNCTION_LINES_MAX:
                found[f"{path}:{node.lineno} {node.name}"] = count
    assert found == {}


def test_no_rust_function_is_over_70_lines() -> None:
    found = {}
    functions = 0
    for path in files(".rs"):
        source = code(path)
        for match in re.finditer(r"\bfn\s+(\w+)", source):
            functions += 1
            count = source.count("\n", match.start(), body_end(source, match.end())) + 1
            if count > FUNCTION_LINES_MAX:
                found[f"{path}:{source.count(chr(10), 0, match.start()) + 1} {match[1]}"] = count
    assert functions > 400
    assert found == {}


def test_no_test_sleeps() -> None:
    found = set()
    for path in files(".py"):
        if path.parts[0] == "tests" or path.name.startswith("test_"):
            calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
            names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
            if any(name in ("sleep", "sleep_until", "usleep") for name in names):
                found.add(str(path))
    for path in files(".rs"):
        if re.search(r"\b(sleep|sleep_ms|usleep|nanosleep)\s*\(", in_tests(path)):
            found.add(str(path))
    assert found == SLEEP_EXCEPTIONS.keys()


def test_no_name_says_a_word_that_says_nothing() -> None:
    names = {str(path): path.stem for path in files(".py", ".pyi", ".rs", ".js", ".html", ".toml")}
    names |= {f"{path.parent}/": path.parent.name for path in files(".py", ".rs")}
    for path in files(".py", ".pyi"):
        named = [node for node in definitions(tree(path)) if node.name not in OTHERS_NAMES]
        names |= {f"{path}:{node.lineno} {node.name}": node.name for node in named}
    for path in files(".rs"):
        for match in re.finditer(r"\b(?:fn|struct|enum|trait|type|mod|union)\s+(\w+)", code(path)):
            names[f"{path} {match[1]}"] = match[1]
    parts = {place: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_") for place, name in names.items()}
    assert [place for place, words in parts.items() if WORDS.intersection(words)] == []


def test_no_two_classes_of_python_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in files(".py", ".pyi"):
        if path.parts[0] == "python":
            for node in tree(path).body:
                if isinstance(node, ast.ClassDef) and "compat" not in path.parts:  # where names are other libraries'
                    places.setdefault(node.name, []).append(str(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_logs_name_clients_as_people_read_them() -> None:
    # `client %s` with the client, or with `name_of(number)`: c17@2, and never 9007199254740992.
    numbered = re.compile(r"client %d|client \{[a-z_.]*(?:\.id|connection)\}")
    paths = [path for path in files(".py") if path.parts[0] == "python"]
    assert [str(path) for path in paths if numbered.search(text(path))] == []


def test_unsafe_stays_in_its_rooms() -> None:
    outside, used = [], set()
    for path in files(".rs"):
        if not re.search(r"\bunsafe\b", code(path)):
            continue
        room = next((room for room in UNSAFE_ROOMS if str(path).startswith(room)), None)
        if room is None:
            outside.append(str(path))
        else:
            used.add(room)
    assert outside == []
    assert used == UNSAFE_ROOMS.keys(), "a room without `unsafe` is no room"


def test_every_path_in_the_architecture_exists() -> None:
    page = ROOT / "ARCHITECTURE.md"
    if not page.is_file():
        pytest.skip("there is no ARCHITECTURE.md yet")
    ours = [str(path) for path in files(".py", ".pyi", ".rs", ".js", ".toml", ".md", ".json", ".html")]
    ours += [path.name for path in ROOT.iterdir() if path.is_file()]
    ours += [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]
    folders = {f"{parent}/" for path in ours for parent in Path(path).parents}
    named = set(re.findall(r"(?<![\w./*{:-])(?:[\w.-]+/)*[\w-]+\.(?:rs|pyi?|toml|md|js|json|html)\b", page.read_text()))
    named |= set(re.findall(r"`((?:[\w.-]+/)+)`", page.read_text()))
    assert named, "it names no file"
    known = [*ours, *folders]
    assert [name for name in sorted(named) if not any(f"/{path}".endswith(f"/{name}") for path in known)] == []


def pages() -> list[Path]:
    """What people read: the pages of docs/, and those beside them."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a page that are neither code nor table nor heading; blank ones between them."""
    is_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        is_fence = line.lstrip().startswith("```")
        is_code ^= is_fence
        if is_fence or is_code or line.lstrip().startswith(("|", "#", "<")):
            yield number, ""
        else:
            yield number, line.rstrip()


def sentences(page: Path) -> Iterator[tuple[int, str]]:
    """The numbered sentences of a page, code and the targets of links left out; a colon ends one."""
    begin, words = 0, ""
    for number, line in [*prose(page), (0, "")]:
        is_item = re.match(r"\s*([-*+]|\d+\.)\s", line)
        if words and (not line or is_item):
            text = re.sub(r"`[^`]*`|\]\([^)]*\)", "it", words)
            yield from ((begin, sentence) for sentence in re.split(r"(?<=[.!?:])[)*\"]*\s+|\s·\s", text))
            words = ""
        begin, words = (number, line) if not words else (begin, f"{words} {line.strip()}")


def test_lines_of_prose_have_100_characters() -> None:
    long = []
    for page in pages():
        for number, line in prose(page):
            # What cannot be broken, a link or a piece of code, may be longer.
            pieces = re.sub(r"`[^`]*`", "it", re.sub(r"^\s*([-*+]|\d+\.)\s+", "", line)).split()
            if len(line) > PROSE_COLUMNS_MAX and len(pieces) > 1:
                long.append(f"{page.relative_to(ROOT)}:{number}")
    assert long == []


def test_sentences_of_the_docs_have_at_most_25_words() -> None:
    found = {}
    for page in pages():
        for number, sentence in sentences(page):
            count = len(re.findall(r"\w[\w'’/-]*", sentence))
            if count > SENTENCE_WORDS_MAX and page.name != "CHANGELOG.md":  # where one entry is one line of a list
                found[f"{page.relative_to(ROOT)}:{number} {sentence[:50]}"] = count
    assert found == {}


def test_every_decision_stands_in_the_list() -> None:
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [
        path.name for path in (ROOT / "docs" / "decisions").iterdir() if f"](decisions/{path.name})" not in listed
    ] == []


def test_every_public_python_name_has_a_docstring() -> None:
    bare = []
    for path in files(".py", ".pyi"):
        if path.parts[0] != "python":
            continue
        if not ast.get_docstring(tree(path)):
            bare.append(str(path))
        for node in definitions(tree(path), is_public=True):
            marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
            if not ast.get_docstring(node) and not marks & {"overload", "setter"}:
                bare.append(f"{path}:{node.lineno} {node.name}")
    assert bare == []


def test_every_setting_names_its_unit_or_default() -> None:
    source = text(Path("rust/core/src/settings.rs"))
    fields: dict[str, str] = {}
    for name in ("Settings", "HubSettings", "ChannelSettings"):
        start = source.index(f"pub struct {name} prefixed")
        body = source[start : source.index("\n}", start)]
        # A row has its default, range and worst cost in the table: the macro asks for them. What is besides says so.
        rows, _, besides = body.partition("besides {")
        for docs, field in re.findall(r"((?:^ +///[^\n]*\n)+)^ +(\w+)[^:\n]* in \"", rows, re.MULTILINE):
            fields[f"{name}.{field}"] = f"{docs} default"
        for docs, field in re.findall(r"((?:^ +///[^\n]*\n)*)^ +(\w+):", besides, re.MULTILINE):
            fields[f"{name}.{field}"] = docs
    assert len(fields) > 40
    says = re.compile(r"\bdefault\b|\bbytes\b|\bseconds\b|\bms\b|\d s\b", re.IGNORECASE)
    assert [field for field, docs in fields.items() if not says.search(docs)] == []
