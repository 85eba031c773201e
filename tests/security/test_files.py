import os
from pathlib import Path

import pytest

from greenchat.errors import SecurityError
from greenchat.security.files import open_regular, read_regular
from greenchat.security.keys import key_file
from greenchat.security.known import Known
from greenchat.server.certificate import Certificate


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo", 0o600)
    return tmp_path / "fifo"


@pytest.mark.attack(42)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_a_fifo_is_refused_at_once(fifo: Path, flags: int) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(fifo, flags)


@pytest.mark.attack(42)
@pytest.mark.parametrize(
    "use",
    [
        lambda path: Known(path).find("ann"),
        lambda path: Known(path).add("ann", "SHA256:x"),
        key_file,
        lambda path: Certificate(path, path),
    ],
    ids=["known", "known, to add", "key", "certificate"],
)
def test_nothing_waits_for_a_fifo(fifo: Path, use: object) -> None:
    with pytest.raises(SecurityError, match="not a regular file"):
        use(fifo)  # type: ignore[operator]  # as parametrized


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert read_regular(tmp_path / "a") == b"content"
