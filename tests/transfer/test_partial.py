import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenchat.errors import Code, TransferError
from greenchat.transfer import partial as partial_module
from greenchat.transfer.partial import Partial, Published

Fails: TypeAlias = Callable[..., AbstractContextManager[None]]
Unprivileged: TypeAlias = Callable[[], AbstractContextManager[None]]
Child: TypeAlias = Callable[..., str]

LONGEST = [pytest.param("x" * 255, id="ASCII"), pytest.param("\u00e9" * 127 + "x", id="not ASCII")]
MAPPED = ("unshare", "--user", "--map-root-user", "--mount")


def _write(partial: Partial, content: bytes) -> None:
    partial.write(memoryview(content))


def _receive(directory: Path, name: str, content: bytes) -> Published:
    with Partial(directory, name) as partial:
        _write(partial, content)
        return partial.publish()


def _names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def _contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _only_name(directory: Path) -> str:
    (name,) = _names(directory)
    return name


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("outside") / "target"
    target.write_bytes(b"precious")
    return target


# --- in the making ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "report.pdf", *LONGEST])
def test_row_04_temporary_name_is_hidden_and_of_one_length(tmp_path: Path, name: str) -> None:
    with Partial(tmp_path, name):
        assert re.fullmatch(r"\.greenchat-[0-9a-f]{16}\.part", _only_name(tmp_path))


def test_row_04_every_temporary_name_is_another(tmp_path: Path) -> None:
    with Partial(tmp_path, "a"), Partial(tmp_path, "a"), Partial(tmp_path, "a"):
        assert len(_names(tmp_path)) == 3


def test_temporary_file_is_for_its_owner_only(tmp_path: Path) -> None:
    with Partial(tmp_path, "a"):
        assert stat.S_IMODE((tmp_path / _only_name(tmp_path)).stat().st_mode) == 0o600


def test_nothing_has_the_final_name_until_it_is_published(tmp_path: Path) -> None:
    with Partial(tmp_path, "a") as partial:
        _write(partial, b"half")
        assert not (tmp_path / "a").exists()
        _write(partial, b" and half")
        assert not (tmp_path / "a").exists()
        assert partial.publish() == Published(backup=None, unchanged=False)
        assert (tmp_path / "a").read_bytes() == b"half and half"
    assert _names(tmp_path) == ["a"]


