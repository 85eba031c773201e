"""A whole file gets its name, and what had that name is kept."""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.files import LONGEST, Child, Fails, Unprivileged, contents, locked_by_another, names, refusing
from transfer.publishing import TEMPORARY, WITH_AND_WITHOUT_LINKS, WITHOUT_LINKS, publish_in

from greenchat.errors import Code, TransferError
from greenchat.transfer import publish as publish_module
from greenchat.transfer.digest import UNCHECKED, Digest
from greenchat.transfer.publish import Published, Whole, publish

# --- a new name -------------------------------------------------------------------------------


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("content", [b"", b"new"], ids=["empty", "not empty"])
def test_file_gets_its_name(tmp_path: Path, content: bytes) -> None:
    assert publish_in(tmp_path, "a", content) == Published(backup=None, unchanged=False)
    assert contents(tmp_path) == {"a": content}


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("name", LONGEST)
def test_row_04_longest_name_is_published(tmp_path: Path, name: str, fails: Fails) -> None:
    publish_in(tmp_path, name, b"old")
    assert contents(tmp_path) == {name: b"old"}
    with fails(Code.IN_THE_WAY):  # its backup would have a name too long
        publish_in(tmp_path, name, b"new")
    assert contents(tmp_path) == {name: b"old"}


@pytest.mark.parametrize("existing", [None, b"old"], ids=["new", "replaced"])
def test_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bytes | None
) -> None:
    steps: list[str] = []
    if existing:
        (tmp_path / "a").write_bytes(existing)

    def noting(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            kind = "directory" if step == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else ""
            result = call(*arguments, **options)
            steps.append(step + kind)
            return result

        return noted

    for step in ("fsync", "link", "rename"):
        monkeypatch.setattr(os, step, noting(step, getattr(os, step)))
    publish_in(tmp_path, "a", b"new")
    assert steps == ["fsync", *(["link", "rename"] if existing else ["link"]), "fsyncdirectory"]


# --- its mode and times -----------------------------------------------------------------------


PUBLISH_WITH_UMASK = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from greenchat.transfer.digest import Digest
from greenchat.transfer.publish import Whole, publish
directory = os.open(sys.argv[1], os.O_RDONLY)
fd = os.open(".temporary", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
publish(directory, Whole(".temporary", "a", fd, Digest("sha256")), lambda: True)
print(oct(os.umask(0)))
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("000", 0o666)])
def test_row_09_published_file_has_the_mode_of_a_new_one(tmp_path: Path, child: Child, umask: str, mode: int) -> None:
    umask_after = child(PUBLISH_WITH_UMASK, tmp_path, umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert int(umask_after, 8) == int(umask, 8)


@WITH_AND_WITHOUT_LINKS
def test_row_09_mode_and_time_of_what_is_replaced_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o6777)
    os.utime(tmp_path / "a", (1, 1))
    publish_in(tmp_path, "a", b"new")
    status = (tmp_path / "a").stat()
    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
    assert abs(status.st_mtime - time.time()) < 60


def test_file_system_without_modes_gets_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fchmod", refusing(errno.EPERM))
    publish_in(tmp_path, "a", b"new")
    assert contents(tmp_path) == {"a": b"new"}


# --- what is there already --------------------------------------------------------------------


@WITH_AND_WITHOUT_LINKS
def test_row_08_existing_file_is_kept_as_a_backup(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o440)
    assert publish_in(tmp_path, "a", b"new") == Published(backup="a.~1~", unchanged=False)
    assert contents(tmp_path) == {"a": b"new", "a.~1~": b"old"}
    assert stat.S_IMODE((tmp_path / "a.~1~").stat().st_mode) == 0o440


