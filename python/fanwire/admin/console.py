"""The web console's files, as the admin side serves them: the page at ``/console``, what it loads beneath it.

They are the same for everybody and show nothing of the hub: who has no token gets them too, and then asks the API.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath

FOLDER = Path(__file__).parent.parent / "console"
PAGE = "/console"
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Scripts and styles are those of this folder, no other host is asked, and no text becomes markup."""
HEADERS: tuple[tuple[str, str], ...] = (
    ("Cache-Control", "no-cache"),
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
MOVED: Mapping[str, str] = {"/": "console"}
"""Where people look for it, and where it is from there; no route ends with a slash."""


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """One of them, as it is answered."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...]


@cache
def console_files() -> Mapping[str, ConsoleFile]:
    """All of them, by path."""
    found = {}
    for file in sorted(FOLDER.rglob("*")):
        if file.suffix in TYPES:
            body = file.read_bytes()
            name = PurePosixPath(PAGE, *file.relative_to(FOLDER).parts)
            path = PAGE if name.name == "index.html" else str(name)
            tag = ("ETag", f'"{sha256(body).hexdigest()[:24]}"')
            found[path] = ConsoleFile(200, TYPES[file.suffix], body, (*HEADERS, tag))
    for path, to in MOVED.items():
        found[path] = ConsoleFile(308, TYPES[".html"], b"", (*HEADERS, ("Location", to)))
    return found


def console_answer(path: str, headers: Mapping[str, str]) -> ConsoleFile | None:
    """The answer to a GET of `path`, whose header names are in lower case; None of what is none of the files."""
    answer = console_files().get(path)
    if answer is None or answer.status != 200:
        return answer
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    if dict(answer.headers)["ETag"] in known:
        return ConsoleFile(304, answer.content_type, b"", answer.headers)
    return answer
