"""Where the load client is: a program of its own, in the package fanwire-load."""

import os
import shutil
import sysconfig

NAME = "fanwire-load"


class LoadClientMissing(Exception):
    """The program cannot be found."""

    def __init__(self) -> None:
        super().__init__(f"the program {NAME} is not there: install the package {NAME} (make wheel builds it)")


def load_client() -> str:
    """The program's path: beside the interpreter's scripts, or on PATH. Raises LoadClientMissing."""
    folders = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    found = shutil.which(NAME, path=folders)
    if found is None:
        raise LoadClientMissing
    return found
