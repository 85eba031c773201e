"""What the disk refuses while a file is received."""

import contextlib
import errno
import os
import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import _open_descriptors
from transfer.files import (
    Child,
    Fails,
    Unprivileged,
    fill,
    interrupt,
    locked_by_another,
    names,
    only_name,
    partial_in,
    refusing,
)

from greenchat.errors import Code, TransferError
from greenchat.transfer import partial as partial_module
from greenchat.transfer.partial import open_partial

# --- what is brought to the disk while more comes ---------------------------------------------


def test_disk_gets_what_has_come_while_more_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, offset, size, _advice: begun.append((offset, size)))
    monkeypatch.setattr(partial_module, "WRITTEN_BEHIND", 10)
    with partial_in(tmp_path) as partial:
        for size in (4, 5, 6, 3, 20):
            fill(partial, bytes(size))
    assert begun == [(0, 15), (15, 23)]


def test_system_that_cannot_do_so_gets_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_module, "WRITTEN_BEHIND", 1)
    monkeypatch.setattr(os, "posix_fadvise", refusing(errno.EINVAL))
    with partial_in(tmp_path) as partial:
        fill(partial, b"new")
        monkeypatch.delattr(os, "posix_fadvise")
        fill(partial, b"er")
        partial.publish()
    assert (tmp_path / "a").read_bytes() == b"newer"


# --- what it refuses --------------------------------------------------------------------------

MAPPED = ("unshare", "--user", "--map-root-user", "--mount")


def test_row_10_directory_that_becomes_read_only_meanwhile(
    tmp_path: Path, unprivileged: Unprivileged, fails: Fails
) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"new")
        tmp_path.chmod(0o555)
        with unprivileged(), fails(Code.DISK):
            partial.publish()
        tmp_path.chmod(0o755)
        hidden = only_name(tmp_path)
    assert names(tmp_path) == [hidden]  # for when it may be written again


def test_row_10_directory_that_is_removed_meanwhile(tmp_path: Path, home: Path, fails: Fails) -> None:
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
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
@pytest.mark.parametrize("had", [b"", b"had"], ids=["new", "resumed"])
def test_row_10_full_disk_keeps_what_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, had: bytes
) -> None:
    if had:
        interrupt(tmp_path, had)
    monkeypatch.setattr(os, call, refusing(number))
    kept = had if call == "pwrite" else had + b"new"

    def receive() -> None:
        with partial_in(tmp_path) as partial:
            fill(partial, b"new")
            partial.publish()

    with pytest.raises(TransferError, match=f"{'; ask again to resume' if kept else ''}$"):
        receive()
    monkeypatch.undo()
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == ([kept] if kept else [])


@pytest.mark.parametrize("call", ["pwrite", "fsync", "fchmod", "link"])
@pytest.mark.parametrize("had", [b"", b"had"], ids=["new", "resumed"])
def test_row_10_broken_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails, call: str, had: bytes
) -> None:
    if had:
        interrupt(tmp_path, had)
    monkeypatch.setattr(os, call, refusing(errno.EIO))
    with fails(Code.DISK), partial_in(tmp_path) as partial:
        fill(partial, b"new")
        partial.publish()
    assert not names(tmp_path)


def test_row_10_refusal_of_the_disk_is_not_taken_for_one_of_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    def receive(write: Callable[[memoryview], None]) -> None:
        try:
            write(memoryview(b"new"))
        except OSError:
            raise TransferError(Code.INTERRUPTED) from None

    monkeypatch.setattr(os, "pwrite", refusing(errno.ENOSPC))
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
        hidden = only_name(tmp_path)
    assert names(tmp_path) == [hidden]  # nothing was written, so what is here stays for when there is room


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
    before = len(_open_descriptors())
    for _ in range(20):
        with fails(Code.DISK):
            open_partial(at, "bob", "a")
    assert len(_open_descriptors()) == before
    os.close(at)


RECEIVE_TOO_MUCH = """
import sys
from pathlib import Path
from greenchat.errors import TransferError
from transfer.files import fill, partial_in
into = Path(sys.argv[1])
try:
    with partial_in(into) as partial:
        for _ in range(10):
            fill(partial, b"x" * 50_000)
        partial.publish()
except TransferError as error:
    print(error.code, error, *(path.stat().st_size for path in into.iterdir()), sep="|", end="")
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))" + RECEIVE_TOO_MUCH
ON_A_FULL_DISK = (
    "import subprocess, sys; subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=128k', 'none', sys.argv[1]])"
    + RECEIVE_TOO_MUCH
)


def test_row_10_of_a_file_larger_than_may_be_as_much_stays_as_may(tmp_path: Path, child: Child) -> None:
    said = child(LIMITED, tmp_path)
    assert said == "disk|the file could not be written here: file too large; ask again to resume|70000"


def _may_mount(directory: Path) -> bool:
    command = [*MAPPED, "mount", "-t", "tmpfs", "none", str(directory)]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    return False


def test_row_10_full_disk(tmp_path: Path, child: Child) -> None:
    if not _may_mount(tmp_path):
        pytest.skip("no file system may be mounted here")
    said = child(ON_A_FULL_DISK, tmp_path, prefix=MAPPED)
    assert said == "disk|the file could not be written here: no space left on device; ask again to resume|131072"


def test_a_directory_that_another_program_keeps_locked_gets_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenchat.transfer.publish.LOCK_SECONDS", 0.01)
    with locked_by_another(tmp_path), partial_in(tmp_path) as partial:
        fill(partial, b"whole")
        partial.publish()


@pytest.mark.parametrize(
    ("number", "left"),
    [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EIO, 0), (errno.EMFILE, 1), (errno.ESTALE, 1)],
)
def test_row_10_only_a_broken_disk_costs_what_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, left: int
) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"had")
        monkeypatch.setattr(os, "fsync", refusing(number))
        with pytest.raises(TransferError):
            partial.publish()
    assert len(names(tmp_path)) == left


def test_row_08_directory_in_the_way_is_told_before_anything_comes(tmp_path: Path, fails: Fails) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"had")
        (tmp_path / "a").mkdir()
        with fails(Code.IN_THE_WAY):
            partial.check_room(1)
        assert partial.resumable
