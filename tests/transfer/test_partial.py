import contextlib
import errno
import fcntl
import os
import re
import stat
import subprocess
import tempfile
import threading
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.ends import contents, fill, names, only_name, partial_in, sha256

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import BLOCK
from greenchat.transfer.digest import ALGORITHMS, Digest
from greenchat.transfer.partial import PARTIAL_NAME, Partial, open_partial
from greenchat.transfer.publish import Published

Fails: TypeAlias = Callable[..., AbstractContextManager[None]]
Unprivileged: TypeAlias = Callable[[], AbstractContextManager[None]]
Child: TypeAlias = Callable[..., str]

LONGEST = [pytest.param("x" * 255, id="ASCII"), pytest.param("\u00e9" * 127 + "x", id="not ASCII")]
MAPPED = ("unshare", "--user", "--map-root-user", "--mount")


def _receive(directory: Path, name: str, content: bytes) -> Published:
    with partial_in(directory, name) as partial:
        fill(partial, content)
        return partial.publish()


def _refusing(number: int) -> Callable[..., Any]:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def _interrupt(directory: Path, content: bytes, name: str = "a", owner: str = "bob") -> str:
    """Leave an unfinished file; its hidden name."""
    before = set(names(directory))
    with partial_in(directory, name, owner=owner) as partial:
        fill(partial, content)
    (left,) = set(names(directory)) - before
    return left


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("outside") / "target"
    target.write_bytes(b"precious")
    return target


# --- in the making ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "report.pdf", *LONGEST])
def test_row_04_hidden_name_is_of_one_length(tmp_path: Path, name: str) -> None:
    with partial_in(tmp_path, name):
        assert re.fullmatch(r"\.greenchat-[0-9a-f]{32}\.part", only_name(tmp_path))
        assert PARTIAL_NAME.fullmatch(only_name(tmp_path))


@pytest.mark.parametrize("owner", ["bob", "\u0431\u043e\u0431", "a" * 32, "b/../c"])
def test_row_04_hidden_name_tells_nothing_of_owner_and_file(tmp_path: Path, owner: str) -> None:
    with partial_in(tmp_path, "secret-plan", owner=owner):
        assert "plan" not in only_name(tmp_path)
        assert owner not in only_name(tmp_path)


def test_file_is_for_its_owner_only(tmp_path: Path) -> None:
    with partial_in(tmp_path):
        assert stat.S_IMODE((tmp_path / only_name(tmp_path)).stat().st_mode) == 0o600


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    with partial_in(tmp_path) as partial:
        assert not os.get_inheritable(partial._fd)
        assert not os.get_inheritable(partial._directory)


def test_nothing_has_the_final_name_until_it_is_published(tmp_path: Path) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"half")
        assert not (tmp_path / "a").exists()
        fill(partial, b" and half")
        assert not (tmp_path / "a").exists()
        assert partial.publish() == Published(backup=None, unchanged=False)
        assert (tmp_path / "a").read_bytes() == b"half and half"
    assert names(tmp_path) == ["a"]


