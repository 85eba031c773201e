from collections.abc import Iterator
from contextlib import ExitStack, closing

import gevent
import pytest
from conftest import until
from emulator import Emulator

from greenchat.client import display as display_module
from greenchat.client import progress
from greenchat.client.console import Output
from greenchat.client.display import Display
from greenchat.client.footer import Footer
from greenchat.transfer.moving import Moving, Traffic


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display_module, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(progress, "SHOWN_AFTER_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture(params=["rich", "plain"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(display_module, "bars", lambda: None)
    else:
        pytest.importorskip("rich")


@pytest.fixture
def terminal() -> Iterator[Emulator]:
    with Emulator() as opened:
        yield opened


@pytest.fixture
def output() -> Iterator[Output]:
    with closing(Output(lambda fd: pytest.fail(f"descriptor {fd} broke"))) as opened:
        yield opened
        opened.flush(5)


@pytest.fixture
def traffic(terminal: Emulator, output: Output, library: None) -> Iterator[Traffic]:
    """What is shown on the terminal."""
    moving, display = Traffic(), Display(terminal.end, output)
    display.start(moving)
    yield moving
    display.stop()
    output.flush(5)


def file(name: str, peer: str = "ann") -> Moving:
    return Moving(name, peer, sending=False, size=2048)


def shown(terminal: Emulator, *starts: str) -> bool:
    rows = terminal.rows[-len(starts) :]
    return all(row.startswith(start) for row, start in zip(rows, starts, strict=True))


def test_files_are_shown_while_they_move(terminal: Emulator, output: Output, traffic: Traffic) -> None:
    output.write(terminal.end, "menu")
    until(lambda: terminal.cursor == (1, 0))
    terminal.type("hel")
    with traffic.carry(file("one")) as one:
        until(lambda: shown(terminal, "one from ann"))
        with traffic.carry(file("two", "bob")):
            until(lambda: shown(terminal, "one from ann", "two from bob"))
        one.moved = 1024
        until(lambda: "1.0 of 2.0 KiB" in terminal.rows[-2])
        output.write(terminal.end, "lo")
        until(lambda: "hello" in terminal.rows)
        assert terminal.rows[0] == "menu"
    until(lambda: terminal.scrolls == 24)
    assert terminal.text == ["menu", "hello"]


def test_more_files_than_rows_are_summed_up(terminal: Emulator, traffic: Traffic) -> None:
    with ExitStack() as moving:
        for n in range(8):
            moving.enter_context(traffic.carry(file(f"file{n}")))
        until(lambda: shown(terminal, "file0", "file1", "file2", "and 5 more files"))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("\x1b[2J\x1b[r\x1b[H\r\n\x9b2J", "\u241b[2J\u241b[r"),
        ("\u540d\u524d" * 60, "\u540d\u524d\u540d\u524d"),
        ("q\u0301\u0327" * 80, "q"),
        ("[red]x[/red] " * 30, "[red]x"),
        ("x" * 255, "xxx"),
    ],
    ids=["escapes", "wide", "marks", "markup", "long"],
)
def test_row_25_no_name_gets_out_of_its_row(terminal: Emulator, traffic: Traffic, name: str, start: str) -> None:
    with traffic.carry(file(name, name)), traffic.carry(file("last")):
        until(lambda: shown(terminal, start, "last from ann"))
        assert terminal.rows[:-2] == [""] * 22
        assert terminal.cursor == (0, 0)
        assert "0.0 of 2.0 KiB" in terminal.rows[-2]


def test_terminal_that_becomes_too_small_has_no_lines(terminal: Emulator, traffic: Traffic) -> None:
    with traffic.carry(file("one")):
        until(lambda: shown(terminal, "one"))
        terminal.resize(4, 80)
        until(lambda: terminal.text == [])
        terminal.resize(24, 80)
        until(lambda: shown(terminal, "one"))


def test_nothing_is_done_while_nothing_moves(
    terminal: Emulator, output: Output, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with traffic.carry(file("one")):
        until(lambda: shown(terminal, "one"))
    until(lambda: terminal.text == [])
    output.flush(5)
    written, looks = output.written, list[Footer]()
    monkeypatch.setattr(Footer, "room", looks.append)
    gevent.sleep(0.05)  # time for five looks
    assert looks == []
    assert output.written == written


def test_stopping_leaves_the_terminal_as_it_was(terminal: Emulator, output: Output) -> None:
    traffic, display = Traffic(), Display(terminal.end, output)
    display.stop()
    display.start(traffic)
    with traffic.carry(file("one")):
        until(lambda: shown(terminal, "one"))
        display.stop()
        display.stop()
        until(lambda: terminal.text == [] and terminal.scrolls == 24)
        gevent.sleep(0.05)
        assert terminal.text == []


@pytest.mark.parametrize("term", ["dumb", ""])
def test_terminal_that_cannot_gets_nothing(
    terminal: Emulator, output: Output, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    traffic, display = Traffic(), Display(terminal.end, output)
    display.start(traffic)
    with traffic.carry(file("one")):
        gevent.sleep(0.05)
    display.stop()
    assert output.written == 0