def test_old_file_stays_until_the_new_one_is_published(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with Partial(tmp_path, "a") as partial:
        _write(partial, b"new")
        assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("existing", [{}, {"a": b"old"}], ids=["to a new name", "to a name in use"])
def test_what_was_not_published_is_removed(tmp_path: Path, existing: dict[str, bytes]) -> None:
    for name, content in existing.items():
        (tmp_path / name).write_bytes(content)
    with Partial(tmp_path, "a") as partial:
        _write(partial, b"half")
    assert _contents(tmp_path) == existing


def test_what_was_not_published_is_removed_after_an_error(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), Partial(tmp_path, "a") as partial:
        _write(partial, b"half")
        raise ZeroDivisionError
    assert not _names(tmp_path)


def test_empty_file_is_published(tmp_path: Path) -> None:
    assert _receive(tmp_path, "empty", b"") == Published(backup=None, unchanged=False)
    assert _contents(tmp_path) == {"empty": b""}


@settings(deadline=None, max_examples=30)
@given(pieces=st.lists(st.binary(max_size=100), max_size=10))
def test_what_is_published_is_what_was_written(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as path, Partial(Path(path), "a") as partial:
        for piece in pieces:
            _write(partial, piece)
        partial.publish()
        assert (Path(path) / "a").read_bytes() == b"".join(pieces)
        assert partial.digest() == sha256(b"".join(pieces)).hexdigest()


def test_what_the_disk_takes_in_small_pieces_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    _receive(tmp_path, "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_after_its_block_nothing_can_be_published(tmp_path: Path, fails: Fails) -> None:
    with Partial(tmp_path, "a") as partial:
        _write(partial, b"x")
    with fails(Code.DISK):
        partial.publish()
    with fails(Code.DISK):
        _write(partial, b"more")
    assert not _names(tmp_path)


def test_after_its_block_it_writes_to_no_file_that_got_its_descriptor(tmp_path: Path, fails: Fails) -> None:
    with Partial(tmp_path, "a") as partial:
        pass
    with (tmp_path / "another").open("wb", buffering=0), (tmp_path / "third").open("wb", buffering=0):
        with fails(Code.DISK):
            _write(partial, b"more")
        with fails(Code.DISK):
            partial.publish()
    assert _contents(tmp_path) == {"another": b"", "third": b""}


def test_who_leaves_does_not_wait_for_a_thread_that_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncing, go_on, real = threading.Event(), threading.Event(), os.fsync

    def fsync(fd: int) -> None:
        syncing.set()
        assert go_on.wait(10)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    partial = Partial(tmp_path, "a")
    publishing = threading.Thread(target=partial.publish)
    publishing.start()
    assert syncing.wait(10)
    partial.__exit__(None, None, None)
    assert "a" not in _names(tmp_path)
    go_on.set()
    publishing.join()
    assert _names(tmp_path) == ["a"]


# --- its mode and times -----------------------------------------------------------------------

PUBLISH_WITH_UMASK = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from greenchat.transfer.partial import Partial
with Partial(Path(sys.argv[1]), "a") as partial:
    partial.publish()
print(oct(os.umask(0)))
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("000", 0o666)])
def test_row_09_published_file_has_the_mode_of_a_new_one(tmp_path: Path, child: Child, umask: str, mode: int) -> None:
    umask_after = child(PUBLISH_WITH_UMASK, tmp_path, umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert int(umask_after, 8) == int(umask, 8)


def test_row_09_mode_and_time_of_what_is_replaced_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o6777)
    os.utime(tmp_path / "a", (1, 1))
    _receive(tmp_path, "a", b"new")
    status = (tmp_path / "a").stat()
    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
    assert abs(status.st_mtime - time.time()) < 60


# --- what is there already --------------------------------------------------------------------


def test_row_08_existing_file_is_kept_as_a_backup(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o440)
    assert _receive(tmp_path, "a", b"new") == Published(backup="a.~1~", unchanged=False)
    assert _contents(tmp_path) == {"a": b"new", "a.~1~": b"old"}
    assert stat.S_IMODE((tmp_path / "a.~1~").stat().st_mode) == 0o440


def test_row_08_backups_are_numbered(tmp_path: Path) -> None:
    published = [_receive(tmp_path, "a", content) for content in (b"1", b"2", b"3", b"4")]
    assert [one.backup for one in published] == [None, "a.~1~", "a.~2~", "a.~3~"]
    assert _contents(tmp_path) == {"a": b"4", "a.~1~": b"1", "a.~2~": b"2", "a.~3~": b"3"}


def test_row_08_backup_takes_the_first_free_number_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a.~1~").write_bytes(b"mine")
    (tmp_path / "a.~2~").symlink_to("nowhere")
    (tmp_path / "a.~4~").mkdir()
    assert _receive(tmp_path, "a", b"new").backup == "a.~3~"
    assert (tmp_path / "a.~1~").read_bytes() == b"mine"
    assert (tmp_path / "a.~2~").is_symlink()
    assert (tmp_path / "a.~3~").read_bytes() == b"old"


def test_row_08_same_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "a").chmod(0o440)
    before = (tmp_path / "a").stat()
    assert _receive(tmp_path, "a", b"same") == Published(backup=None, unchanged=True)
    after = (tmp_path / "a").stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert _names(tmp_path) == ["a"]


@pytest.mark.parametrize("old", [b"sam", b"same!", b"Same"], ids=["shorter", "longer", "as long"])
def test_row_08_nearly_the_same_content_is_another(tmp_path: Path, old: bytes) -> None:
    (tmp_path / "a").write_bytes(old)
    _receive(tmp_path, "a", b"same")
    assert _contents(tmp_path) == {"a": b"same", "a.~1~": old}


