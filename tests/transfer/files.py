"""Files, for the tests of transfers: what is being received, and what is done to it meanwhile."""

import contextlib
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from greenchat.transfer.destination import Destination
from greenchat.transfer.partial import Partial

# What the fixtures are.
Child: TypeAlias = Callable[..., str]
Fails: TypeAlias = Callable[..., AbstractContextManager[None]]
Unprivileged: TypeAlias = Callable[[], AbstractContextManager[None]]

LONGEST = [pytest.param("x" * 255, id="ASCII"), pytest.param("\u00e9" * 127 + "x", id="not ASCII")]
"""Names as long as that of a file may be."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def environment() -> dict[str, str]:
    """For a child that imports what this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))}


# --- what is being received -------------------------------------------------------------------


@contextlib.contextmanager
def begun(
    destination: Destination, name: str = "a", *, owner: str = "bob", algorithm: str = "sha256"
) -> Iterator[Partial]:
    """What there is of *owner*'s file, begun, for as long as the block runs."""
    with contextlib.closing(destination.partial(owner, name)) as partial:
        partial.begin(algorithm)
        yield partial


@contextlib.contextmanager
def partial_in(directory: Path, name: str = "a", *, owner: str = "bob", algorithm: str = "sha256") -> Iterator[Partial]:
    """The same, in a directory that nobody else has open."""
    with (
        contextlib.closing(Destination(directory)) as destination,
        begun(destination, name, owner=owner, algorithm=algorithm) as partial,
    ):
        yield partial


def fill(partial: Partial, content: bytes) -> None:
    partial.fill(lambda write: write(memoryview(content)))


def interrupt(directory: Path, content: bytes, name: str = "a", owner: str = "bob") -> str:
    """Leave an unfinished file; its hidden name."""
    before = set(names(directory))
    with partial_in(directory, name, owner=owner) as partial:
        fill(partial, content)
    (left,) = set(names(directory)) - before
    return left


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def only_name(directory: Path) -> str:
    (name,) = names(directory)
    return name


def only_content(directory: Path) -> bytes:
    (content,) = contents(directory).values()
    return content


# --- what is done to files, and to the system -------------------------------------------------


def fill_long_ago(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    return path


def fill_descriptor(fd: int, content: bytes) -> None:
    assert os.write(fd, content) == len(content)


def shrink(path: Path) -> None:
    os.truncate(path, 1)


def grow(path: Path) -> None:
    with path.open("ab") as end:
        end.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as start:
        start.write(b"other")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"another")
    path.with_name("new").rename(path)


@contextlib.contextmanager
def locked_by_another(path: Path) -> Iterator[None]:
    """Another program has a lock on *path* for as long as the block runs."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def refusing(number: int) -> Callable[..., Any]:
    """Stands in for a system call that fails with this error."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse
