import contextlib
import os
import socket as blocking
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transfer.files import Fails, Unprivileged, fill_long_ago, grow, overwrite, replace, shrink

from greenchat.errors import Code, TransferError
from greenchat.transfer.share import Share

MISSING = "missing.txt"
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=12)
TRICKY_TEXT = st.text(st.sampled_from("./\\\x00:a\udc80 ~-"), max_size=12)


@pytest.fixture
def share(home: Path) -> Iterator[Share]:
    share = Share(home)
    yield share
    share.close()


@pytest.fixture
def secret(home: Path) -> Path:
    """A file beside the directory that is shared."""
    path = home.parent / "secret"
    path.write_bytes(b"secret")
    return path


def _answer(share: Share, name: str) -> tuple[Code, str]:
    """What whoever asks for *name* may learn."""
    with pytest.raises(TransferError) as caught, share.open(name):
        pass
    return caught.value.code, str(caught.value)


def _assert_as_missing(share: Share, name: str) -> None:
    answer = _answer(share, name)
    assert answer == _answer(share, MISSING)
    assert answer[0] is Code.NOT_FOUND


# --- what is served ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("notes.txt", id="plain"),
        pytest.param("a b", id="space"),
        pytest.param("na\u00efve \u540d\u524d", id="not ASCII"),
        pytest.param("-rf", id="like an option"),
        pytest.param("a..b", id="dots inside"),
        pytest.param("~", id="tilde"),
        pytest.param("x" * 255, id="longest"),
    ],
)
def test_file_is_opened(share: Share, home: Path, name: str) -> None:
    (home / name).write_bytes(b"content")
    with share.open(name) as file:
        assert file.is_regular
        assert (os.read(file.fd, 100), file.size) == (b"content", 7)


def test_empty_file_is_opened(share: Share, home: Path) -> None:
    (home / "empty").touch()
    with share.open("empty") as file:
        assert file.size == 0


def test_size_of_a_file_is_that_at_opening(share: Share, home: Path) -> None:
    (home / "log").write_bytes(b"one")
    with share.open("log") as file:
        (home / "log").write_bytes(b"one and two")
        assert file.size == 3


def test_file_can_neither_be_written_nor_inherited(share: Share, home: Path) -> None:
    (home / "a").touch()
    with share.open("a") as file:
        assert not os.get_inheritable(file.fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(file.fd, b"x")


def test_file_is_closed_after_its_block(share: Share, home: Path) -> None:
    (home / "a").touch()
    with share.open("a") as file:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)


# --- what is refused --------------------------------------------------------------------------


def test_row_13_directory_is_refused(share: Share, home: Path) -> None:
    (home / "sub").mkdir()
    _assert_as_missing(share, "sub")


@pytest.mark.usefixtures("unblocked")
def test_row_13_fifo_is_refused_without_blocking(share: Share, home: Path) -> None:
    os.mkfifo(home / "pipe")
    _assert_as_missing(share, "pipe")


def test_row_13_fifo_is_not_even_opened(share: Share, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(home / "pipe")
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda *arguments, **_: opened.append(arguments))
    _assert_as_missing(share, "pipe")
    assert not opened


def test_row_13_socket_is_refused(share: Share, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)  # the path of a socket must be short
    with blocking.socket(blocking.AF_UNIX) as listener:
        listener.bind("socket")
        _assert_as_missing(share, "socket")


def test_row_13_device_is_refused(share: Share, home: Path) -> None:
    try:
        os.mknod(home / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only a superuser can make devices")
    _assert_as_missing(share, "zero")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/proc/self/environ"])
def test_row_13_device_behind_a_link_is_refused(share: Share, home: Path, device: str) -> None:
    (home / "zero").symlink_to(device)
    _assert_as_missing(share, "zero")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("../secret", id="out, relative"),
        pytest.param("{secret}", id="out, absolute"),
        pytest.param("..", id="parent"),
        pytest.param("inside", id="in"),
        pytest.param("itself", id="itself"),
        pytest.param("nowhere", id="dangling"),
    ],
)
def test_row_12_link_is_never_followed(share: Share, home: Path, secret: Path, target: str) -> None:
    (home / "inside").write_bytes(b"public")
    (home / "itself").symlink_to(target.format(secret=secret))
    _assert_as_missing(share, "itself")


def _exchange_after_stat(monkeypatch: pytest.MonkeyPatch, file: Path, exchange: Callable[[Path], object]) -> None:
    """The moment an earlier check has found *file* to be good, it is something else."""
    real = os.stat

    def check(path: str, **options: int) -> os.stat_result:
        status = real(path, **options)  # type: ignore[arg-type]  # as it was called
        monkeypatch.undo()
        file.unlink()
        exchange(file)
        return status

    monkeypatch.setattr(os, "stat", check)


def test_row_12_link_that_appears_after_a_check_is_not_followed(
    share: Share, home: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a").write_bytes(b"public")
    _exchange_after_stat(monkeypatch, home / "a", lambda file: file.symlink_to(secret))
    assert _answer(share, "a")[0] is Code.NOT_FOUND
    assert (home / "a").is_symlink()


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["FIFO", "directory"])
def test_row_13_what_appears_after_a_check_is_refused(
    share: Share, home: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a").write_bytes(b"public")
    _exchange_after_stat(monkeypatch, home / "a", make)
    assert _answer(share, "a")[0] is Code.NOT_FOUND
    assert not (home / "a").is_file()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../secret", id="parent"),
        pytest.param("{secret}", id="absolute"),
        pytest.param("sub/../../secret", id="through a directory"),
        pytest.param("sub/file", id="in a directory"),
        pytest.param("./file", id="dot"),
        pytest.param("file/", id="trailing slash"),
        pytest.param("..\\secret", id="backslash"),
        pytest.param("..", id="two dots"),
        pytest.param(".", id="one dot"),
        pytest.param("", id="empty"),
    ],
)
def test_row_11_path_is_refused(share: Share, home: Path, secret: Path, name: str) -> None:
    (home / "sub").mkdir()
    (home / "sub" / "file").write_bytes(b"deeper")
    (home / "file").write_bytes(b"public")
    _assert_as_missing(share, name.format(secret=secret))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a\udcffb", id="invalid UTF-8"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("x" * 256, id="256 bytes"),
        pytest.param("\u00e9" * 128, id="256 bytes of 128 characters"),
        pytest.param("x" * 5000, id="longer than a path"),
    ],
)
def test_row_04_impossible_name_is_refused(share: Share, name: str) -> None:
    _assert_as_missing(share, name)


