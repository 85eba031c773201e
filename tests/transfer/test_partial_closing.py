"""A partial that is closed, perhaps while a thread still works on it."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from transfer.ends import before_each_digest
from transfer.files import (
    Fails,
    contents,
    fill,
    interrupt,
    locked_by_another,
    names,
    only_content,
    only_name,
    partial_in,
)

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import BLOCK
from greenchat.transfer.partial import Partial, open_partial


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
        self._busy, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=partial.fill, args=(self._receive,))
        self._thread.start()
        assert self._busy.wait(10)

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
    assert only_content(tmp_path) == b"half and half"


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
    assert only_content(tmp_path) == b"half"


def test_closing_ends_the_reading_of_what_had_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    interrupt(tmp_path, bytes(3 * BLOCK))
    read: list[tuple[int, int]] = []
    at = os.open(tmp_path, os.O_RDONLY)
    partial = open_partial(at, "bob", "a")
    os.close(at)

    def close(offset: int, size: int) -> None:
        read.append((offset, size))
        partial.close()

    before_each_digest(monkeypatch, close)
    with fails(Code.INTERRUPTED):
        partial.begin("sha256")
    assert len(read) == 1
    assert partial._fd == -1
    assert only_content(tmp_path) == bytes(3 * BLOCK)


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
    with locked_by_another(tmp_path):
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
    assert [error.code for error in errors] == [Code.INTERRUPTED]
    assert contents(tmp_path) == {left: b"whole"}