def test_old_file_stays_until_the_new_one_is_published(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with partial_in(tmp_path) as partial:
        fill(partial, b"new")
        assert (tmp_path / "a").read_bytes() == b"old"


def test_empty_file_is_published(tmp_path: Path) -> None:
    assert _receive(tmp_path, "empty", b"") == Published(backup=None, unchanged=False)
    assert contents(tmp_path) == {"empty": b""}


def test_what_was_there_already_is_not_published_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    assert _receive(tmp_path, "a", b"same").unchanged
    assert contents(tmp_path) == {"a": b"same"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(deadline=None, max_examples=30)
@given(pieces=st.lists(st.binary(max_size=100), max_size=10))
def test_what_is_published_is_what_was_written(algorithm: str, pieces: list[bytes]) -> None:
    whole = Digest(algorithm)
    whole.update(b"".join(pieces))
    with tempfile.TemporaryDirectory() as path, partial_in(Path(path), algorithm=algorithm) as partial:
        for piece in pieces:
            fill(partial, piece)
        assert partial.digest() == whole.hex()
        assert partial.size == sum(map(len, pieces))
        partial.publish()
        assert (Path(path) / "a").read_bytes() == b"".join(pieces)


def test_what_the_disk_takes_in_small_pieces_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    _receive(tmp_path, "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


# --- to be resumed ----------------------------------------------------------------------------


def test_what_came_stays_and_is_found_again(tmp_path: Path) -> None:
    left = _interrupt(tmp_path, b"half")
    assert contents(tmp_path) == {left: b"half"}
    with partial_in(tmp_path) as partial:
        assert partial.size == 4
        assert partial.begin("sha256") == sha256(b"half")
        fill(partial, b" and half")
        assert partial.digest() == sha256(b"half and half")
        partial.publish()
    assert contents(tmp_path) == {"a": b"half and half"}


def test_it_may_be_interrupted_many_times(tmp_path: Path) -> None:
    for turn in range(5):
        with partial_in(tmp_path) as partial:
            assert partial.size == 4 * turn
            fill(partial, b"part")
    with partial_in(tmp_path) as partial:
        partial.publish()
    assert contents(tmp_path) == {"a": b"part" * 5}


@pytest.mark.parametrize(
    ("owner", "name"), [("eve", "a"), ("bob", "A"), ("bob", "b"), ("", "a"), ("bo", "ba"), ("boba", "")]
)
def test_another_owner_or_name_is_another_file(tmp_path: Path, owner: str, name: str) -> None:
    _interrupt(tmp_path, b"half")
    with partial_in(tmp_path, name, owner=owner) as partial:
        assert partial.size == 0


def test_nothing_that_came_leaves_nothing(tmp_path: Path) -> None:
    with partial_in(tmp_path):
        pass
    assert not names(tmp_path)


def test_what_came_stays_after_an_error(tmp_path: Path) -> None:
    def lose_the_connection(write: Callable[[memoryview], None]) -> None:
        write(memoryview(b"half"))
        raise TransferError(Code.INTERRUPTED)

    with contextlib.suppress(TransferError), partial_in(tmp_path) as partial:
        partial.fill(lose_the_connection)
    assert list(contents(tmp_path).values()) == [b"half"]


def test_same_partial_goes_on_after_an_error(tmp_path: Path, fails: Fails) -> None:
    def lose_the_connection(write: Callable[[memoryview], None]) -> None:
        write(memoryview(b"half"))
        raise TransferError(Code.INTERRUPTED)

    with partial_in(tmp_path) as partial:
        with fails(Code.INTERRUPTED):
            partial.fill(lose_the_connection)
        assert partial.begin("sha256") == sha256(b"half")
        fill(partial, b" and half")
        assert partial.digest() == sha256(b"half and half")


def test_what_shall_not_be_resumed_is_removed(tmp_path: Path) -> None:
    _interrupt(tmp_path, b"half")
    with partial_in(tmp_path) as partial:
        partial.resumable = False
    assert not names(tmp_path)


def test_old_file_is_none_the_worse_for_an_interrupted_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    _interrupt(tmp_path, b"half")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_what_had_come_is_read_from_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupt(tmp_path, b"half")
    reads, real = 0, os.preadv

    def spy(*arguments: Any) -> int:
        nonlocal reads
        reads += 1
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", spy)
    with partial_in(tmp_path) as partial:
        before = reads
        assert before
        assert partial.begin("sha256") == sha256(b"half")
        fill(partial, b"more")
        assert partial.begin("sha256") == sha256(b"halfmore")
    assert reads == before


def test_another_algorithm_reads_it_again(tmp_path: Path) -> None:
    pytest.importorskip("blake3")
    _interrupt(tmp_path, b"half")
    with partial_in(tmp_path) as partial:
        fill(partial, b" and half")
        whole = Digest("blake3")
        whole.update(b"half and half")
        assert partial.begin("blake3") == whole.hex()
        fill(partial, b"!")
        whole.update(b"!")
        assert partial.digest() == whole.hex()
        assert partial.begin("sha256") == sha256(b"half and half!")


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_more_than_a_block_is_digested_whole(tmp_path: Path, beyond: int) -> None:
    content = b"x" * (2 * BLOCK + beyond)
    _interrupt(tmp_path, content)
    with partial_in(tmp_path) as partial:
        assert partial.begin("sha256") == sha256(content)


def test_another_content_starts_again(tmp_path: Path) -> None:
    _interrupt(tmp_path, b"old and longer")
    with partial_in(tmp_path) as partial:
        partial.restart()
        assert (partial.size, partial.digest()) == (0, sha256(b""))
        fill(partial, b"new")
        assert partial.digest() == sha256(b"new")
        partial.publish()
    assert contents(tmp_path) == {"a": b"new"}


def test_what_was_started_again_leaves_nothing_if_nothing_came(tmp_path: Path) -> None:
    _interrupt(tmp_path, b"old")
    with partial_in(tmp_path) as partial:
        partial.restart()
    assert not names(tmp_path)


def test_whole_file_that_could_not_be_published_is_not_fetched_again(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "a").mkdir()
    with partial_in(tmp_path) as partial:
        fill(partial, b"whole")
        with fails(Code.IN_THE_WAY):
            partial.publish()
    (tmp_path / "a").rmdir()
    with partial_in(tmp_path) as partial:
        assert partial.size == 5
        partial.publish()
    assert contents(tmp_path) == {"a": b"whole"}


def test_row_16_partial_over_4_gib_goes_on_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digest, "update_from", lambda *_arguments: None)  # it would take long
    hidden = tmp_path / _interrupt(tmp_path, b"start")
    os.truncate(hidden, 2**32 + 5)
    with partial_in(tmp_path) as partial:
        assert partial.size == 2**32 + 5
        fill(partial, b"end")
        assert partial.size == hidden.stat().st_size == 2**32 + 8
        assert os.pread(partial._fd, 10, 2**32 + 3) == b"\0\0end"


# --- closing ----------------------------------------------------------------------------------


def test_closed_one_does_nothing_any_more(tmp_path: Path, fails: Fails) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"x")
    left = contents(tmp_path)
    partial.close()
    with fails(Code.INTERRUPTED):
        partial.publish()
    with fails(Code.INTERRUPTED):
        fill(partial, b"more")
    with fails(Code.INTERRUPTED):
        partial.restart()
    with fails(Code.INTERRUPTED):
        partial.begin("blake3")
    with fails(Code.INTERRUPTED):
        partial.check_room(0)
    assert contents(tmp_path) == left


def test_closed_one_writes_to_no_file_that_got_its_descriptor(tmp_path: Path, fails: Fails) -> None:
    with partial_in(tmp_path) as partial:
        pass
    with (tmp_path / "another").open("wb", buffering=0), (tmp_path / "third").open("wb", buffering=0):
        with fails(Code.INTERRUPTED):
            fill(partial, b"more")
        with fails(Code.INTERRUPTED):
            partial.publish()
        partial.close()
    assert contents(tmp_path) == {"another": b"", "third": b""}


class Working:
    """A thread that fills a partial, and waits in the middle until it may go on."""

    def __init__(self, partial: Partial) -> None:
        self.error: TransferError | None = None
        self._busy, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, args=(partial,))
        self._thread.start()
        assert self._busy.wait(10)

    def _work(self, partial: Partial) -> None:
        try:
            partial.fill(self._receive)
        except TransferError as error:
            self.error = error

    def _receive(self, write: Callable[[memoryview], None]) -> None:
        write(memoryview(b"half"))
        self._busy.set()
        assert self._go_on.wait(10)
        write(memoryview(b" and half"))

    def end(self) -> None:
        self._go_on.set()
        self._thread.join()


