"""``python -m fanwire`` is ``fanwire``, whose packages may be missing: the library needs none of them."""

import sys

PACKAGES = {"cyclopts", "rich"}


def main() -> None:
    """Run the command line; without its packages, say which extra brings them (exit status 1)."""
    try:
        from fanwire.cli import main as run
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        print(f"fanwire: the command line needs {error.name}: pip install 'fanwire[cli]'", file=sys.stderr)
        raise SystemExit(1) from None
    run()


if __name__ == "__main__":
    main()