def test_row_08_other_content_of_the_same_length_is_kept_also_if_nothing_was_digested(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    assert publish_in(tmp_path, "a", b"new", algorithm=UNCHECKED) == Published(backup="a.~1~", unchanged=False)


@WITH_AND_WITHOUT_LINKS
def test_row_08_backups_are_numbered(tmp_path: Path) -> None:
    published = [publish_in(tmp_path, "a", content) for content in (b"1", b"2", b"3", b"4")]
    assert [one.backup for one in published] == [None, "a.~1~", "a.~2~", "a.~3~"]
    assert contents(tmp_path) == {"a": b"4", "a.~1~": b"1", "a.~2~": b"2", "a.~3~": b"3"}


@WITH_AND_WITHOUT_LINKS
def test_row_08_backup_takes_the_first_free_number_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a.~1~").write_bytes(b"mine")
    (tmp_path / "a.~2~").symlink_to("nowhere")
    (tmp_path / "a.~4~").mkdir()
    assert publish_in(tmp_path, "a", b"new").backup == "a.~3~"
    assert (tmp_path / "a.~1~").read_bytes() == b"mine"
    assert (tmp_path / "a.~2~").is_symlink()
    assert (tmp_path / "a.~3~").read_bytes() == b"old"
    assert (tmp_path / "a.~4~").is_dir()


@WITH_AND_WITHOUT_LINKS
@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "FIFO"])
def test_row_08_number_taken_by_something_that_is_no_file_is_not_used(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    make(tmp_path / "a.~1~")
    assert publish_in(tmp_path, "a", b"new").backup == "a.~2~"
    assert not (tmp_path / "a.~1~").is_file()
    assert (tmp_path / "a.~2~").read_bytes() == b"old"


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("algorithm", ["sha256", "blake3", UNCHECKED])
def test_row_08_same_content_is_left_alone(tmp_path: Path, algorithm: str) -> None:
    if algorithm == "blake3":
        pytest.importorskip("blake3")
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "a").chmod(0o440)
    before = (tmp_path / "a").stat()
    assert publish_in(tmp_path, "a", b"same", algorithm=algorithm) == Published(backup=None, unchanged=True)
    after = (tmp_path / "a").stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert names(tmp_path) == ["a"]


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("old", [b"sam", b"same!", b"Same"], ids=["shorter", "longer", "as long"])
def test_row_08_nearly_the_same_content_is_another(tmp_path: Path, old: bytes) -> None:
    (tmp_path / "a").write_bytes(old)
    publish_in(tmp_path, "a", b"same")
    assert contents(tmp_path) == {"a": b"same", "a.~1~": old}


def test_row_08_unreadable_file_is_kept_rather_than_compared(tmp_path: Path, unprivileged: Unprivileged) -> None:
    tmp_path.chmod(0o777)
    with contextlib.chdir(tmp_path), unprivileged():
        Path("a").write_bytes(b"same")
        Path("a").chmod(0)
        assert publish_in(Path(), "a", b"same").backup == "a.~1~"
    assert contents(tmp_path) == {"a": b"same", "a.~1~": b"same"}


