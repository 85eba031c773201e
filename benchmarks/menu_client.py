"""The menu client as a user has it: a process, typed to and read from through pipes."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.processes import running

__all__ = ["MenuClient", "menu_client"]

PROGRAM: Final = Path(__file__).resolve().parent.parent / "ChatClient.py"
LAST_OF_MENU: Final = " e(X)it"


class MenuClient:
    """A client that is in the room."""

    def __init__(self, process: "subprocess.Popen[bytes]", home: Path) -> None:
        self.pid = process.pid
        self.home = home
        self._process = process

    def fetch(self, owner: str, files: list[str]) -> None:
        """Ask for all the files, and return when the client has said of each that it has it."""
        assert self._process.stdin
        self._process.stdin.write("".join(f"f\n{owner}\n{file}\n" for file in files).encode())
        self._process.stdin.flush()
        missing = set(files)
        while missing:
            missing.remove(self._received(owner))

    def _received(self, owner: str) -> str:
        """The file that the next line on standard error is about."""
        assert self._process.stderr
        line = self._process.stderr.readline().decode()
        told, of, _size = line.partition(f" from {owner} (")
        if not told.startswith("received ") or not of:
            raise SystemExit(f"the client said {line!r}")
        return told.removeprefix("received ")


@contextlib.contextmanager
def menu_client(python: list[str], port: int, name: str, home: Path, *options: str) -> Iterator[MenuClient]:
    """A client of the server at *port*, in the directory *home*, run by *python*."""
    command = [*python, str(PROGRAM), "-l", "0", "-p", str(port), "--name", name, *options]
    with running(command, home, subprocess.PIPE) as process:
        while LAST_OF_MENU not in (home / "said").read_text():
            if process.poll() is not None:
                raise SystemExit(f"{name} could not join")
            time.sleep(0.01)
        yield MenuClient(process, home)
        (home / "said").unlink()
