"""What goes wrong with a request of the admin side, as RFC 9457 has it."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from fanwire.errors import (
    ClientGone,
    EncodeError,
    HubStopped,
    InvalidChannel,
    LimitReached,
    NotPublished,
    PayloadTooBig,
    WorkersApart,
)
from fanwire.wording import sendable

CONTENT_TYPE = "application/problem+json"
DETAIL_BYTES_MAX = 1_024
CODES: dict[str, int] = {
    "bad_request": 400,
    "bad_json": 400,
    "bad_cursor": 400,
    "invalid_channel": 400,
    "invalid_value": 400,
    "no_token": 401,
    "wrong_token": 401,
    "foreign_origin": 403,
    "foreign_host": 403,
    "not_found": 404,
    "no_such_client": 404,
    "no_such_channel": 404,
    "no_presence": 404,
    "method_not_allowed": 405,
    "key_in_use": 409,
    "too_big": 413,
    "not_json": 415,
    "key_reused": 422,
    "slowed_down": 429,
    "busy": 429,
    "internal": 500,
    "stopped": 503,
    "limit_reached": 503,
    "apart": 503,
}
"""What each is called for good, and its status."""


class ProblemBody(msgspec.Struct, rename={"kind": "type"}):
    """The body of an error's answer."""

    kind: str
    title: str
    status: int
    code: str
    detail: str


class Problem(Exception):
    """One of them. `headers` go with the answer."""

    def __init__(self, code: str, detail: object, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.code: str = code
        self.status: int = CODES[code]
        self.detail: str = sendable(detail, DETAIL_BYTES_MAX)
        self.headers: Sequence[tuple[str, str]] = headers

    @property
    def body(self) -> bytes:
        """As it is sent."""
        title = HTTPStatus(self.status).phrase
        return msgspec.json.encode(ProblemBody("about:blank", title, self.status, self.code, self.detail))


KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (InvalidChannel, "invalid_channel"),
    (PayloadTooBig, "too_big"),
    (ClientGone, "no_such_client"),
    (LimitReached, "limit_reached"),
    (WorkersApart, "apart"),
    (HubStopped, "stopped"),
    (NotPublished, "apart"),
    (EncodeError, "invalid_value"),
    (LookupError, "invalid_value"),
    (TypeError, "invalid_value"),
    (ValueError, "invalid_value"),
)
"""What the hub's calls raise, and what is said of it."""


def problem_of(error: BaseException) -> Problem | None:
    """What a call's error is to who asked; None where it is nobody's but this program's."""
    if isinstance(error, Problem):
        return error
    return next((Problem(code, error) for kind, code in KINDS if isinstance(error, kind)), None)