def test_row_08_old_file_has_a_name_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    seen: list[set[bytes]] = []

    def spied(call: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            names = [tmp_path / name for name in ("a", "a.~1~")]
            seen.append({name.read_bytes() for name in names if name.exists()})
            return result

        return spy

    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    _receive(tmp_path, "a", b"new")
    assert seen == [{b"old"}, {b"old", b"new"}]


def test_row_08_too_many_backups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr(partial_module, "MAX_BACKUPS", 2)
    for content in (b"1", b"2", b"3"):
        _receive(tmp_path, "a", content)
    with fails(Code.IN_THE_WAY):
        _receive(tmp_path, "a", b"4")
    assert _contents(tmp_path) == {"a": b"3", "a.~1~": b"1", "a.~2~": b"2"}


@settings(deadline=None, max_examples=30)
@given(contents=st.lists(st.sampled_from([b"", b"a", b"b", b"longer"]), min_size=1, max_size=8))
def test_row_08_nothing_is_ever_lost(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as path:
        there: bytes | None = None
        for content in contents:
            assert _receive(Path(path), "a", content).unchanged == (content == there)
            assert (Path(path) / "a").read_bytes() == content
            there = content
        assert set(_contents(Path(path)).values()) == set(contents)
        assert not any(name.startswith(".") for name in _names(Path(path)))


@pytest.mark.parametrize("name", LONGEST)
def test_row_04_longest_name_is_published(tmp_path: Path, name: str, fails: Fails) -> None:
    _receive(tmp_path, name, b"old")
    assert _contents(tmp_path) == {name: b"old"}
    with fails(Code.IN_THE_WAY):  # its backup would have a name too long
        _receive(tmp_path, name, b"new")
    assert _contents(tmp_path) == {name: b"old"}


# --- two at once ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("a.txt", "A.TXT", id="case"),
        pytest.param("\u00e9", "e\u0301", id="Unicode form"),
        pytest.param("a", "b", id="nothing alike"),
    ],
)
def test_row_05_twins_are_not_mixed(tmp_path: Path, one: str, other: str) -> None:
    with Partial(tmp_path, one) as first, Partial(tmp_path, other) as second:
        for _ in range(3):
            _write(first, b"one")
            _write(second, b"other")
        first.publish()
        second.publish()
    assert sorted(_contents(tmp_path).values()) == [b"one" * 3, b"other" * 3]


def test_row_05_two_downloads_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    with Partial(tmp_path, "a") as first, Partial(tmp_path, "a") as second:
        _write(first, b"fir")
        _write(second, b"sec")
        _write(first, b"st")
        _write(second, b"ond")
        second.publish()
        assert first.publish().backup == "a.~1~"
    assert _contents(tmp_path) == {"a": b"first", "a.~1~": b"second"}


def test_row_05_two_downloads_of_the_same_content_make_one_file(tmp_path: Path) -> None:
    with Partial(tmp_path, "a") as first, Partial(tmp_path, "a") as second:
        _write(first, b"same")
        _write(second, b"same")
        assert not first.publish().unchanged
        assert second.publish().unchanged
    assert _contents(tmp_path) == {"a": b"same"}


