"""Whose file it is that is found under a partial's name."""

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import _open_descriptors
from transfer.files import (
    Fails,
    Unprivileged,
    contents,
    environment,
    fill,
    interrupt,
    names,
    only_content,
    only_name,
    partial_in,
    refusing,
    sha256,
)

from greenchat.errors import Code
from greenchat.transfer import partial as partial_module
from greenchat.transfer.partial import Partial, open_partial

# --- other processes --------------------------------------------------------------------------


LEAVE_IT_OPEN = """
import sys, time
from pathlib import Path
from transfer.files import fill, partial_in
with partial_in(Path(sys.argv[1])) as partial:
    fill(partial, b"half")
    print("open", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def _open_elsewhere(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the partial open, with half of the file; it is killed in the end."""
    command = [sys.executable, "-c", LEAVE_IT_OPEN, str(directory)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_row_33_what_a_killed_process_had_is_found_again(tmp_path: Path) -> None:
    with _open_elsewhere(tmp_path) as process:
        left = only_name(tmp_path)
        process.kill()
        process.wait()
        assert contents(tmp_path) == {left: b"half"}
        with partial_in(tmp_path) as partial:
            assert partial.begin("sha256") == sha256(b"half")
            fill(partial, b" and half")
            partial.publish()
    assert contents(tmp_path) == {"a": b"half and half"}


def test_row_05_two_processes_never_share_a_file(tmp_path: Path) -> None:
    with _open_elsewhere(tmp_path):
        theirs = only_name(tmp_path)
        with partial_in(tmp_path) as partial:
            assert partial.size == 0
            fill(partial, b"mine")
            assert (tmp_path / theirs).read_bytes() == b"half"
            partial.publish()
        assert contents(tmp_path) == {"a": b"mine", theirs: b"half"}


ALSO_OPEN = """
import os, sys
from pathlib import Path
from transfer.files import fill, partial_in
ready, go = int(sys.argv[2]), int(sys.argv[3])
os.write(ready, b"x")
os.read(go, 1)
with partial_in(Path(sys.argv[1])) as partial:
    for _ in range(100):
        fill(partial, sys.argv[4].encode() * 10)
    partial.publish()
"""


def test_row_05_processes_that_begin_at_once_never_share_a_file(tmp_path: Path) -> None:
    (was_ready, ready), (go, start) = os.pipe(), os.pipe()
    many = [
        subprocess.Popen(
            [sys.executable, "-c", ALSO_OPEN, str(tmp_path), str(ready), str(go), letter],
            env=environment(),
            pass_fds=(ready, go),
        )
        for letter in "wxyz"
    ]
    for _ in many:
        os.read(was_ready, 1)
    os.write(start, b"4444")
    assert [process.wait() for process in many] == [0] * 4
    assert sorted(contents(tmp_path).values()) == [letter.encode() * 1000 for letter in "wxyz"]
    for fd in (was_ready, ready, go, start):
        os.close(fd)


# --- two at once ------------------------------------------------------------------------------


def test_row_05_each_of_many_openings_has_a_file_of_its_own(tmp_path: Path) -> None:
    with partial_in(tmp_path), partial_in(tmp_path), partial_in(tmp_path):
        assert len(names(tmp_path)) == 3


def test_row_05_only_the_one_that_is_found_again_stays(tmp_path: Path) -> None:
    with partial_in(tmp_path) as first:
        fill(first, b"first")
        with partial_in(tmp_path) as second:
            fill(second, b"second")
            assert first.resumable
            assert not second.resumable
    assert only_content(tmp_path) == b"first"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("a.txt", "A.TXT", id="case"),
        pytest.param("\u00e9", "e\u0301", id="Unicode form"),
        pytest.param("a", "b", id="nothing alike"),
    ],
)
def test_row_05_twins_are_not_mixed(tmp_path: Path, one: str, other: str) -> None:
    with partial_in(tmp_path, one) as first, partial_in(tmp_path, other) as second:
        for _ in range(3):
            fill(first, b"one")
            fill(second, b"other")
        first.publish()
        second.publish()
    assert sorted(contents(tmp_path).values()) == [b"one" * 3, b"other" * 3]


