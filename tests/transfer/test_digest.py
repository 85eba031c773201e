import hashlib
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer.files import Fails

from greenchat.errors import Code
from greenchat.protocol.limits import BLOCK, MAX_ALGORITHM_NAME, MAX_ALGORITHMS
from greenchat.transfer import digest as digest_module
from greenchat.transfer.digest import ALGORITHMS, Digest, choose

EMPTY = hashlib.sha256().hexdigest()
EACH = pytest.mark.parametrize("algorithm", ALGORITHMS)


@pytest.fixture
def two_blocks(tmp_path: Path) -> Iterator[int]:
    file = tmp_path / "two"
    file.write_bytes(b"a" * BLOCK + b"b" * BLOCK)
    fd = os.open(file, os.O_RDONLY)
    yield fd
    os.close(fd)


# --- which ------------------------------------------------------------------------------------


def test_sha256_is_always_there_and_one_that_others_know() -> None:
    digest = Digest("sha256")
    digest.update(b"x")
    assert digest.hex() == hashlib.sha256(b"x").hexdigest()
    assert ALGORITHMS[-1] == "sha256"


def test_blake3_is_the_one_that_others_know_and_is_liked_best() -> None:
    pytest.importorskip("blake3")
    digest = Digest("blake3")
    digest.update(b"")
    # the first of the test vectors that the authors of BLAKE3 publish
    assert digest.hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert ALGORITHMS[0] == "blake3"


@EACH
def test_digest_knows_its_algorithm(algorithm: str) -> None:
    assert Digest(algorithm).algorithm == algorithm


def test_algorithms_fit_into_a_record() -> None:
    assert len(ALGORITHMS) <= MAX_ALGORITHMS
    assert all(len(name) <= MAX_ALGORITHM_NAME for name in ALGORITHMS)


@pytest.mark.parametrize(
    ("mine", "theirs", "chosen"),
    [
        (("blake3", "sha256"), ("blake3", "sha256"), "blake3"),
        (("blake3", "sha256"), ("sha256", "blake3"), "blake3"),
        (("blake3", "sha256"), ("sha256",), "sha256"),
        (("sha256",), ("blake3", "sha256"), "sha256"),
        (("blake3", "sha256"), ("md5", "blake3"), "blake3"),
        (("sha256",), ("sha256", "sha256"), "sha256"),
    ],
)
def test_best_common_algorithm_is_chosen(
    mine: tuple[str, ...], theirs: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "ALGORITHMS", mine)
    assert choose(theirs) == chosen


@pytest.mark.parametrize("theirs", [(), ("md5",), ("SHA256", "sha-256", ""), ("blake3",)])
def test_nothing_in_common_is_an_error(theirs: tuple[str, ...], fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "ALGORITHMS", ("sha256",))
    with fails(Code.BAD_VERSION):
        choose(theirs)


@EACH
def test_whatever_is_chosen_can_be_computed(algorithm: str) -> None:
    assert Digest(choose([algorithm])).algorithm == algorithm


# --- of what ----------------------------------------------------------------------------------


@EACH
@given(pieces=st.lists(st.binary(max_size=64)))
def test_digest_of_pieces_is_that_of_the_whole(algorithm: str, pieces: list[bytes]) -> None:
    digest, whole = Digest(algorithm), Digest(algorithm)
    for piece in pieces:
        digest.update(memoryview(piece))
    whole.update(b"".join(pieces))
    assert digest.hex() == whole.hex()


@EACH
def test_digest_is_lower_case_hexadecimal_of_32_bytes(algorithm: str) -> None:
    digest = Digest(algorithm).hex()
    assert len(digest) == 64
    assert set(digest) <= set("0123456789abcdef")


@EACH
def test_digest_goes_on_after_it_was_looked_at(algorithm: str) -> None:
    digest, fresh = Digest(algorithm), Digest(algorithm)
    assert digest.hex() == fresh.hex()
    digest.update(b"more")
    fresh.update(b"more")
    assert digest.hex() == fresh.hex()


@EACH
def test_one_flipped_bit_makes_another_digest(algorithm: str) -> None:
    data = bytearray(random.Random(0).randbytes(10_000))
    before, after = Digest(algorithm), Digest(algorithm)
    before.update(bytes(data))
    data[5_000] ^= 1
    after.update(bytes(data))
    assert before.hex() != after.hex()


def _of_file(fd: int, offset: int, size: int) -> str:
    digest = Digest("sha256")
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
def test_digest_of_a_file_around_a_block(two_blocks: int, beyond: int) -> None:
    expected = hashlib.sha256((b"a" * BLOCK + b"b" * BLOCK)[: BLOCK + beyond])
    assert _of_file(two_blocks, 0, BLOCK + beyond) == expected.hexdigest()


def test_digest_of_stretches_is_that_of_the_whole(two_blocks: int) -> None:
    digest = Digest("sha256")
    digest.update(b"before")
    for offset in range(0, 2 * BLOCK, BLOCK // 2):
        digest.update_from(two_blocks, offset, BLOCK // 2)
    assert digest.hex() == hashlib.sha256(b"before" + b"a" * BLOCK + b"b" * BLOCK).hexdigest()


def test_row_15_digest_of_a_file_that_became_shorter_is_of_what_is_left(two_blocks: int) -> None:
    assert _of_file(two_blocks, BLOCK, BLOCK + 7) == hashlib.sha256(b"b" * BLOCK).hexdigest()


def test_row_16_digest_of_nothing(two_blocks: int) -> None:
    assert _of_file(two_blocks, 0, 0) == EMPTY


def test_row_19_size_is_not_allocated(two_blocks: int) -> None:
    assert _of_file(two_blocks, 0, 2**63 - 1) == hashlib.sha256(b"a" * BLOCK + b"b" * BLOCK).hexdigest()


def test_digest_does_not_disturb_another_reader(two_blocks: int) -> None:
    os.lseek(two_blocks, BLOCK, os.SEEK_SET)
    _of_file(two_blocks, 0, BLOCK)
    assert os.lseek(two_blocks, 0, os.SEEK_CUR) == BLOCK


def test_digest_of_what_comes_in_small_pieces(two_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:3]], offset))
    assert _of_file(two_blocks, BLOCK - 5, 10) == hashlib.sha256(b"aaaaabbbbb").hexdigest()


def test_digest_of_what_cannot_be_read_is_another(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    assert _of_file(directory, 0, 10) == EMPTY
    os.close(directory)
