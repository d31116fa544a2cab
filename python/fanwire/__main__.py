"""``python -m fanwire`` is ``fanwire``, whose packages may be missing: the library needs none of them."""

import sys

from fanwire.errors import EngineMissing
from fanwire.stand_in import require_engine
from fanwire.workers.zygote import zygote_of_process

PACKAGES = {"cyclopts", "rich"}


def main() -> None:
    """Run the command line; without the engine, or without its packages, say what is missing (exit status 1)."""
    try:
        require_engine("the command line")
        if (zygote := zygote_of_process()) is not None:  # it has been told what the command line says
            from fanwire.cli.serving import serve_again

            serve_again(zygote.program)
            return
        from fanwire.cli.app import main as run
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
