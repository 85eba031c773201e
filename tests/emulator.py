"""A terminal as a person has it: a pseudo-terminal that echoes, and the screen that one sees."""

import contextlib
import os
import pty
import termios
from typing import Self

import gevent
import pyte
from gevent.fileobject import FileObjectPosix


class Emulator:
    """A screen of so many rows and columns; a program has ``end`` for its standard descriptors."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self._controller, self.end = pty.openpty()
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self.received = b""
        self.resize(rows, columns)
        self._file = FileObjectPosix(os.dup(self._controller), "rb", bufsize=0)
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how a pseudo-terminal ends
            while data := self._file.read(65536):
                self.received += data
                self._stream.feed(data)

    def type(self, text: str) -> None:
        """Press keys; the terminal echoes them by itself."""
        os.write(self._controller, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        self._screen.resize(rows, columns)
        termios.tcsetwinsize(self.end, (rows, columns))

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self._screen.display]

    @property
    def text(self) -> list[str]:
        """All rows that are not empty, also those that have left the screen at its top."""
        width = range(self._screen.columns)
        past = ["".join(row[column].data for column in width).rstrip() for row in self._screen.history.top]
        return [row for row in [*past, *self.rows] if row]

    @property
    def cursor(self) -> tuple[int, int]:
        """Its row and column, from 0."""
        return self._screen.cursor.y, self._screen.cursor.x

    @property
    def line(self) -> str:
        """The row that the cursor is in."""
        return self.rows[self._screen.cursor.y]

    @property
    def scrolls(self) -> int:
        """How many rows scroll."""
        margins = self._screen.margins
        return margins.bottom - margins.top + 1 if margins else self._screen.lines

    def close(self) -> None:
        self._reader.kill()
        self._file.close()
        os.close(self._controller)
        os.close(self.end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
