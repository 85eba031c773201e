import os
import termios
from collections.abc import Iterator

import pytest
from conftest import until
from emulator import Emulator

from greenchat.client.console import Output
from greenchat.client.footer import Footer, has_footer
from greenchat.client.menu import MENU
from greenchat.protocol.limits import FOOTER_CELLS, FOOTER_ROWS


class Session:
    """A program that prints to a terminal, and keeps rows of it."""

    def __init__(self) -> None:
        self.terminal = Emulator()
        self.output = Output(lambda fd: pytest.fail(f"descriptor {fd} broke"))
        self.footer = Footer(self.terminal.end, self.output)

    def show(self, *lines: str) -> None:
        """Show them and wait until they are seen."""
        self.footer.show(lines)
        self.settle()

    def print(self, *lines: str) -> None:
        for line in lines:
            self.output.write(self.terminal.end, line)
        self.settle()

    def type(self, text: str, seen: str) -> None:
        """Press keys and wait until the row of the cursor is as it should be *seen*."""
        self.terminal.type(text)
        until(lambda: self.terminal.line == seen)

    def settle(self) -> None:
        """Wait until the terminal has all that was written."""
        self.output.flush(5)
        mark = f"\x1b]0;{self.output.written}\x07"  # a title, which shows nowhere
        self.output.put(self.terminal.end, mark)
        until(lambda: mark.encode() in self.terminal.received)

    def close(self) -> None:
        termios.tcflow(self.terminal.end, termios.TCOON)
        self.output.flush(5)
        self.output.close()
        self.terminal.close()


@pytest.fixture
def session() -> Iterator[Session]:
    opened = Session()
    yield opened
    opened.close()


CURSORS = pytest.mark.parametrize("above", [0, 3, 19, 20, 22, 23, 100])
"""Rows printed before: the cursor is at the top, in the middle, near the foot, and in the last row."""


@CURSORS
def test_nothing_but_the_foot_changes(session: Session, above: int) -> None:
    printed = [f"line {n}" for n in range(above)]
    session.print(*printed)
    session.type("hel", "hel")
    session.show("one", "two", "three")
    assert session.terminal.rows[-3:] == ["one", "two", "three"]
    assert session.terminal.line == "hel"
    assert session.terminal.cursor == (min(above, 20), 3)
    assert session.terminal.text == [*printed, "hel", "one", "two", "three"]
    session.type("lo", "hello")


@CURSORS
def test_all_is_as_before_in_the_end(session: Session, above: int) -> None:
    printed = [f"line {n}" for n in range(above)]
    session.print(*printed)
    session.type("hel", "hel")
    session.show("one", "two", "three")
    session.show()
    assert session.terminal.text == [*printed, "hel"]
    assert session.terminal.cursor == (min(above, 20), 3)
    assert session.terminal.scrolls == 24
    session.type("lo\n", "")
    session.print(*(f"more {n}" for n in range(30)))
    assert session.terminal.rows[-2:] == ["more 29", ""]
    assert session.terminal.text == [*printed, "hello", *(f"more {n}" for n in range(30))]


@CURSORS
def test_messages_scroll_above(session: Session, above: int) -> None:
    printed = [f"line {n}" for n in range(above)]
    messages = [f"ann: {n}" for n in range(30)]
    session.print(*printed)
    session.show("one", "two")
    for message in messages:
        session.print(message)
        session.show(f"{message} and one", "two")
    assert session.terminal.rows[-4:] == ["ann: 29", "", "ann: 29 and one", "two"]
    assert session.terminal.text == [*printed, *messages, "ann: 29 and one", "two"]


def test_menu_and_answers_go_on(session: Session) -> None:
    session.print(MENU)
    session.show("one")
    session.type("m", "m")
    session.show("one, later")
    session.type("\n", "")
    session.print("Enter your message:")
    session.type("hello!", "hello!")
    session.type("\n", "")
    session.print(MENU)
    session.show("one, at last")
    session.show()
    menu = MENU.splitlines()
    assert [row for row in session.terminal.rows if row] == [*menu, "m", "Enter your message:", "hello!", *menu]