def test_row_08_old_file_has_a_name_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    seen: list[set[bytes]] = []

    def spied(call: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            there = [tmp_path / name for name in ("a", "a.~1~")]
            seen.append({name.read_bytes() for name in there if name.exists()})
            return result

        return spy

    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    publish_in(tmp_path, "a", b"new")
    assert seen == [{b"old"}, {b"old", b"new"}]


@WITH_AND_WITHOUT_LINKS
def test_row_08_too_many_backups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr(publish_module, "MAX_BACKUPS", 2)
    for content in (b"1", b"2", b"3"):
        publish_in(tmp_path, "a", content)
    with fails(Code.IN_THE_WAY):
        publish_in(tmp_path, "a", b"4")
    assert contents(tmp_path) == {"a": b"3", "a.~1~": b"1", "a.~2~": b"2"}


@pytest.mark.parametrize("linking", [True, False], ids=["links", "no links"])
@settings(deadline=None, max_examples=30)
@given(pieces=st.lists(st.sampled_from([b"", b"a", b"b", b"longer"]), min_size=1, max_size=8))
def test_row_08_nothing_is_ever_lost(pieces: list[bytes], *, linking: bool) -> None:
    with tempfile.TemporaryDirectory() as path, pytest.MonkeyPatch.context() as patch:
        if not linking:
            patch.setattr(os, "link", refusing(errno.EPERM))
        there: bytes | None = None
        for content in pieces:
            assert publish_in(Path(path), "a", content).unchanged == (content == there)
            assert (Path(path) / "a").read_bytes() == content
            there = content
        assert set(contents(Path(path)).values()) == set(pieces)


@WITHOUT_LINKS
def test_row_08_without_links_the_name_is_free_for_no_longer_than_it_takes_to_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    seen: list[dict[str, bytes]] = []
    real = os.rename

    def rename(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        seen.append({name: content for name, content in contents(tmp_path).items() if name != TEMPORARY})

    monkeypatch.setattr(os, "rename", rename)
    publish_in(tmp_path, "a", b"new")
    assert seen == [{"a.~1~": b"old"}, {"a": b"new", "a.~1~": b"old"}]


# --- two at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", [True, False], ids=["links", "no links"])
def test_row_05_two_downloads_published_at_once_are_both_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, linking: bool
) -> None:
    if not linking:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    (tmp_path / "a").write_bytes(b"old")
    second = threading.Thread(target=publish_in, args=(tmp_path, "a", b"second"), kwargs={"temporary": ".other"})
    waits, real_rename, real_flock = threading.Event(), os.rename, fcntl.flock

    def flock(*arguments: Any) -> None:
        try:
            real_flock(*arguments)
        except BlockingIOError:
            waits.set()
            raise

    def rename(*arguments: Any, **options: Any) -> None:
        if threading.current_thread() is not second and not second.ident:
            second.start()  # the first is about to move what is there, or to replace it
            assert waits.wait(10)
        real_rename(*arguments, **options)

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(os, "rename", rename)
    publish_in(tmp_path, "a", b"first")
    second.join()
    assert contents(tmp_path) == {"a": b"second", "a.~1~": b"old", "a.~2~": b"first"}


def test_a_directory_that_another_program_keeps_locked_gets_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "LOCK_SECONDS", 0.01)
    with locked_by_another(tmp_path):
        publish_in(tmp_path, "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.usefixtures("unblocked")
def test_nobody_waits_for_a_directory_to_publish_what_is_not_wanted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "LOCK_SECONDS", 1e9)
    with locked_by_another(tmp_path), pytest.raises((BlockingIOError, TransferError)):
        publish_in(tmp_path, "a", b"new", wanted=lambda: False)
    assert not names(tmp_path)


@pytest.mark.parametrize("refused", [True, False])
def test_the_directory_is_not_locked_afterwards(tmp_path: Path, *, refused: bool) -> None:
    if refused:
        (tmp_path / "a").mkdir()
    at, other = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    fd = os.open(tmp_path / TEMPORARY, os.O_RDWR | os.O_CREAT)
    with contextlib.suppress(TransferError):
        publish(at, Whole(TEMPORARY, "a", fd, Digest("sha256")), lambda: True)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for descriptor in (at, other, fd):
        os.close(descriptor)


def test_directory_is_locked_for_nothing_that_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    free: list[bool] = []

    def noting_whether_free(slow: Callable[..., None]) -> Callable[..., None]:
        def looked_at(*arguments: Any) -> None:
            directory = os.open(tmp_path, os.O_RDONLY)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(True)
            os.close(directory)
            slow(*arguments)

        return looked_at

    monkeypatch.setattr(os, "fsync", noting_whether_free(os.fsync))
    monkeypatch.setattr(Digest, "update_from", noting_whether_free(Digest.update_from))
    publish_in(tmp_path, "a", b"new")
    assert free == [True] * 3  # the look at what is there, the file, and the directory


def test_what_another_has_just_published_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def publish_meanwhile(fd: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        publish_in(tmp_path, "a", b"new", temporary=".other")
        sync(fd)

    monkeypatch.setattr(os, "fsync", publish_meanwhile)
    assert publish_in(tmp_path, "a", b"new").unchanged
    assert names(tmp_path) == ["a"]
