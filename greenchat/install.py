"""How to install what is missing."""

import shlex
from pathlib import Path

__all__ = ["how_to_install"]

_TOP = Path(__file__).resolve().parent.parent


def how_to_install(extra: str = "", top: Path = _TOP) -> str:
    """Return the command that installs greenchat, all that it needs, and *extra*; *top* is the package's directory."""
    package = "greenchat"
    if (top / "pyproject.toml").exists():  # a checkout, which no package index has
        package = "." if top.samefile(".") else str(top)
    return f"pip install {shlex.quote(f'{package}[{extra}]' if extra else package)}"