def test_row_05_two_downloads_published_at_once_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    second = threading.Thread(target=_receive, args=(tmp_path, "a", b"second"))
    in_between, real = threading.Event(), os.rename

    def rename(*arguments: Any, **options: Any) -> None:
        if threading.current_thread() is second:
            in_between.set()
        elif not second.ident:  # the first is about to replace what it has just backed up
            second.start()
            in_between.wait(0.5)
            second.join(0.5)
        real(*arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    _receive(tmp_path, "a", b"first")
    second.join()
    assert set(_contents(tmp_path).values()) == {b"old", b"first", b"second"}


# --- what is in the way -----------------------------------------------------------------------


def test_row_06_target_of_a_link_is_never_written(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").symlink_to(outside)
    assert _receive(tmp_path, "a", b"new").backup == "a.~1~"
    assert outside.read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a.~1~").readlink() == outside


def test_row_06_target_of_a_dangling_link_is_not_made(tmp_path: Path, outside: Path) -> None:
    outside.unlink()
    (tmp_path / "a").symlink_to(outside)
    _receive(tmp_path, "a", b"new")
    assert not outside.exists()
    assert (tmp_path / "a.~1~").readlink() == outside


def test_row_06_link_to_the_same_content_is_not_taken_for_it(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").symlink_to(outside)
    assert not _receive(tmp_path, "a", b"precious").unchanged
    assert not (tmp_path / "a").is_symlink()


def test_row_06_other_name_of_a_hard_link_is_not_written(tmp_path: Path, outside: Path) -> None:
    os.link(outside, tmp_path / "a")
    _receive(tmp_path, "a", b"new")
    assert outside.read_bytes() == b"precious"


def test_row_06_directory_stays(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inside").write_bytes(b"kept")
    with fails(Code.IN_THE_WAY):
        _receive(tmp_path, "a", b"new")
    assert _names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "inside").read_bytes() == b"kept"


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("content", [b"", b"new"], ids=["empty", "not empty"])
def test_row_06_fifo_is_moved_aside_without_blocking(tmp_path: Path, content: bytes) -> None:
    os.mkfifo(tmp_path / "a")
    assert _receive(tmp_path, "a", content).backup == "a.~1~"
    assert (tmp_path / "a").read_bytes() == content
    assert (tmp_path / "a.~1~").is_fifo()


def test_row_06_fifo_in_the_way_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a")
    opened, real = [], os.open

    def spy(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", spy)
    _receive(tmp_path, "a", b"new")
    assert "a" not in opened


def test_row_06_read_only_file_is_replaced_and_kept(tmp_path: Path, unprivileged: Unprivileged) -> None:
    tmp_path.chmod(0o777)
    with contextlib.chdir(tmp_path), unprivileged():
        Path("a").write_bytes(b"old")
        Path("a").chmod(0o400)
        assert _receive(Path(), "a", b"new").backup == "a.~1~"
    assert _contents(tmp_path) == {"a": b"new", "a.~1~": b"old"}


def test_row_06_directory_that_is_moved_meanwhile_still_gets_the_file(tmp_path: Path, outside: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Partial(home, "target") as partial:
        home.rename(tmp_path / "moved")
        home.symlink_to(outside.parent)
        _write(partial, b"new")
        partial.publish()
    assert _contents(tmp_path / "moved") == {"target": b"new"}
    assert _contents(outside.parent) == {"target": b"precious"}


def test_row_06_link_that_appears_at_the_last_moment_is_not_followed(tmp_path: Path, outside: Path) -> None:
    with Partial(tmp_path, "a") as partial:
        _write(partial, b"new")
        (tmp_path / "a").symlink_to(outside)
        partial.publish()
    assert outside.read_bytes() == b"precious"
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("link", [False, True], ids=["file", "link"])
def test_row_07_planted_temporary_file_is_neither_used_nor_removed(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails, *, link: bool
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: "ab" * size)
    planted = tmp_path / ".greenchat-abababababababab.part"
    planted.symlink_to(outside) if link else planted.write_bytes(b"precious")
    with fails(Code.DISK):
        _receive(tmp_path, "a", b"new")
    assert planted.is_symlink() == link
    assert planted.read_bytes() == b"precious"
    assert _names(tmp_path) == [planted.name]


def test_row_07_link_planted_to_a_new_file_does_not_make_it(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: "ab" * size)
    (tmp_path / ".greenchat-abababababababab.part").symlink_to(outside.parent / "new")
    with fails(Code.DISK):
        Partial(tmp_path, "a")
    assert not (outside.parent / "new").exists()


# --- what the disk refuses --------------------------------------------------------------------


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("make", [None, Path.touch, os.mkfifo], ids=["missing", "a file", "a FIFO"])
def test_row_10_no_directory(tmp_path: Path, make: Callable[[Path], None] | None, fails: Fails) -> None:
    if make:
        make(tmp_path / "into")
    with fails(Code.DISK):
        Partial(tmp_path / "into", "a")


def test_row_10_read_only_directory(tmp_path: Path, unprivileged: Unprivileged, fails: Fails) -> None:
    tmp_path.chmod(0o555)
    with contextlib.chdir(tmp_path), unprivileged(), fails(Code.DISK):
        Partial(Path(), "a")
    tmp_path.chmod(0o755)
    assert not _names(tmp_path)


def test_row_10_directory_that_becomes_read_only_meanwhile(
    tmp_path: Path, unprivileged: Unprivileged, fails: Fails
) -> None:
    with Partial(tmp_path, "a") as partial:
        _write(partial, b"new")
        tmp_path.chmod(0o555)
        with unprivileged(), fails(Code.DISK):
            partial.publish()
        tmp_path.chmod(0o755)
    assert not _names(tmp_path)


def test_row_10_directory_that_is_removed_meanwhile(tmp_path: Path, fails: Fails) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Partial(home, "a") as partial:
        (home / _only_name(home)).unlink()
        home.rmdir()
        _write(partial, b"new")
        with fails(Code.DISK):
            partial.publish()
    assert not _names(tmp_path)


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPERM], ids=errno.errorcode.get)
def test_row_10_refusal_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails, call: str, number: int
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with fails(Code.DISK):
        _receive(tmp_path, "a", b"new")
    assert not _names(tmp_path)


def test_row_10_refused_rename_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EIO, "")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "rename", refuse)
    with fails(Code.DISK):
        _receive(tmp_path, "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert not any(name.startswith(".") for name in _names(tmp_path))


def test_row_10_user_is_told_why_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        Partial(tmp_path / "gone", "a")
    assert str(caught.value) == "the file could not be written here: no such file or directory"


RECEIVE_TOO_MUCH = """
import os, sys
from pathlib import Path
from greenchat.errors import TransferError
from greenchat.transfer.partial import Partial
into = Path(sys.argv[1])
try:
    with Partial(into, "a") as partial:
        for _ in range(10):
            partial.write(memoryview(bytes(50_000)))
        partial.publish()
except TransferError as error:
    print(error.code, error, os.listdir(into), sep="|", end="")
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))" + RECEIVE_TOO_MUCH
ON_A_FULL_DISK = (
    "import subprocess, sys; subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=128k', 'none', sys.argv[1]])"
    + RECEIVE_TOO_MUCH
)


def test_row_10_file_larger_than_may_be_is_removed(tmp_path: Path, child: Child) -> None:
    said = child(LIMITED, tmp_path)
    assert said == "disk|the file could not be written here: file too large|[]"


def _may_mount(directory: Path) -> bool:
    command = [*MAPPED, "mount", "-t", "tmpfs", "none", str(directory)]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    return False


def test_row_10_full_disk(tmp_path: Path, child: Child) -> None:
    if not _may_mount(tmp_path):
        pytest.skip("no file system may be mounted here")
    said = child(ON_A_FULL_DISK, tmp_path, prefix=MAPPED)
    assert said == "disk|the file could not be written here: no space left on device|[]"


def test_refusals_are_no_leak(tmp_path: Path, fails: Fails) -> None:
    before = _open_descriptors()
    for _ in range(50):
        with fails(Code.DISK):
            Partial(tmp_path / "gone", "a")
    assert _open_descriptors() == before


def test_a_directory_that_another_program_keeps_locked_is_an_error(
    tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenchat.transfer.partial.LOCK_SECONDS", 0.01)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with Partial(tmp_path, "a") as partial, fails(Code.DISK):
        partial.publish()
    os.close(other)
    assert not _names(tmp_path)