def test_who_closes_does_not_wait_for_a_thread_and_the_thread_closes(tmp_path: Path) -> None:
    with partial_in(tmp_path) as partial:
        working = Working(partial)
    assert partial._fd >= 0
    assert os.fstat(partial._fd)
    working.end()
    assert partial._fd == partial._directory == -1
    assert list(contents(tmp_path).values()) == [b"half and half"]


def test_thread_removes_what_shall_not_be_resumed(tmp_path: Path) -> None:
    with partial_in(tmp_path) as partial:
        working = Working(partial)
        partial.resumable = False
    assert names(tmp_path)
    working.end()
    assert not names(tmp_path)


def test_what_a_thread_still_works_on_stays_locked(tmp_path: Path) -> None:
    with partial_in(tmp_path) as partial:
        working = Working(partial)
    with partial_in(tmp_path) as another:
        assert another.size == 0
    working.end()
    with partial_in(tmp_path) as another:
        assert another.size == len(b"half and half")


def test_thread_that_comes_late_finds_it_closed(tmp_path: Path, fails: Fails) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"half")
    with fails(Code.INTERRUPTED):
        fill(partial, b"late")
    assert list(contents(tmp_path).values()) == [b"half"]


def test_closing_ends_the_reading_of_what_had_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    _interrupt(tmp_path, bytes(3 * BLOCK))
    reads, real = 0, Digest.update_from
    at = os.open(tmp_path, os.O_RDONLY)
    partial = open_partial(at, "bob", "a")
    os.close(at)

    def update_from(digest: Digest, fd: int, offset: int, size: int) -> None:
        nonlocal reads
        reads += 1
        partial.close()
        real(digest, fd, offset, size)

    monkeypatch.setattr(Digest, "update_from", update_from)
    with fails(Code.INTERRUPTED):
        partial.begin("sha256")
    assert reads == 1
    assert partial._fd == -1
    assert list(contents(tmp_path).values()) == [bytes(3 * BLOCK)]


def test_who_leaves_does_not_wait_for_a_thread_that_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncing, go_on, real = threading.Event(), threading.Event(), os.fsync

    def fsync(fd: int) -> None:
        syncing.set()
        assert go_on.wait(10)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with partial_in(tmp_path) as partial:
        fill(partial, b"whole")
        publishing = threading.Thread(target=partial.publish)
        publishing.start()
        assert syncing.wait(10)
    assert "a" not in names(tmp_path)
    go_on.set()
    publishing.join()
    assert contents(tmp_path) == {"a": b"whole"}


