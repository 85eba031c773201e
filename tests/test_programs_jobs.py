"""The client as a job of an interactive shell."""

import os
import pty
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import until
from gevent import socket
from programs import TOP, Server, Stream

from greenchat.client.menu import MENU

pytestmark = pytest.mark.attack(50)


class Shell:
    """An interactive bash on a terminal of its own."""

    def __init__(self, home: Path) -> None:
        self.process, controller = pty.fork()
        if not self.process:
            os.chdir(home)
            os.execvpe("bash", ["bash", "--norc", "-i"], os.environ | {"PS1": "ready> ", "TERM": "dumb"})
        self.screen = Stream(os.dup(controller))
        self._controller = controller
        self.screen.wait_for("ready> ")

    def type(self, keys: str) -> None:
        os.write(self._controller, keys.encode())

    @property
    def is_in_foreground(self) -> bool:
        """True while the shell itself reads what is typed."""
        return os.tcgetpgrp(self._controller) == self.process

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.close(self._controller)
        os.waitpid(self.process, 0)
        self.screen.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def shell(server: Server, tmp_path: Path) -> Iterator[Shell]:
    """A shell where a client runs in the foreground."""
    one = Shell(tmp_path)
    one.type(f"{sys.executable} {TOP / 'ChatClient.py'} -l 0 -p {server.port} --name ann\n")
    one.screen.wait_for(MENU.splitlines()[-1])
    yield one
    one.close()


def states(port: int) -> list[str]:
    """The states of the client's process, T for a stopped one; none if it has ended."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"ChatClient.py\0-l\0000\0-p\0{port}".encode() in (directory / "cmdline").read_bytes():
                found.append((directory / "stat").read_text().rpartition(") ")[2].split()[0])
        except OSError:  # it has just ended
            continue
    return found


def test_job_in_the_background_chats_on_and_takes_input_again_in_the_foreground(server: Server, shell: Shell) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as bob:
        shell.type("\x1a")
        until(lambda: states(server.port) == ["T"])
        shell.screen.wait_for("ready> ")
        shell.type("bg\n")
        shell.screen.wait_for("ready> ")
        bob.sendall(b"bob\nhi\n")
        shell.screen.wait_for("bob: hi")
        assert states(server.port) != ["T"]
        shell.type("fg\n")
        until(lambda: not shell.is_in_foreground)
        shell.type("m\n")
        shell.screen.wait_for("Enter your message:")
        shell.type("back\n")
        assert bob.recv(100) == b"ann: back\n"


@pytest.mark.parametrize("key", ["\x03", "\x1c"], ids=["^C", "^Backslash"])
def test_key_that_ends_the_client_leaves_the_shell_a_line_of_its_own(server: Server, shell: Shell, key: str) -> None:
    shell.type(key)
    until(lambda: states(server.port) == [])
    shell.screen.wait_for("\nready> ")