def test_row_05_two_downloads_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    with partial_in(tmp_path) as first, partial_in(tmp_path) as second:
        fill(first, b"fir")
        fill(second, b"sec")
        fill(first, b"st")
        fill(second, b"ond")
        second.publish()
        assert first.publish().backup == "a.~1~"
    assert contents(tmp_path) == {"a": b"first", "a.~1~": b"second"}


def test_row_05_two_downloads_of_the_same_content_make_one_file(tmp_path: Path) -> None:
    with partial_in(tmp_path) as first, partial_in(tmp_path) as second:
        fill(first, b"same")
        fill(second, b"same")
        assert not first.publish().unchanged
        assert second.publish().unchanged
    assert contents(tmp_path) == {"a": b"same"}


def _reopening(
    directory: Path, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object], *, exists: bool = True
) -> Partial:
    """Open a partial; the moment it is open, and not locked yet, this happens."""
    real, calls = fcntl.flock, itertools.count()

    def flock(fd: int, operation: int) -> None:
        if next(calls) == exists:  # then the first is by who looks whether it is published
            monkeypatch.setattr(fcntl, "flock", real)
            happens()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    at = os.open(directory, os.O_RDONLY)
    try:
        return open_partial(at, "bob", "a")
    finally:
        os.close(at)


@pytest.mark.parametrize("existing", [{}, {"a": b"old"}], ids=["linked", "renamed"])
def test_row_05_what_is_published_between_opening_and_locking_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: dict[str, bytes]
) -> None:
    for name, content in existing.items():
        (tmp_path / name).write_bytes(content)

    with partial_in(tmp_path) as first:
        fill(first, b"whole")

        def publish() -> None:
            first.publish()
            first.close()

        with closing(_reopening(tmp_path, monkeypatch, publish)) as second:
            assert (second.size, second.resumable) == (0, False)
            second.begin("sha256")
            fill(second, b"mine")
            second.restart()
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert not any(name.startswith(".") for name in names(tmp_path))


def test_row_05_partial_that_another_begins_while_one_is_closed_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with partial_in(tmp_path) as first:
        fill(first, b"whole")
        first.publish()  # by renaming, so that the hidden name is free
        with partial_in(tmp_path) as second:
            fill(second, b"mine")
            first.close()
            assert b"mine" in contents(tmp_path).values()
            second.publish()
    assert contents(tmp_path) == {"a": b"mine", "a.~1~": b"old", "a.~2~": b"whole"}


def test_row_05_what_gets_a_second_name_between_opening_and_locking_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / interrupt(tmp_path, b"whole")
    with closing(_reopening(tmp_path, monkeypatch, lambda: (tmp_path / "a").hardlink_to(hidden))) as partial:
        assert partial.size == 0
    assert contents(tmp_path) == {"a": b"whole", hidden.name: b"whole"}


def test_row_05_what_is_exchanged_between_opening_and_locking_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: Path
) -> None:
    hidden = tmp_path / interrupt(tmp_path, b"half")

    def exchange() -> None:
        hidden.rename(tmp_path / "elsewhere")
        hidden.symlink_to(outside)

    with closing(_reopening(tmp_path, monkeypatch, exchange)) as partial:
        partial.begin("sha256")
        fill(partial, b"mine")
    assert (tmp_path / "elsewhere").read_bytes() == b"half"
    assert outside.read_bytes() == b"precious"


