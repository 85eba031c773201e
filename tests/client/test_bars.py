import re
import sys

import pytest
from rich.cells import cell_len

from greenchat.client.bars import bars
from greenchat.client.progress import Draw, Row, plain

ROWS = [
    Row("[bold]big.iso from ann", "83.1 MiB/s", "120.3 of 1,024.0 MiB", "0:11 left", 0.5),
    Row("\u540d" * 80, "0.0 KiB/s", "0.1 of 4.9 KiB", "-:-- left", 0.0),
    Row("e\u0301" * 80, "0.0 KiB/s", "0.0 of 0.0 KiB", "-:-- left", 1.0),
    Row("and 5 more files", "100.0 MiB/s"),
]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Draw:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    drawing = bars()
    assert drawing
    return drawing


def text(line: str) -> str:
    """*line* without its colours, the only escape sequences that may be in it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_rows_have_bars(draw: Draw) -> None:
    first, *_, last = [text(line) for line in draw(ROWS, 80)]
    assert first.startswith("[bold]big.iso from ann  \u2501\u2501\u2501\u2501\u2501")
    assert first.endswith("\u2501  120.3 of 1,024.0 MiB   83.1 MiB/s  0:11 left")
    assert last.split() == ["and", "5", "more", "files", "100.0", "MiB/s"]


@pytest.mark.parametrize("width", [72, 80, 100])
def test_each_row_is_one_line_of_the_width(draw: Draw, width: int) -> None:
    lines = [text(line) for line in draw(ROWS, width)]
    assert [cell_len(line) for line in lines] == [width] * len(ROWS)
    assert not any("\x1b" in line for line in lines)


def test_where_it_is_narrow_names_go_before_bars(draw: Draw) -> None:
    assert draw(ROWS, 71) == plain(ROWS, 71)


def test_colours_are_left_out_where_they_are_not_wanted(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    colourless = bars()
    assert colourless
    assert "\x1b[3" in draw(ROWS, 80)[0]
    assert "\x1b[3" not in colourless(ROWS, 80)[0]


def test_lines_are_short_enough_to_be_written_in_one_piece(draw: Draw) -> None:
    assert len("".join(draw([ROWS[1]] * 4, 100)).encode()) < 1800


def test_without_the_library_there_is_nothing_to_draw_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert bars() is None
