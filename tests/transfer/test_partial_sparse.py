"""Holes in received files."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer.files import fill, only_name, partial_in

from greenchat.protocol.limits import HOLE
from greenchat.transfer.partial import _filled

PIECES = st.lists(st.sampled_from([b"\0", b"x", b"\0" * HOLE, b"\0" * (3 * HOLE), b"x" * HOLE, b"\0" * 17]), max_size=9)


@given(pieces=PIECES, offset=st.integers(0, 10**6))
def test_all_but_holes_is_written_in_its_place(pieces: list[bytes], offset: int) -> None:
    data = b"".join(pieces)
    found = bytearray(len(data))
    end = offset
    for place, part in _filled(memoryview(data), offset):
        assert end <= place
        end = place + len(part)
        found[place - offset : end - offset] = part
    assert found == data


@pytest.mark.parametrize("piece", [HOLE // 3, HOLE, 100_001, 2**21])
def test_sparse_file_stays_sparse(tmp_path: Path, piece: int) -> None:
    filled = random.randbytes(300_000)
    data = filled + bytes(20_000_000) + filled + bytes(5_000_000)
    with partial_in(tmp_path) as partial:
        for begin in range(0, len(data), piece):
            fill(partial, data[begin : begin + piece])
            assert partial.size == (tmp_path / only_name(tmp_path)).stat().st_size
        partial.publish()
    assert (tmp_path / "a").read_bytes() == data
    assert (tmp_path / "a").stat().st_blocks * 512 < 2_000_000


def test_row_10_partial_that_ends_in_a_hole_is_resumed_after_it(tmp_path: Path) -> None:
    with partial_in(tmp_path) as partial:
        fill(partial, b"x" + bytes(10 * HOLE))
    with partial_in(tmp_path) as partial:
        assert partial.size == 1 + 10 * HOLE
        fill(partial, b"y")
        partial.publish()
    assert (tmp_path / "a").read_bytes() == b"x" + bytes(10 * HOLE) + b"y"
    assert (tmp_path / "a").stat().st_blocks * 512 < 10 * HOLE
