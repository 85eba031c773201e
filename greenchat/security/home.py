"""Where a user's keys are, and what was learned about others."""

from pathlib import Path
from typing import Final

from greenchat.errors import Code, SecurityError

__all__ = ["IDENTITY", "KNOWN_PEERS", "KNOWN_SERVERS", "NAMES", "SERVER", "home"]

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
    """The directory that this platform has for such things. Raises `SecurityError` without the extra that knows it."""
    try:
        import platformdirs
    except ImportError:
        raise SecurityError(Code.BAD_KEY, "to use keys and certificates, install greenchat[secure]") from None
    return platformdirs.user_config_path("greenchat", appauthor=False)
