"""Who may ask: the token, the page that a request comes from, the name that it was sent to. Not here: what is asked."""

from collections.abc import Collection, Mapping
from hmac import compare_digest
from ipaddress import ip_address

from anyio import sleep

from fanwire.admin.config import AdminConfig
from fanwire.admin.problems import Problem

WRONG_S = 0.5
"""So long a wrong token waits for its answer."""
WRONG_MAX = 8
"""So many wait at once; what comes then is told so at once."""
SLOWED = "wrong_token"
"""The code of the problem that is said late."""
SCHEME = "bearer "
CHALLENGE = (("WWW-Authenticate", 'Bearer realm="fanwire admin"'),)
BODY_TYPE = "application/json"


class AdminDoor:
    """The one of a side. What it holds against a request it raises as a Problem."""

    def __init__(self, config: AdminConfig) -> None:
        token = config.token
        self._token = None if token is None else token.reveal().encode()
        self.origins: Collection[str] = ()
        """Of pages that may ask."""
        self.waiting: int = 0
        """How many wrong tokens wait for their answer: each from ``check`` to the end of ``slow_down``."""

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises Problem for who may not ask; ``SLOWED`` is to be said after ``slow_down``."""
        origin = headers.get("origin")
        is_own_page = origin is None or origin.lower() in self.origins
        if not is_own_page or headers.get("sec-fetch-site", "none") == "cross-site":
            raise Problem("foreign_origin", f"a page of {(origin or 'another site')[:80]} asks")
        self._check_token(headers.get("authorization", ""))
        if self._token is None and not is_own_name(headers.get("host", "")):
            host = headers.get("host", "")[:80]
            raise Problem("foreign_host", f"{host!r} is no address, and without a token a name may be anybody's")
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != BODY_TYPE:
            raise Problem("not_json", f"what acts has Content-Type: {BODY_TYPE}")

    def _check_token(self, given: str) -> None:
        if self._token is None:
            return
        if not given[: len(SCHEME)].lower() == SCHEME:
            raise Problem("no_token", "Authorization: Bearer TOKEN is missing", CHALLENGE)
        if compare_digest(given[len(SCHEME) :].strip().encode("utf-8", "replace"), self._token):
            return
        if self.waiting >= WRONG_MAX:
            raise Problem("slowed_down", "too many wrong tokens wait to be answered", (("Retry-After", "1"),))
        self.waiting += 1
        raise Problem(SLOWED, "that is not the token", CHALLENGE)

    async def slow_down(self) -> None:
        """Wait as long as a wrong token does."""
        try:
            await sleep(WRONG_S)
        finally:
            self.waiting -= 1


def is_own_name(host: str) -> bool:
    """Whether a request was sent to an address, and not to a name that somebody else may have pointed here."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name.lower() in ("localhost", ""):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
