import os
from pathlib import Path

import pytest

from greenchat.errors import Code, SecurityError
from greenchat.security.known import Known


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path / "home" / "known_servers")


def test_nobody_is_known_at_first(known: Known) -> None:
    assert known.find("here:1") is None
    assert not known.path.parent.exists()


def test_who_was_added_is_known(known: Known) -> None:
    known.add("here:1", "SHA256:one")
    known.add("name with spaces", "SHA256:two")
    assert known.find("here:1") == "SHA256:one"
    assert known.find("name with spaces") == "SHA256:two"
    assert known.find("name") is None
    assert known.find("here:11") is None


def test_last_line_counts(known: Known) -> None:
    known.add("here:1", "SHA256:one")
    known.add("here:1", "SHA256:two")
    assert known.find("here:1") == "SHA256:two"


def test_who_was_forgotten_is_a_stranger_and_may_be_added_again(known: Known) -> None:
    known.add("here:1", "SHA256:one")
    known.add("here:2", "SHA256:two")
    known.forget("here:1")
    assert known.find("here:1") is None
    assert known.all() == {"here:2": "SHA256:two"}
    known.add("here:1", "SHA256:three")
    assert known.all() == {"here:1": "SHA256:three", "here:2": "SHA256:two"}


def test_line_without_its_end_is_no_trouble(known: Known) -> None:
    """As an editor may leave it."""
    known.add("here:1", "SHA256:one")
    known.path.write_text("SHA256:one here:1")
    known.add("here:2", "SHA256:two")
    assert known.all() == {"here:1": "SHA256:one", "here:2": "SHA256:two"}


def test_disk_that_takes_half_a_line_is_an_error(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    known.add("here:1", "SHA256:one")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(SecurityError, match="no space left"):
        known.add("here:2", "SHA256:two")
    assert known.path.read_bytes() == b"SHA256:one here:1\n"


def test_lines_that_make_no_sense_are_left_alone(known: Known) -> None:
    known.path.parent.mkdir()
    known.path.write_bytes(b"\xff\xfe\n\nword\n here:1\nSHA256:one here:1\n")
    assert known.find("here:1") == "SHA256:one"
    assert known.find("") is None


def test_file_is_for_its_user_alone(known: Known) -> None:
    known.add("here:1", "SHA256:one")
    assert known.path.stat().st_mode & 0o777 == 0o600
    assert known.path.parent.stat().st_mode & 0o777 == 0o700


def test_file_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    known = Known(tmp_path)
    with pytest.raises(SecurityError, match=f"cannot use {tmp_path}: is a directory") as refused:
        known.find("here:1")
    assert refused.value.code == Code.BAD_KEY
    with pytest.raises(SecurityError, match=f"cannot use {tmp_path}: is a directory"):
        known.add("here:1", "SHA256:one")
