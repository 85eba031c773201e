import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenchat.protocol.limits import CHUNK
from greenchat.transfer.digest import ALGORITHM, Digest

EMPTY = hashlib.sha256().hexdigest()


@pytest.fixture
def two_chunks(tmp_path: Path) -> Iterator[int]:
    file = tmp_path / "two"
    file.write_bytes(b"a" * CHUNK + b"b" * CHUNK)
    fd = os.open(file, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_algorithm_is_one_that_others_know() -> None:
    assert hashlib.new(ALGORITHM, b"x").hexdigest() == hashlib.sha256(b"x").hexdigest()


@given(pieces=st.lists(st.binary(max_size=64)))
def test_digest_of_pieces_is_that_of_the_whole(pieces: list[bytes]) -> None:
    digest = Digest()
    for piece in pieces:
        digest.update(memoryview(piece))
    assert digest.hex() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_digest_goes_on_after_it_was_looked_at() -> None:
    digest = Digest()
    assert digest.hex() == EMPTY
    digest.update(b"more")
    assert digest.hex() == hashlib.sha256(b"more").hexdigest()


def _of_file(fd: int, offset: int, size: int) -> str:
    digest = Digest()
    digest.update_from(fd, offset, size)
    return digest.hex()


@given(
    data=st.binary(max_size=300),
    offset=st.integers(min_value=0, max_value=300),
    size=st.integers(min_value=0, max_value=300),
)
def test_digest_of_a_stretch_of_a_file(data: bytes, offset: int, size: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        assert _of_file(file.fileno(), offset, size) == hashlib.sha256(data[offset : offset + size]).hexdigest()


@pytest.mark.parametrize("beyond", [-1, 0, 1], ids=["a byte less", "exact", "a byte more"])
def test_digest_of_a_file_around_a_chunk(two_chunks: int, beyond: int) -> None:
    expected = hashlib.sha256((b"a" * CHUNK + b"b" * CHUNK)[: CHUNK + beyond])
    assert _of_file(two_chunks, 0, CHUNK + beyond) == expected.hexdigest()


def test_digest_of_stretches_is_that_of_the_whole(two_chunks: int) -> None:
    digest = Digest()
    digest.update(b"before")
    for offset in range(0, 2 * CHUNK, CHUNK // 2):
        digest.update_from(two_chunks, offset, CHUNK // 2)
    assert digest.hex() == hashlib.sha256(b"before" + b"a" * CHUNK + b"b" * CHUNK).hexdigest()


def test_row_15_digest_of_a_file_that_became_shorter_is_of_what_is_left(two_chunks: int) -> None:
    assert _of_file(two_chunks, CHUNK, CHUNK + 7) == hashlib.sha256(b"b" * CHUNK).hexdigest()


def test_row_16_digest_of_nothing(two_chunks: int) -> None:
    assert _of_file(two_chunks, 0, 0) == EMPTY


def test_row_19_size_is_not_allocated(two_chunks: int) -> None:
    assert _of_file(two_chunks, 0, 2**63 - 1) == hashlib.sha256(b"a" * CHUNK + b"b" * CHUNK).hexdigest()


def test_digest_does_not_disturb_another_reader(two_chunks: int) -> None:
    os.lseek(two_chunks, CHUNK, os.SEEK_SET)
    _of_file(two_chunks, 0, CHUNK)
    assert os.lseek(two_chunks, 0, os.SEEK_CUR) == CHUNK


def test_digest_of_what_comes_in_small_pieces(two_chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:3]], offset))
    assert _of_file(two_chunks, CHUNK - 5, 10) == hashlib.sha256(b"aaaaabbbbb").hexdigest()


def test_digest_of_what_cannot_be_read_is_another(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    assert _of_file(directory, 0, 10) == EMPTY
    os.close(directory)
