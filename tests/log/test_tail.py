import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenchat.log.log import Entry
from greenchat.log.tail import Memory, Tail
from greenchat.protocol.limits import CATCH_UP_SIZE, MAX_TAIL, MAX_TAILS, TAIL_LINES


def entry(position: int, *lines: bytes, origin: str = "ann") -> Entry:
    return Entry(position, len(lines), b"".join(line + b"\n" for line in lines), origin, 0)


def filled(*sizes: int) -> tuple[Tail, bytes]:
    """A tail with entries of so many lines each, and all that was added."""
    tail, position, everything = Tail(Memory()), 0, b""
    for size in sizes:
        lines = [b"%d" % number for number in range(position, position + size)]
        position += size
        tail.add(entry(position, *lines))
        everything += b"".join(line + b"\n" for line in lines)
    return tail, everything


def read_all(tail: Tail, position: int, end: int) -> bytes:
    told = b""
    while position < end:
        entries = tail.read(position)
        assert entries[0].position - entries[0].lines == position
        told += b"".join(each.block for each in entries)
        position = entries[-1].position
    return told


@pytest.mark.parametrize(("position", "left"), [(0, b"a\n\nb\n"), (1, b"\nb\n"), (2, b"b\n")])
def test_entry_is_cut_after_a_position(position: int, left: bytes) -> None:
    cut = entry(3, b"a", b"", b"b").after(position)
    assert (cut.block, cut.lines, cut.position) == (left, 3 - position, 3)


@given(st.lists(st.integers(1, 5), max_size=20), st.integers(0, 100))
def test_what_comes_after_a_position_is_all_of_it(sizes: list[int], position: int) -> None:
    tail, everything = filled(*sizes)
    position = min(position, sum(sizes))
    lines = everything.split(b"\n")[position:-1]
    assert read_all(tail, position, sum(sizes)) == b"".join(line + b"\n" for line in lines)


def test_tail_keeps_the_last_lines_and_knows_where_they_begin() -> None:
    tail, everything = filled(*[3] * TAIL_LINES)
    assert 2 * TAIL_LINES - 3 <= tail.begin <= 2 * TAIL_LINES
    lines = everything.split(b"\n")[tail.begin : -1]
    assert read_all(tail, tail.begin, 3 * TAIL_LINES) == b"".join(line + b"\n" for line in lines)


def test_tail_is_bounded_in_bytes() -> None:
    tail = Tail(Memory())
    for number in range(100):
        tail.add(entry(number + 1, b"x" * 100_000))
    assert tail.begin == 100 - MAX_TAIL // 100_001
    assert sum(len(each.block) for each in tail._entries) <= MAX_TAIL


def test_much_is_read_in_parts() -> None:
    tail = Tail(Memory())
    for number in range(10):
        tail.add(entry(number + 1, b"x" * (CATCH_UP_SIZE // 2)))
    assert [each.position for each in tail.read(3)] == [4, 5]


def test_many_logs_share_what_one_may_keep() -> None:
    memory = Memory()
    others = [Tail(memory) for _ in range(4 * MAX_TAILS // MAX_TAIL - 1)]
    tail = Tail(memory)
    for number in range(100):
        tail.add(entry(number + 1, b"x" * 100_000))
    assert tail._size <= MAX_TAIL // 4
    assert tail.read(99)[-1].position == 100
    others.clear()
    assert memory.tail == MAX_TAIL


def test_entry_that_is_larger_than_all_that_may_be_kept_is_forgotten() -> None:
    tail = Tail(Memory())
    tail.add(entry(1, b"x" * MAX_TAIL))
    assert (tail.begin, tail.read(1)) == (1, [])
