"""The client with all three standard descriptors on one terminal, as a person has it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import until
from emulator import Emulator
from gevent import subprocess
from programs import TOP, Client, Server

from greenchat.client.menu import GOODBYE, MENU

SIZE = 600_000
RATE = "256K"
"""So that it takes longer than what is worth a line."""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[int, Client]]:
    """Bob, who has a file, and the server's port."""
    with Server() as server, Client(server.port, tmp_path / "bob", "--name", "bob", "--limit-rate", RATE) as bob:
        (tmp_path / "bob" / "big.bin").write_bytes(os.urandom(SIZE))
        bob.wait_for_menu()
        yield server.port, bob


@pytest.fixture
def ann(owner: tuple[int, Client], tmp_path: Path) -> Iterator[tuple[Emulator, subprocess.Popen[bytes]]]:
    home = tmp_path / "ann"
    home.mkdir()
    command = [sys.executable, str(TOP / "ChatClient.py"), "-l", "0", "-p", str(owner[0]), "--name", "ann"]
    with Emulator() as screen:
        environment = os.environ | {"TERM": "xterm-256color"}
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=screen.end,
            stdout=screen.end,
            stderr=screen.end,
            process_group=0,  # as a shell does, so that it can be stopped
        )
        try:
            yield screen, process
        finally:
            process.kill()
            process.wait()


def test_what_moves_is_shown_and_what_is_typed_stays(
    owner: tuple[int, Client], ann: tuple[Emulator, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (_, bob), (screen, process) = owner, ann
    menu = MENU.splitlines()
    until(lambda: screen.text[-4:] == menu)
    screen.type("f\nbob\nbig.bin\n")
    until(lambda: screen.text.count(menu[-1]) == 2)
    screen.type("half a li")
    until(lambda: screen.rows[-1].startswith("big.bin from bob") and " left" in screen.rows[-1])
    bob.type("m", "how is it going?")
    until(lambda: "bob: how is it going?" in " ".join(screen.rows))
    assert any("half a li" in row for row in screen.rows)
    until(lambda: any("received big.bin from bob" in row for row in screen.rows))
    until(lambda: screen.scrolls == len(screen.rows))
    screen.type("ne\nx\n")  # no such option, and then one
    assert process.wait(20) == 0
    until(lambda: GOODBYE in screen.text)
    assert (tmp_path / "ann" / "big.bin").read_bytes() == (tmp_path / "bob" / "big.bin").read_bytes()
    assert [row for row in screen.text if row.startswith("big.bin from")] == []


def test_leaving_in_the_middle_leaves_the_terminal_as_it_was(
    ann: tuple[Emulator, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    screen, process = ann
    until(lambda: MENU.splitlines()[-1] in screen.text)
    screen.type("f\nbob\nbig.bin\n")
    until(lambda: screen.rows[-1].startswith("big.bin from bob"))
    screen.type("x\n")
    assert process.wait(20) == 1
    until(lambda: GOODBYE in screen.text)
    assert screen.scrolls == len(screen.rows)
    (part,) = (tmp_path / "ann").iterdir()
    assert part.name.startswith(".greenchat-")


def test_stopped_by_the_terminal_it_leaves_its_rows_until_it_goes_on(
    ann: tuple[Emulator, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    screen, process = ann
    until(lambda: MENU.splitlines()[-1] in screen.text)
    screen.type("f\nbob\nbig.bin\n")
    until(lambda: screen.rows[-1].startswith("big.bin from bob"))
    for _ in range(2):
        process.send_signal(signal.SIGTSTP)
        until(lambda: _state(process.pid) == "T")
        until(lambda: screen.scrolls == len(screen.rows))
        assert [row for row in screen.rows if row.startswith("big.bin from bob")] == []
        process.send_signal(signal.SIGCONT)
        until(lambda: screen.rows[-1].startswith("big.bin from bob"))
    until(lambda: any("received big.bin from bob" in row for row in screen.rows))
    screen.type("x\n")
    assert process.wait(20) == 0
    assert (tmp_path / "ann" / "big.bin").stat().st_size == SIZE


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
