"""``fanwire script``: what other languages need to publish into a backbone."""

from fanwire._engine import PUBLISH_SCRIPT


def script() -> None:
    """Print the script that a backbone of Redis or Valkey runs for each publication.

    A program in any language publishes with it: docs/records.md says how.
    """
    print(PUBLISH_SCRIPT, end="")
