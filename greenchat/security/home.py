"""Where a user's keys are, and what was learned about others."""

import contextlib
from pathlib import Path

from greenchat.errors import Code, SecurityError

with contextlib.suppress(ImportError):
    import platformdirs

__all__ = ["home"]


def home() -> Path:
    """The directory that this platform has for such things. Raises `SecurityError` without the extra that knows it."""
    try:
        return platformdirs.user_config_path("greenchat", appauthor=False)
    except NameError:
        raise SecurityError(Code.BAD_KEY, "to use keys and certificates, install greenchat[secure]") from None
