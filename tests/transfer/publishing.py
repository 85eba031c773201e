"""Publishing, for its tests: on a file system with hard links, and on one without."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from greenchat.transfer.digest import Digest
from greenchat.transfer.publish import Published, Whole, publish

TEMPORARY = ".temporary"

WITH_AND_WITHOUT_LINKS = pytest.mark.usefixtures("links")
WITHOUT_LINKS = pytest.mark.usefixtures("no_links")


def publish_in(
    directory: Path,
    name: str,
    content: bytes,
    *,
    temporary: str = TEMPORARY,
    wanted: Callable[[], bool] = lambda: True,
    algorithm: str = "sha256",
) -> Published:
    """Write *content* under a temporary name, and publish that; a temporary name that is left goes."""
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=at)
    try:
        assert os.write(fd, content) == len(content)
        digest = Digest(algorithm)
        digest.update(content)
        return publish(at, Whole(temporary, name, fd, digest), wanted)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=at)
        os.close(fd)
        os.close(at)
