"""Those met before, each with the fingerprint that it had then, as ssh keeps known hosts: a file of lines."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from greenchat.errors import Code, SecurityError
from greenchat.security.files import open_regular, read_regular, words
from greenchat.threads import on_files

__all__ = ["BY_AUTHORITIES", "Known"]

BY_AUTHORITIES: Final = "authorities"
"""Kept instead of a fingerprint for who was vouched for by this system's authorities, and has to be again."""

_FORGOTTEN: Final = "-"
"""Written instead of a fingerprint when somebody is to be a stranger again."""


class Known:
    """The file *path*: on each line a fingerprint, a space, and whose it is. The last line about somebody counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, who: str) -> str | None:
        """The fingerprint of *who*. Raises `SecurityError` if the file can't be read."""
        return self.all().get(who)

    def all(self) -> dict[str, str]:
        """Everybody's fingerprint. Raises `SecurityError` if the file can't be read."""
        lines = on_files(self.path, lambda: dict(self._lines()))
        return {who: mark for who, mark in lines.items() if mark != _FORGOTTEN}

    def add(self, who: str, mark: str) -> None:
        """Remember *who*, a name without line ends, by the fingerprint *mark*. Raises `SecurityError`."""
        try:
            on_files(self.path, self._add, f"{mark} {who}\n".encode())
        except OSError as error:
            raise self._error(error) from None

    def _add(self, line: bytes) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            _append(fd, line)
        finally:
            os.close(fd)

    def forget(self, who: str) -> None:
        """Let *who* be a stranger again. Raises `SecurityError`."""
        self.add(who, _FORGOTTEN)

    def _lines(self) -> Iterator[tuple[str, str]]:
        """Whose each line is, and the fingerprint."""
        try:
            lines = read_regular(self.path).decode("utf-8", "replace").split("\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error) from None
        for line in lines:
            mark, _, who = line.partition(" ")
            if who:
                yield who, mark

    def _error(self, error: OSError) -> SecurityError:
        return SecurityError(Code.BAD_KEY, f"cannot use {self.path}: {words(error)}")


def _append(fd: int, line: bytes) -> None:
    """In one piece, because others may add to it, too; and on a line of its own, whatever an editor has left."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        line = b"\n" + line
    if os.write(fd, line) < len(line):
        os.ftruncate(fd, size)  # a part of a name could be another's
        raise OSError(errno.ENOSPC, "")