@pytest.mark.parametrize("line", ["1", "22"])
def test_row_34_a_tab_is_erased_to_where_it_began(session: Session, line: str) -> None:
    """The system counts what is written, to know how far a tab reaches."""
    session.footer.show([line])
    until(lambda: line in session.terminal.rows)
    session.terminal.type("\t")
    until(lambda: session.terminal.cursor == (0, 8))
    session.terminal.type("\x7f")
    until(lambda: session.terminal.cursor[1] < 8)
    assert session.terminal.cursor == (0, 0)


def test_more_and_fewer_lines(session: Session) -> None:
    session.print(*(f"line {n}" for n in range(30)))
    for lines in (["one"], ["one", "two", "three"], ["two", "three"], ["three"]):
        session.show(*lines)
        assert session.terminal.text == [*(f"line {n}" for n in range(30)), *lines]
        assert session.terminal.line == ""
    session.show()
    session.show("again")
    assert session.terminal.scrolls == 23
    assert session.terminal.rows[-1] == "again"


@pytest.mark.parametrize("above", [0, 10, 100])
@pytest.mark.parametrize("rows", [40, 20, 9, 24])
@pytest.mark.parametrize("columns", [120, 40])
def test_size_changes(session: Session, above: int, rows: int, columns: int) -> None:
    session.print(*(f"line {n}" for n in range(above)))
    session.type("hel", "hel")
    session.show("one", "two")
    session.terminal.resize(rows, columns)
    session.show("three", "four")
    assert session.terminal.rows[-2:] == ["three", "four"]
    assert session.terminal.scrolls == rows - 2
    assert session.terminal.cursor[0] < rows - 2
    session.show()
    assert not {"one", "two", "three", "four"} & set(session.terminal.text)
    assert session.terminal.scrolls == rows


def test_size_that_changes_before_the_end_is_no_trouble(session: Session) -> None:
    session.type("hel", "hel")
    session.show("one", "two")
    session.terminal.resize(40, 80)
    session.show()
    assert session.terminal.text == ["hel"]
    assert session.terminal.scrolls == 40


@pytest.mark.parametrize(
    ("rows", "columns", "room"),
    [
        (24, 80, (80, FOOTER_ROWS)),
        (100, 300, (FOOTER_CELLS, FOOTER_ROWS)),
        (9, 80, (80, 3)),
        (6, 20, (20, 2)),
        (5, 80, (0, 0)),
        (24, 19, (0, 0)),
        (0, 0, (0, 0)),
    ],
)
def test_room_depends_on_the_size(session: Session, rows: int, columns: int, room: tuple[int, int]) -> None:
    termios.tcsetwinsize(session.terminal.end, (rows, columns))
    assert session.footer.room() == room


def test_no_terminal_has_no_room(session: Session) -> None:
    reading, writing = os.pipe()
    assert Footer(writing, session.output).room() == (0, 0)
    os.close(reading)
    os.close(writing)


def test_row_35_a_stuck_terminal_is_given_one_picture_and_then_the_end(session: Session) -> None:
    session.show("one")
    termios.tcflow(session.terminal.end, termios.TCOOFF)
    for n in range(100):
        session.footer.show([f"picture {n}"])
    assert session.output._given - session.output.written < 200
    session.footer.show([])
    session.footer.show([])
    termios.tcflow(session.terminal.end, termios.TCOON)
    session.settle()
    assert b"picture 0" in session.terminal.received
    assert b"picture 1" not in session.terminal.received
    assert session.terminal.text == []
    assert session.terminal.scrolls == 24


def test_each_picture_is_one_write(session: Session) -> None:
    session.show("one")
    session.footer.show(["two", "three"])
    assert len(session.output._pending) == 1


@pytest.mark.parametrize("term", ["dumb", "", None])
def test_terminal_that_obeys_nothing_has_no_footer(
    session: Session, monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert has_footer(session.terminal.end)
    monkeypatch.delenv("TERM")
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert not has_footer(session.terminal.end)


def test_what_is_no_terminal_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    reading, writing = os.pipe()
    assert not has_footer(writing)
    os.close(reading)
    os.close(writing)
    assert not has_footer(writing)
