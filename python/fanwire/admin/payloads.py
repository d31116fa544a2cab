"""What was published, as JSON has it: bytes are an object that is ``base64`` alone."""

from base64 import b64decode, b64encode
from binascii import Error
from typing import Any

from fanwire.admin.problems import Problem


def told_of(data: Any) -> Any:
    """What is told of what was published."""
    return {"base64": b64encode(data).decode()} if isinstance(data, bytes) else data


def data_of(given: Any) -> Any:
    """What is published for what was given. Raises Problem."""
    if isinstance(given, dict) and given.keys() == {"base64"} and isinstance(given["base64"], str):
        try:
            return b64decode(given["base64"], validate=True)
        except (Error, ValueError) as error:
            raise Problem("invalid_value", f"base64: {error}") from error
    return given