def test_row_05_new_one_that_another_finds_first_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[Partial] = []

    def another_opens_it() -> None:
        others.append(_reopening(tmp_path, monkeypatch, lambda: None))

    with (
        closing(_reopening(tmp_path, monkeypatch, another_opens_it, exists=False)) as mine,
        closing(others[0]) as theirs,
    ):
        assert theirs.resumable
        assert not mine.resumable
        for partial, content in ((mine, b"mine"), (theirs, b"theirs")):
            partial.begin("sha256")
            fill(partial, content)
        assert sorted(contents(tmp_path).values()) == [b"mine", b"theirs"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def test_without_locks_nothing_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(partial_module, "_lock", refusing(number))
    with partial_in(tmp_path) as first, partial_in(tmp_path) as second:
        fill(first, b"first")
        fill(second, b"second")
        assert sorted(contents(tmp_path).values()) == [b"first", b"second"]
    with partial_in(tmp_path) as third:
        assert third.size == 0


# --- planted ----------------------------------------------------------------------------------


def _hidden_name(directory: Path) -> Path:
    """Under which the partial of *a* will be looked for."""
    with partial_in(directory):
        return directory / only_name(directory)


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize(
    "kind", ["link", "link to nothing", "link to itself", "FIFO", "directory", "hard link", "group", "everybody"]
)
def test_row_07_what_is_planted_is_neither_written_nor_followed_nor_removed(
    tmp_path: Path, outside: Path, kind: str
) -> None:
    hidden = _hidden_name(tmp_path)
    match kind:
        case "link":
            hidden.symlink_to(outside)
        case "link to nothing":
            hidden.symlink_to(outside.parent / "new")
        case "link to itself":
            hidden.symlink_to(hidden)
        case "FIFO":
            os.mkfifo(hidden)
        case "directory":
            hidden.mkdir()
        case "hard link":
            hidden.hardlink_to(outside)
        case "group":
            hidden.write_bytes(b"planted")
            hidden.chmod(0o620)
        case "everybody":
            hidden.write_bytes(b"planted")
            hidden.chmod(0o602)
    before = hidden.lstat()
    with partial_in(tmp_path) as partial:
        assert partial.size == 0
        assert not partial.resumable
        fill(partial, b"new")
        partial.publish()
    after = hidden.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == sorted(["a", hidden.name])
    assert contents(outside.parent) == {"target": b"precious"}


def test_row_07_planted_link_is_not_even_opened(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hidden_name(tmp_path).symlink_to(outside)
    locked: list[str] = []
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        locked.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with partial_in(tmp_path):
        assert locked
        assert str(outside) not in locked


def test_row_07_file_of_somebody_else_is_not_written(tmp_path: Path, unprivileged: Unprivileged) -> None:
    if os.geteuid():
        pytest.skip("only a superuser can give files away")
    hidden = _hidden_name(tmp_path)
    hidden.write_bytes(b"planted")
    os.chown(hidden, 1234, 1234)
    with partial_in(tmp_path) as partial:
        assert partial.size == 0
        fill(partial, b"new")
        partial.publish()
    assert contents(tmp_path) == {"a": b"new", hidden.name: b"planted"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only a superuser can make devices")
def test_row_07_device_is_not_written(tmp_path: Path) -> None:
    hidden = _hidden_name(tmp_path)
    try:
        os.mknod(hidden, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no devices may be made here")
    with partial_in(tmp_path) as partial:
        assert not partial.resumable
        fill(partial, b"new")
        partial.publish()
    assert stat.S_ISCHR(hidden.lstat().st_mode)
    assert (tmp_path / "a").read_bytes() == b"new"


def test_row_07_what_is_planted_and_cannot_be_told_apart_has_to_be_the_start_of_the_file(tmp_path: Path) -> None:
    hidden = _hidden_name(tmp_path)
    hidden.write_bytes(b"evil")
    hidden.chmod(0o600)
    with partial_in(tmp_path) as partial:  # as it is ours, it is claimed, and so the owner is asked about its digest
        assert partial.begin("sha256") == sha256(b"evil")


def test_row_07_names_that_cannot_be_foreseen_are_never_used_twice(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: "ab" * size)
    planted = tmp_path / f".greenchat-{'ab' * 16}.part"
    planted.symlink_to(outside.parent / "new")
    with partial_in(tmp_path), fails(Code.DISK), partial_in(tmp_path):
        pass
    assert names(tmp_path) == [planted.name]
    assert not (outside.parent / "new").exists()


def test_row_07_planted_ones_are_no_leak(tmp_path: Path) -> None:
    os.mkfifo(_hidden_name(tmp_path))
    before = len(_open_descriptors())
    for _ in range(20):
        with partial_in(tmp_path):
            pass
    assert len(_open_descriptors()) == before


def test_second_name_of_a_published_file_is_not_taken_for_a_part_of_it(tmp_path: Path) -> None:
    hidden = interrupt(tmp_path, b"whole")
    (tmp_path / "a").hardlink_to(tmp_path / hidden)  # killed right after it was published
    with partial_in(tmp_path) as partial:
        assert (partial.size, partial.resumable) == (0, True)
        fill(partial, b"ne")
    assert contents(tmp_path) == {"a": b"whole", hidden: b"ne"}
