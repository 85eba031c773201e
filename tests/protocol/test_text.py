import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenchat.protocol.text import MARK, UNSAFE, safe_block, safe_line

PRINTABLE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters=MARK))
NASTY = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"\t", b"\x01", b"\x1b", b"\xc2", b"\x9b", b"\xe2\x80", b"\xae", b"\xff", b"a"]
    )
    | st.sampled_from([MARK.encode(), "\u200b".encode(), b" "])
    | st.binary(max_size=4)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4).map(str.encode)
).map(lambda parts: b"".join(parts) + b"\n")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        pytest.param(b"caf\xe9", "caf\ufffd", id="invalid UTF-8"),
        pytest.param(b"\xe2\x82", "\ufffd", id="character cut short"),
        pytest.param(b"\xc0\xaf", "\ufffd\ufffd", id="overlong form"),
        pytest.param(b"\xed\xa0\x80", "\ufffd\ufffd\ufffd", id="surrogate"),
        pytest.param(b"a\x00b", "a\u2400b", id="NUL"),
        pytest.param(b"\x01{}", "\u2401{}", id="SOH at the start"),
        pytest.param(b"a\x01{}", "a\u2401{}", id="SOH inside"),
        pytest.param(b"\x07\x08", "\u2407\u2408", id="bell, backspace"),
        pytest.param(b"\x0b\x0c", "\u240b\u240c", id="vertical tab, form feed"),
        pytest.param(b"\x1b[31mred\x1b]0;x\x07", "\u241b[31mred\u241b]0;x\u2407", id="ESC"),
        pytest.param(b"\x7f", "\u2421", id="DEL"),
        pytest.param(b"\xc2\x9b31m", "\ufffd31m", id="C1"),
        pytest.param(b"\x9b31m", "\ufffd31m", id="C1 as a bare byte"),
        pytest.param(b"a\xc2\x85b", "a\ufffdb", id="next line"),
        pytest.param("a\u202eb\u2066c\u200fd\u061ce".encode(), "a\ufffdb\ufffdc\ufffdd\ufffde", id="directions"),
        pytest.param("a\u2028b\u2029c".encode(), "a\ufffdb\ufffdc", id="separators"),
        pytest.param(b"bob: hi\rann: hi", "bob: hi\u240dann: hi", id="CR in the middle"),
        pytest.param(b"\rhi", "\u240dhi", id="CR at the start"),
        pytest.param(b"hi\r", "hi", id="CR before LF"),
        pytest.param(b"hi\r\r", "hi\u240d", id="two CR before LF"),
        pytest.param(b"\ta\tb", "\ta\tb", id="tab"),
        pytest.param(b"", "", id="empty"),
    ],
)
def test_row_25_line_is_made_harmless(raw: bytes, shown: str) -> None:
    assert safe_block(raw + b"\n") == shown.encode() + b"\n"


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)], ids=hex)
def test_row_25_control_never_gets_through(code: int) -> None:
    shown = safe_line(chr(code))
    assert len(shown) == 1
    assert shown == "\t" or unicodedata.category(shown) == "So"


@pytest.mark.parametrize(
    "mark", [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"], ids=unicodedata.name
)
def test_row_25_direction_mark_never_gets_through(mark: str) -> None:
    assert safe_line(mark) == "\ufffd"


def test_row_25_line_ends_in_a_single_line_become_visible() -> None:
    assert safe_line("bob\nann: hi\r\n") == "bob\u240aann: hi\u240d\u240a"


@pytest.mark.attack(39)
@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        pytest.param("\u258c sent", "\ufffd sent", id="first"),
        pytest.param("  \t\u258c sent", "  \t\ufffd sent", id="after spaces and a tab"),
        pytest.param("\u00a0\u3000\u2003\u258c sent", "\u00a0\u3000\u2003\ufffd sent", id="after Unicode spaces"),
        pytest.param(
            "\u200b\ufeff\u2800\u258c sent", "\u200b\ufeff\u2800\ufffd sent", id="after what shows as nothing"
        ),
        pytest.param("\u258c\u258c", "\ufffd\u258c", id="twice: one alone is at the start"),
        pytest.param("45%|\u2588\u258c |", "45%|\u2588\u258c |", id="further on: a bar"),
        pytest.param("\u2590 \u258b", "\u2590 \u258b", id="other blocks"),
    ],
)
def test_no_line_begins_with_the_mark_of_the_program(raw: str, shown: str) -> None:
    assert safe_line(raw) == shown
    assert safe_block(f"hi\n{raw}\n{raw}\n".encode()) == f"hi\n{shown}\n{shown}\n".encode()


def test_one_bad_line_leaves_the_others_alone() -> None:
    assert safe_block(b"one\n\xff\ncaf\xc3\xa9\r\n") == "one\n\ufffd\ncaf\u00e9\n".encode()


@given(NASTY)
def test_safe_block_is_utf8_with_nothing_unsafe_in_its_lines(block: bytes) -> None:
    assert not any(map(UNSAFE.search, safe_block(block).decode().split("\n")))


@given(NASTY)
def test_block_is_made_safe_as_its_lines_are(block: bytes) -> None:
    assert safe_block(block) == b"".join(safe_block(line + b"\n") for line in block.split(b"\n")[:-1])


@given(NASTY)
def test_no_reader_finds_other_lines_in_a_safe_block(block: bytes) -> None:
    assert len(safe_block(block).decode().splitlines()) == block.count(b"\n")


@given(NASTY)
@example(b"\r\r\n")
def test_safe_block_keeps_the_number_of_lines(block: bytes) -> None:
    assert safe_block(block).count(b"\n") == block.count(b"\n")


@given(NASTY)
@example(b"\r\r\n")
def test_safe_block_is_idempotent(block: bytes) -> None:
    assert safe_block(safe_block(block)) == safe_block(block)


@given(NASTY)
@example(b"\x00")
def test_safe_block_grows_at_most_threefold(block: bytes) -> None:
    assert len(safe_block(block)) <= 3 * len(block)


@given(st.lists(PRINTABLE))
def test_printable_text_is_left_alone(lines: list[str]) -> None:
    block = "".join(f"{line}\n" for line in lines).encode()
    assert safe_block(block) == block


@given(PRINTABLE)
def test_printable_line_is_left_alone(line: str) -> None:
    assert safe_line(line) == line


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("a\rb")
def test_line_and_block_agree(text: str) -> None:
    line = text.replace("\n", "").rstrip("\r")
    assert safe_block(f"{line}\n".encode()) == f"{safe_line(line)}\n".encode()
