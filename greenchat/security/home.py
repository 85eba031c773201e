"""Where a user's keys are, and what was learned about others."""

from pathlib import Path

from greenchat.errors import Code, SecurityError

__all__ = ["home"]


def home() -> Path:
    """The directory that this platform has for such things. Raises `SecurityError` without the extra that knows it."""
    try:
        import platformdirs
    except ImportError:
        raise SecurityError(Code.BAD_KEY, "to use keys and certificates, install greenchat[secure]") from None
    return platformdirs.user_config_path("greenchat", appauthor=False)