def test_row_04_file_whose_name_is_no_utf8_is_not_served(share: Share, home: Path) -> None:
    (home / "a\udcffb").write_bytes(b"x")
    _assert_as_missing(share, "a\udcffb")


@pytest.mark.parametrize("name", [".hidden", f".greenchat-{1:032x}.part", "..."])
def test_row_14_hidden_file_is_as_good_as_missing(share: Share, home: Path, name: str) -> None:
    (home / name).write_bytes(b"x")
    _assert_as_missing(share, name)


def test_row_14_unreadable_file_is_as_good_as_missing(share: Share, home: Path, unprivileged: Unprivileged) -> None:
    (home / "diary").write_bytes(b"x")
    (home / "diary").chmod(0)
    home.chmod(0o755)
    with unprivileged():
        _assert_as_missing(share, "diary")


def test_row_14_file_in_a_directory_that_was_locked_is_as_good_as_missing(
    share: Share, home: Path, unprivileged: Unprivileged
) -> None:
    (home / "a").write_bytes(b"x")
    home.chmod(0)
    with unprivileged():
        _assert_as_missing(share, "a")
    home.chmod(0o755)


@settings(deadline=None)
@given(name=ANY_TEXT | TRICKY_TEXT)
@example(name="\x00")
@example(name="\ud800")
@example(name="/proc/self/stat")
@example(name="../secret")
def test_row_11_no_name_opens_what_is_not_in_the_share(name: str, fails: Fails) -> None:
    with tempfile.TemporaryDirectory() as outside:
        (Path(outside) / "secret").touch()
        (Path(outside) / "empty").mkdir()
        with contextlib.closing(Share(Path(outside) / "empty")) as share, fails(Code.NOT_FOUND):
            share.open(name)


# --- the directory ----------------------------------------------------------------------------


def test_directory_stays_the_same_one_when_its_path_leads_elsewhere(share: Share, home: Path) -> None:
    (home / "a").write_bytes(b"mine")
    home.rename(home.parent / "moved")
    home.mkdir()
    (home / "a").write_bytes(b"somebody else's")
    with share.open("a") as file:
        assert os.read(file.fd, 100) == b"mine"


def test_row_12_directory_replaced_by_a_link_does_not_lead_out(share: Share, home: Path, secret: Path) -> None:
    home.rename(home.parent / "moved")
    home.symlink_to(secret.parent)
    _assert_as_missing(share, secret.name)


def test_file_that_comes_later_is_served(share: Share, home: Path) -> None:
    _assert_as_missing(share, "late")
    (home / "late").write_bytes(b"x")
    with share.open("late") as file:
        assert file.size == 1


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("make", [None, Path.touch, os.mkfifo], ids=["missing", "a file", "a FIFO"])
def test_only_a_directory_can_be_shared(
    tmp_path: Path,
    make: Callable[[Path], None] | None,
    fails: Fails,
) -> None:
    if make:
        make(tmp_path / "share")
    with fails(Code.NOT_FOUND):
        Share(tmp_path / "share")


def test_why_a_directory_cannot_be_shared_is_said(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"cannot share .*/gone: no such file or directory"):
        Share(tmp_path / "gone")


def test_closed_share_serves_nothing(home: Path) -> None:
    (home / "a").touch()
    share = Share(home)
    share.close()
    _assert_as_missing(share, "a")


def test_closed_share_does_not_serve_the_directory_that_got_its_descriptor(home: Path, secret: Path) -> None:
    share = Share(home)
    share.close()
    another = os.open(secret.parent, os.O_RDONLY)
    try:
        _assert_as_missing(share, secret.name)
    finally:
        os.close(another)


# --- changes ----------------------------------------------------------------------------------


def _shrink_and_set_the_time_back(file: Path) -> None:
    before = file.stat()
    shrink(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(shrink, id="shrinks"),
        pytest.param(_shrink_and_set_the_time_back, id="shrinks, its time set back"),
        pytest.param(grow, id="grows"),
        pytest.param(overwrite, id="overwritten"),
    ],
)
def test_row_15_writing_to_a_file_is_noticed(share: Share, home: Path, change: Callable[[Path], None]) -> None:
    fill_long_ago(home / "a", b"old content")
    with share.open("a") as file:
        assert not file.changed()
        change(home / "a")
        assert file.changed()


def test_row_15_file_that_is_replaced_or_removed_is_still_the_one_that_was_opened(share: Share, home: Path) -> None:
    (home / "a").write_bytes(b"old")
    with share.open("a") as file:
        replace(home / "a")
        (home / "a").unlink()
        assert os.pread(file.fd, 100, 0) == b"old"
        assert not file.changed()


def test_row_16_size_of_a_sparse_file_over_4_gib(share: Share, home: Path) -> None:
    (home / "big").touch()
    os.truncate(home / "big", 2**32 + 5)
    with share.open("big") as file:
        assert file.size == 2**32 + 5