def test_whole_file_stays_if_its_user_leaves_while_another_program_publishes(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with partial_in(tmp_path) as partial:
        fill(partial, b"whole")
        left = only_name(tmp_path)
        errors: list[TransferError] = []
        waits, real = threading.Event(), fcntl.flock

        def publish() -> None:
            try:
                partial.publish()
            except TransferError as error:
                errors.append(error)

        def flock(fd: int, operation: int) -> None:
            waits.set()
            real(fd, operation)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fcntl, "flock", flock)
            publishing = threading.Thread(target=publish)
            publishing.start()
            assert waits.wait(10)
    publishing.join()
    os.close(other)
    assert [error.code for error in errors] == [Code.INTERRUPTED]
    assert contents(tmp_path) == {left: b"whole"}


# --- what the disk refuses --------------------------------------------------------------------


def _opened_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_row_10_directory_that_becomes_read_only_meanwhile(
    tmp_path: Path, unprivileged: Unprivileged, fails: Fails
) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"new")
        tmp_path.chmod(0o555)
        with unprivileged(), fails(Code.DISK):
            partial.publish()
        tmp_path.chmod(0o755)
    assert not names(tmp_path)


def test_row_10_directory_that_is_removed_meanwhile(tmp_path: Path, fails: Fails) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with partial_in(home) as partial:
        (home / only_name(home)).unlink()
        home.rmdir()
        fill(partial, b"new")
        with fails(Code.DISK):
            partial.publish()
    assert not names(tmp_path)


def test_row_10_partial_that_is_removed_meanwhile(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with partial_in(tmp_path) as partial:
        fill(partial, b"new")
        next(path for path in tmp_path.iterdir() if path.name != "a").unlink()
        with fails(Code.DISK):
            partial.publish()
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("call", ["pwrite", "fsync", "fchmod", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("had", [b"", b"had"], ids=["new", "resumed"])
def test_row_10_refusal_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails, call: str, number: int, had: bytes
) -> None:
    if had:
        _interrupt(tmp_path, had)
    monkeypatch.setattr(os, call, _refusing(number))
    with fails(Code.DISK):
        _receive(tmp_path, "a", b"new")
    assert not names(tmp_path)


def test_row_10_refusal_of_the_disk_is_not_taken_for_one_of_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    def receive(write: Callable[[memoryview], None]) -> None:
        try:
            write(memoryview(b"new"))
        except OSError:
            raise TransferError(Code.INTERRUPTED) from None

    monkeypatch.setattr(os, "pwrite", _refusing(errno.ENOSPC))
    with partial_in(tmp_path) as partial, fails(Code.DISK):
        partial.fill(receive)
    assert not names(tmp_path)


def test_row_10_what_does_not_fit_is_refused_at_once(tmp_path: Path, fails: Fails) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"had")
        partial.check_room(0)
        partial.check_room(1)
        with fails(Code.DISK):
            partial.check_room(2**62)
    assert not names(tmp_path)


def test_row_10_room_is_that_for_somebody_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = types.SimpleNamespace(f_bavail=10, f_bfree=1000, f_frsize=512, f_bsize=4096)
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: disk)
    with partial_in(tmp_path) as partial:
        partial.check_room(10 * 512)
        with pytest.raises(TransferError, match="no space left on device"):
            partial.check_room(10 * 512 + 1)


def test_row_10_nothing_is_reserved(tmp_path: Path) -> None:
    with partial_in(tmp_path) as partial:
        partial.check_room(10_000_000)
        assert (tmp_path / only_name(tmp_path)).stat().st_blocks == 0


def test_row_10_refused_opening_is_no_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    at, real = os.open(tmp_path, os.O_RDONLY), os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path != ".":
            raise OSError(errno.ENOSPC, "")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    before = _opened_descriptors()
    for _ in range(20):
        with fails(Code.DISK):
            open_partial(at, "bob", "a")
    assert _opened_descriptors() == before
    os.close(at)


RECEIVE_TOO_MUCH = """
import os, sys
from pathlib import Path
from greenchat.errors import TransferError
from transfer.ends import fill, partial_in
into = Path(sys.argv[1])
try:
    with partial_in(into) as partial:
        for _ in range(10):
            fill(partial, bytes(50_000))
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


def test_a_directory_that_another_program_keeps_locked_is_an_error(
    tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenchat.transfer.publish.LOCK_SECONDS", 0.01)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with partial_in(tmp_path) as partial:
        fill(partial, b"whole")
        with fails(Code.DISK):
            partial.publish()
    os.close(other)
