"""What is in the way of a whole file, and what the disk refuses."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from transfer.files import Fails, Unprivileged, contents, names, only_content, refusing
from transfer.publishing import WITH_AND_WITHOUT_LINKS, WITHOUT_LINKS, publish_in

from greenchat.errors import Code
from greenchat.transfer.publish import Published, disk_error

LINK = os.link
"""Also where a test has taken it away."""


# --- what is in the way -----------------------------------------------------------------------


@WITH_AND_WITHOUT_LINKS
def test_row_06_target_of_a_link_is_never_written(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").symlink_to(outside)
    assert publish_in(tmp_path, "a", b"new").backup == "a.~1~"
    assert outside.read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a.~1~").readlink() == outside


@WITH_AND_WITHOUT_LINKS
def test_row_06_target_of_a_dangling_link_is_not_made(tmp_path: Path, outside: Path) -> None:
    outside.unlink()
    (tmp_path / "a").symlink_to(outside)
    publish_in(tmp_path, "a", b"new")
    assert not outside.exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a.~1~").readlink() == outside


@WITH_AND_WITHOUT_LINKS
def test_row_06_link_to_the_same_content_is_not_taken_for_it(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").symlink_to(outside)
    assert not publish_in(tmp_path, "a", b"precious").unchanged
    assert not (tmp_path / "a").is_symlink()


@WITH_AND_WITHOUT_LINKS
def test_row_06_other_name_of_a_hard_link_is_not_written(tmp_path: Path, outside: Path) -> None:
    LINK(outside, tmp_path / "a")
    publish_in(tmp_path, "a", b"new")
    assert outside.read_bytes() == b"precious"
    assert (tmp_path / "a.~1~").read_bytes() == b"precious"


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("inside", [{}, {"inside": b"kept"}], ids=["empty", "not empty"])
def test_row_06_directory_stays(tmp_path: Path, fails: Fails, inside: dict[str, bytes]) -> None:
    (tmp_path / "a").mkdir()
    for name, content in inside.items():
        (tmp_path / "a" / name).write_bytes(content)
    with fails(Code.IN_THE_WAY):
        publish_in(tmp_path, "a", b"new")
    assert names(tmp_path) == ["a"]
    assert contents(tmp_path / "a") == inside


@WITH_AND_WITHOUT_LINKS
@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("content", [b"", b"new"], ids=["empty", "not empty"])
def test_row_06_fifo_is_moved_aside_without_blocking(tmp_path: Path, content: bytes) -> None:
    os.mkfifo(tmp_path / "a")
    assert publish_in(tmp_path, "a", content).backup == "a.~1~"
    assert (tmp_path / "a").read_bytes() == content
    assert (tmp_path / "a.~1~").is_fifo()


def test_row_06_fifo_in_the_way_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a")
    opened, real = [], os.open

    def spy(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", spy)
    publish_in(tmp_path, "a", b"new")
    assert "a" not in opened


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("kind", ["link", "FIFO", "longer file"])
def test_row_06_what_appears_after_a_look_is_not_taken_for_what_was_there(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    there = tmp_path / "a"
    there.write_bytes(b"precious")
    real = os.stat

    def exchange() -> None:
        match kind:
            case "link":
                there.symlink_to(outside)
            case "FIFO":
                os.mkfifo(there)
            case "longer file":
                there.write_bytes(b"precious, and more")

    def look(path: Any, **options: Any) -> os.stat_result:
        status = real(path, **options)
        if path == "a":
            monkeypatch.undo()
            there.rename(tmp_path / "before")
            exchange()
        return status

    monkeypatch.setattr(os, "stat", look)
    assert publish_in(tmp_path, "a", b"precious") == Published(backup="a.~1~", unchanged=False)
    assert there.is_file()
    assert not there.is_symlink()
    assert there.read_bytes() == b"precious"


def test_row_06_read_only_file_is_replaced_and_kept(tmp_path: Path, unprivileged: Unprivileged) -> None:
    tmp_path.chmod(0o777)
    with contextlib.chdir(tmp_path), unprivileged():
        Path("a").write_bytes(b"old")
        Path("a").chmod(0o400)
        assert publish_in(Path(), "a", b"new").backup == "a.~1~"
    assert contents(tmp_path) == {"a": b"new", "a.~1~": b"old"}


# --- what the disk refuses --------------------------------------------------------------------


@pytest.mark.parametrize("existing", [{}, {"a": b"old"}], ids=["new", "replaced"])
@pytest.mark.parametrize("call", ["fsync", "fchmod", "link", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_row_10_refusal_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: dict[str, bytes], call: str, number: int
) -> None:
    for name, content in existing.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(os, call, refusing(number))
    if call == "rename" and not existing:  # nobody asks for it
        publish_in(tmp_path, "a", b"new")
        return
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        publish_in(tmp_path, "a", b"new")
    assert caught.value.errno == number
    assert existing.items() <= contents(tmp_path).items()
    assert set(contents(tmp_path).values()) == set(existing.values())


@WITHOUT_LINKS
@pytest.mark.parametrize("refused", [1, 2], ids=["backup", "new name"])
def test_row_10_refused_rename_without_links_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    real, calls = os.rename, 0

    def rename(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == refused:
            raise OSError(errno.EIO, "")
        real(*arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="5"):
        publish_in(tmp_path, "a", b"new")
    assert only_content(tmp_path) == b"old"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE], ids=errno.errorcode.get)
def test_row_10_without_descriptors_nothing_is_taken_for_another_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "a").write_bytes(b"same")
    real = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "a":
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        publish_in(tmp_path, "a", b"same")
    assert contents(tmp_path) == {"a": b"same"}


def test_row_10_user_is_told_why_without_a_path() -> None:
    error = disk_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "/home/somebody"))
    assert error.code is Code.DISK
    assert str(error) == "the file could not be written here: no such file or directory"


def test_row_10_error_without_a_number_is_told_too() -> None:
    assert disk_error(OSError("odd")).code is Code.DISK
