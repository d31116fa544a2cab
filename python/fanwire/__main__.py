"""``python -m fanwire`` is ``fanwire``, whose packages may be missing: the library needs none of them."""

import sys

from fanwire.errors import EngineMissing
from fanwire.stand_in import require_engine

PACKAGES = {"cyclopts", "rich"}


def main() -> None:
    """Run the command line; without the engine, or without its packages, say what is missing (exit status 1)."""
    try:
        require_engine("the command line")
        from fanwire.cli import main as run
    except EngineMissing as error:
        print(f"fanwire: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        print(f"fanwire: the command line needs {error.name}: pip install 'fanwire[cli]'", file=sys.stderr)
        raise SystemExit(1) from None
    run()


if __name__ == "__main__":
    main()
