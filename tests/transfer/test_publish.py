import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.ends import contents, names

from greenchat.errors import Code, TransferError
from greenchat.transfer import publish as publish_module
from greenchat.transfer.digest import Digest
from greenchat.transfer.publish import Published, Whole, disk_error, publish

Fails: TypeAlias = Callable[..., AbstractContextManager[None]]
Unprivileged: TypeAlias = Callable[[], AbstractContextManager[None]]
Child: TypeAlias = Callable[..., str]

LONGEST = [pytest.param("x" * 255, id="ASCII"), pytest.param("\u00e9" * 127 + "x", id="not ASCII")]
TEMPORARY = ".temporary"
LINK = os.link
"""Also where a test has taken it away."""


def _publish(
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


def _refusing(number: int) -> Callable[..., Any]:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("outside") / "target"
    target.write_bytes(b"precious")
    return target


@pytest.fixture(params=[None, errno.EPERM, errno.EOPNOTSUPP], ids=["links", "no links: EPERM", "no links: EOPNOTSUPP"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system with hard links, and on one that has none."""
    if request.param:
        monkeypatch.setattr(os, "link", _refusing(request.param))


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refusing(errno.EPERM))


WITH_AND_WITHOUT_LINKS = pytest.mark.usefixtures("links")
WITHOUT_LINKS = pytest.mark.usefixtures("no_links")


# --- a new name -------------------------------------------------------------------------------


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("content", [b"", b"new"], ids=["empty", "not empty"])
def test_file_gets_its_name(tmp_path: Path, content: bytes) -> None:
    assert _publish(tmp_path, "a", content) == Published(backup=None, unchanged=False)
    assert contents(tmp_path) == {"a": content}


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("name", LONGEST)
def test_row_04_longest_name_is_published(tmp_path: Path, name: str, fails: Fails) -> None:
    _publish(tmp_path, name, b"old")
    assert contents(tmp_path) == {name: b"old"}
    with fails(Code.IN_THE_WAY):  # its backup would have a name too long
        _publish(tmp_path, name, b"new")
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
    _publish(tmp_path, "a", b"new")
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
    _publish(tmp_path, "a", b"new")
    status = (tmp_path / "a").stat()
    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
    assert abs(status.st_mtime - time.time()) < 60


def test_file_system_without_modes_gets_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fchmod", _refusing(errno.EPERM))
    _publish(tmp_path, "a", b"new")
    assert contents(tmp_path) == {"a": b"new"}


# --- what is there already --------------------------------------------------------------------


@WITH_AND_WITHOUT_LINKS
def test_row_08_existing_file_is_kept_as_a_backup(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o440)
    assert _publish(tmp_path, "a", b"new") == Published(backup="a.~1~", unchanged=False)
    assert contents(tmp_path) == {"a": b"new", "a.~1~": b"old"}
    assert stat.S_IMODE((tmp_path / "a.~1~").stat().st_mode) == 0o440


@WITH_AND_WITHOUT_LINKS
def test_row_08_backups_are_numbered(tmp_path: Path) -> None:
    published = [_publish(tmp_path, "a", content) for content in (b"1", b"2", b"3", b"4")]
    assert [one.backup for one in published] == [None, "a.~1~", "a.~2~", "a.~3~"]
    assert contents(tmp_path) == {"a": b"4", "a.~1~": b"1", "a.~2~": b"2", "a.~3~": b"3"}


@WITH_AND_WITHOUT_LINKS
def test_row_08_backup_takes_the_first_free_number_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a.~1~").write_bytes(b"mine")
    (tmp_path / "a.~2~").symlink_to("nowhere")
    (tmp_path / "a.~4~").mkdir()
    assert _publish(tmp_path, "a", b"new").backup == "a.~3~"
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
    assert _publish(tmp_path, "a", b"new").backup == "a.~2~"
    assert not (tmp_path / "a.~1~").is_file()
    assert (tmp_path / "a.~2~").read_bytes() == b"old"


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_row_08_same_content_is_left_alone(tmp_path: Path, algorithm: str) -> None:
    if algorithm == "blake3":
        pytest.importorskip("blake3")
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "a").chmod(0o440)
    before = (tmp_path / "a").stat()
    assert _publish(tmp_path, "a", b"same", algorithm=algorithm) == Published(backup=None, unchanged=True)
    after = (tmp_path / "a").stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert names(tmp_path) == ["a"]


@WITH_AND_WITHOUT_LINKS
@pytest.mark.parametrize("old", [b"sam", b"same!", b"Same"], ids=["shorter", "longer", "as long"])
def test_row_08_nearly_the_same_content_is_another(tmp_path: Path, old: bytes) -> None:
    (tmp_path / "a").write_bytes(old)
    _publish(tmp_path, "a", b"same")
    assert contents(tmp_path) == {"a": b"same", "a.~1~": old}


def test_row_08_unreadable_file_is_kept_rather_than_compared(tmp_path: Path, unprivileged: Unprivileged) -> None:
    tmp_path.chmod(0o777)
    with contextlib.chdir(tmp_path), unprivileged():
        Path("a").write_bytes(b"same")
        Path("a").chmod(0)
        assert _publish(Path(), "a", b"same").backup == "a.~1~"
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
    _publish(tmp_path, "a", b"new")
    assert seen == [{b"old"}, {b"old", b"new"}]


@WITH_AND_WITHOUT_LINKS
def test_row_08_too_many_backups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr(publish_module, "MAX_BACKUPS", 2)
    for content in (b"1", b"2", b"3"):
        _publish(tmp_path, "a", content)
    with fails(Code.IN_THE_WAY):
        _publish(tmp_path, "a", b"4")
    assert contents(tmp_path) == {"a": b"3", "a.~1~": b"1", "a.~2~": b"2"}


@pytest.mark.parametrize("linking", [True, False], ids=["links", "no links"])
@settings(deadline=None, max_examples=30)
@given(pieces=st.lists(st.sampled_from([b"", b"a", b"b", b"longer"]), min_size=1, max_size=8))
def test_row_08_nothing_is_ever_lost(pieces: list[bytes], *, linking: bool) -> None:
    with tempfile.TemporaryDirectory() as path, pytest.MonkeyPatch.context() as patch:
        if not linking:
            patch.setattr(os, "link", _refusing(errno.EPERM))
        there: bytes | None = None
        for content in pieces:
            assert _publish(Path(path), "a", content).unchanged == (content == there)
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
    _publish(tmp_path, "a", b"new")
    assert seen == [{"a.~1~": b"old"}, {"a": b"new", "a.~1~": b"old"}]


# --- two at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", [True, False], ids=["links", "no links"])
def test_row_05_two_downloads_published_at_once_are_both_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, linking: bool
) -> None:
    if not linking:
        monkeypatch.setattr(os, "link", _refusing(errno.EPERM))
    (tmp_path / "a").write_bytes(b"old")
    second = threading.Thread(target=_publish, args=(tmp_path, "a", b"second"), kwargs={"temporary": ".other"})
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
    _publish(tmp_path, "a", b"first")
    second.join()
    assert contents(tmp_path) == {"a": b"second", "a.~1~": b"old", "a.~2~": b"first"}


def test_a_directory_that_another_program_keeps_locked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "LOCK_SECONDS", 0.01)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError):
        _publish(tmp_path, "a", b"new")
    os.close(other)
    assert not names(tmp_path)


@pytest.mark.usefixtures("unblocked")
def test_nobody_waits_for_a_directory_to_publish_what_is_not_wanted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "LOCK_SECONDS", 1e9)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises((BlockingIOError, TransferError)):
        _publish(tmp_path, "a", b"new", wanted=lambda: False)
    os.close(other)
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


# --- what is in the way -----------------------------------------------------------------------


@WITH_AND_WITHOUT_LINKS
def test_row_06_target_of_a_link_is_never_written(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").symlink_to(outside)
    assert _publish(tmp_path, "a", b"new").backup == "a.~1~"
    assert outside.read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a.~1~").readlink() == outside


@WITH_AND_WITHOUT_LINKS
def test_row_06_target_of_a_dangling_link_is_not_made(tmp_path: Path, outside: Path) -> None:
    outside.unlink()
    (tmp_path / "a").symlink_to(outside)
    _publish(tmp_path, "a", b"new")
    assert not outside.exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a.~1~").readlink() == outside


@WITH_AND_WITHOUT_LINKS
def test_row_06_link_to_the_same_content_is_not_taken_for_it(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").symlink_to(outside)
    assert not _publish(tmp_path, "a", b"precious").unchanged
    assert not (tmp_path / "a").is_symlink()


@WITH_AND_WITHOUT_LINKS
def test_row_06_other_name_of_a_hard_link_is_not_written(tmp_path: Path, outside: Path) -> None:
    LINK(outside, tmp_path / "a")
    _publish(tmp_path, "a", b"new")
    assert outside.read_bytes() == b"precious"
    assert (tmp_path / "a.~1~").read_bytes() == b"precious"


@WITH_AND_WITHOUT_LINKS
def test_row_06_directory_stays(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inside").write_bytes(b"kept")
    with fails(Code.IN_THE_WAY):
        _publish(tmp_path, "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "inside").read_bytes() == b"kept"


@WITH_AND_WITHOUT_LINKS
def test_row_06_empty_directory_stays(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "a").mkdir()
    with fails(Code.IN_THE_WAY):
        _publish(tmp_path, "a", b"new")
    assert (tmp_path / "a").is_dir()
    assert names(tmp_path) == ["a"]


@WITH_AND_WITHOUT_LINKS
@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("content", [b"", b"new"], ids=["empty", "not empty"])
def test_row_06_fifo_is_moved_aside_without_blocking(tmp_path: Path, content: bytes) -> None:
    os.mkfifo(tmp_path / "a")
    assert _publish(tmp_path, "a", content).backup == "a.~1~"
    assert (tmp_path / "a").read_bytes() == content
    assert (tmp_path / "a.~1~").is_fifo()


def test_row_06_fifo_in_the_way_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a")
    opened, real = [], os.open

    def spy(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", spy)
    _publish(tmp_path, "a", b"new")
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
    assert _publish(tmp_path, "a", b"precious") == Published(backup="a.~1~", unchanged=False)
    assert there.is_file()
    assert not there.is_symlink()
    assert there.read_bytes() == b"precious"


def test_row_06_read_only_file_is_replaced_and_kept(tmp_path: Path, unprivileged: Unprivileged) -> None:
    tmp_path.chmod(0o777)
    with contextlib.chdir(tmp_path), unprivileged():
        Path("a").write_bytes(b"old")
        Path("a").chmod(0o400)
        assert _publish(Path(), "a", b"new").backup == "a.~1~"
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
    monkeypatch.setattr(os, call, _refusing(number))
    if call == "rename" and not existing:  # nobody asks for it
        _publish(tmp_path, "a", b"new")
        return
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        _publish(tmp_path, "a", b"new")
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
        _publish(tmp_path, "a", b"new")
    assert list(contents(tmp_path).values()) == [b"old"]


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
        _publish(tmp_path, "a", b"same")
    assert contents(tmp_path) == {"a": b"same"}


def test_row_10_user_is_told_why_without_a_path() -> None:
    error = disk_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "/home/somebody"))
    assert error.code is Code.DISK
    assert str(error) == "the file could not be written here: no such file or directory"


def test_row_10_error_without_a_number_is_told_too() -> None:
    assert disk_error(OSError("odd")).code is Code.DISK
