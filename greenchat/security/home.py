"""Where a user's keys are, and what was learned about others."""

import os
import pwd
import sys
from pathlib import Path
from typing import Final

from greenchat.errors import Code, SecurityError

__all__ = ["IDENTITY", "KNOWN_PEERS", "KNOWN_SERVERS", "NAMES", "SERVER", "home", "user_home"]

IDENTITY: Final = "identity.pem"
"""The user's key and certificate."""

KNOWN_SERVERS: Final = "known_servers"
"""Which certificate each server had."""

KNOWN_PEERS: Final = "known_peers"
"""Which certificate each user of a server had."""

NAMES: Final = "names.db"
"""Who owns which name on this machine's servers."""

SERVER: Final = "server.pem"
"""The key and certificate of this machine's servers."""


def home() -> Path:
    """Return the directory for greenchat's own files, which may not be there yet. Raises `SecurityError`.

    A path that is not absolute counts as none (XDG Base Directory Specification 0.8): one such as ``~/.config``, which
    no shell has expanded, would put keys into the current directory, where others may fetch them.
    """
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if configured.is_absolute():
        return configured / "greenchat"
    own = user_home()
    if own is None:
        raise SecurityError(
            Code.BAD_KEY, "there is no home directory for keys: set HOME, or XDG_CONFIG_HOME, to an absolute path"
        )
    return own / ("Library/Application Support" if sys.platform == "darwin" else ".config") / "greenchat"


def user_home() -> Path | None:
    """Return the user's home directory, by HOME or by the system's list of users; None if there is none."""
    places = map(Path, (os.environ.get("HOME", ""), _listed_home()))
    return next((place for place in places if place.is_absolute() and _is_directory(place)), None)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # it is in a directory that belongs to somebody else
        return False


def _listed_home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # as in a container that was started as any number
        return ""
