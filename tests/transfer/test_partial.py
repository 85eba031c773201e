"""What there is of a file: in the making, and to be resumed."""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.files import LONGEST, Fails, contents, fill, interrupt, names, only_content, only_name, partial_in, sha256

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import BLOCK
from greenchat.transfer.digest import ALGORITHMS, Digest
from greenchat.transfer.partial import PARTIAL_NAME
from greenchat.transfer.publish import Published


def _receive(directory: Path, name: str, content: bytes) -> Published:
    with partial_in(directory, name) as partial:
        fill(partial, content)
        return partial.publish()


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
    left = interrupt(tmp_path, b"half")
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
    interrupt(tmp_path, b"half")
    with partial_in(tmp_path, name, owner=owner) as partial:
        assert partial.size == 0


def test_nothing_that_came_leaves_nothing(tmp_path: Path) -> None:
    with partial_in(tmp_path):
        pass
    assert not names(tmp_path)


def _lose_the_connection(write: Callable[[memoryview], None]) -> None:
    write(memoryview(b"half"))
    raise TransferError(Code.INTERRUPTED)


def test_what_came_stays_after_an_error(tmp_path: Path) -> None:
    with contextlib.suppress(TransferError), partial_in(tmp_path) as partial:
        partial.fill(_lose_the_connection)
    assert only_content(tmp_path) == b"half"


def test_same_partial_goes_on_after_an_error(tmp_path: Path, fails: Fails) -> None:
    with partial_in(tmp_path) as partial:
        with fails(Code.INTERRUPTED):
            partial.fill(_lose_the_connection)
        assert partial.begin("sha256") == sha256(b"half")
        fill(partial, b" and half")
        assert partial.digest() == sha256(b"half and half")


def test_what_shall_not_be_resumed_is_removed(tmp_path: Path) -> None:
    interrupt(tmp_path, b"half")
    with partial_in(tmp_path) as partial:
        partial.resumable = False
    assert not names(tmp_path)


def test_old_file_is_none_the_worse_for_an_interrupted_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    interrupt(tmp_path, b"half")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_what_had_come_is_read_from_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(tmp_path, b"half")
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
    interrupt(tmp_path, b"half")
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
    interrupt(tmp_path, content)
    with partial_in(tmp_path) as partial:
        assert partial.begin("sha256") == sha256(content)


def test_another_content_starts_again(tmp_path: Path) -> None:
    interrupt(tmp_path, b"old and longer")
    with partial_in(tmp_path) as partial:
        partial.restart()
        assert (partial.size, partial.digest()) == (0, sha256(b""))
        fill(partial, b"new")
        assert partial.digest() == sha256(b"new")
        partial.publish()
    assert contents(tmp_path) == {"a": b"new"}


def test_what_was_started_again_leaves_nothing_if_nothing_came(tmp_path: Path) -> None:
    interrupt(tmp_path, b"old")
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
    hidden = tmp_path / interrupt(tmp_path, b"start")
    os.truncate(hidden, 2**32 + 5)
    with partial_in(tmp_path) as partial:
        assert partial.size == 2**32 + 5
        fill(partial, b"end")
        assert partial.size == hidden.stat().st_size == 2**32 + 8
        assert os.pread(partial._fd, 10, 2**32 + 3) == b"\0\0end"
