"""The last rows of a terminal, kept apart from all else that is written to it.

What the user types is echoed by the terminal itself, wherever its cursor is; so the cursor has to be back in its place
before anything else comes. Hence the kept rows are outside the region that scrolls, as with apt, and whatever is done
about them is one write that saves the cursor first and restores it last. The system mixes no echo into one write,
provided that it is short (Linux: 2 KiB) and without line ends and tabs.
"""

import os
from collections.abc import Sequence
from typing import Final

from greenchat.client.console import Output, is_terminal
from greenchat.protocol.limits import FOOTER_CELLS, FOOTER_ROWS, MIN_SCREEN_COLUMNS, MIN_SCREEN_ROWS

__all__ = ["Footer", "has_footer"]

_NOWHERE: Final = os.terminal_size((0, 0))

_SAVE: Final = "\x1b7"  # DECSC
_RESTORE: Final = "\r\x1b[00000m\x1b8"  # DECRC
"""To erase a typed tab, the system needs the column that the line began in, for which it counts all that is written,
escape sequences too. From the left edge it counts eight here, and with eight more a tab is as wide as before."""

_DOWN: Final = "\x1bD"  # IND: scrolls where there is no row below, and stays in its column
_ALL_SCROLLS: Final = f"{_SAVE}\x1b[r{_RESTORE}"  # DECSTBM puts the cursor elsewhere
_ERASE_BELOW: Final = f"{_SAVE}\r\x1b[B\x1b[J{_RESTORE}"


def has_footer(fd: int) -> bool:
    """Whether *fd* is a terminal that obeys the sequences used here."""
    return is_terminal(fd) and os.environ.get("TERM", "") not in ("", "dumb")


class Footer:
    """Rows at the foot of the terminal *fd*, kept only while there is something to show in them."""

    def __init__(self, fd: int, output: Output) -> None:
        self._fd = fd
        self._output = output
        self._size = _NOWHERE
        self._kept = 0
        self._last = 0

    def room(self) -> os.terminal_size:
        """How many lines, of how many cells, may be shown; none if the terminal is too small."""
        columns, lines = self._measure()
        if columns < MIN_SCREEN_COLUMNS or lines < MIN_SCREEN_ROWS:
            return _NOWHERE
        return os.terminal_size((min(columns, FOOTER_CELLS), min(lines // 3, FOOTER_ROWS)))

    def show(self, lines: Sequence[str]) -> None:
        """Show *lines*, as many as there is `room` for; with none, the rows are given back.

        Nothing is shown as long as what was shown last is still waiting for the terminal.
        """
        if not lines:
            self._give_back()
        elif self._output.written >= self._last:
            self._last = self._output.put(self._fd, self._keep(len(lines)) + self._paint(lines))

    def _measure(self) -> os.terminal_size:
        try:
            return os.get_terminal_size(self._fd)
        except OSError:  # it is gone
            return _NOWHERE

    def _keep(self, count: int) -> str:
        """What keeps *count* rows, if so many are not kept already at the terminal's present size."""
        size = self._measure()
        if size == self._size and count <= self._kept:
            return ""
        self._size, self._kept = size, count
        return f"{_room_below(count)}{_SAVE}\x1b[1;{size.lines - count}r{_RESTORE}"

    def _paint(self, lines: Sequence[str]) -> str:
        top = self._size.lines - self._kept + 1
        texts = [*lines, *[""] * (self._kept - len(lines))]
        rows = [f"\x1b[{row}H\x1b[K{text}" for row, text in enumerate(texts, top)]
        return f"{_SAVE}{''.join(rows)}{_RESTORE}"

    def _give_back(self) -> None:
        if self._kept:
            self._output.put(self._fd, _room_below(1))
            self._kept = 0


def _room_below(count: int) -> str:
    """Rows below the cursor, at least *count*, all of them empty and of the region that scrolls.

    Relative to the cursor, because nobody knows what a terminal moves where when its size changes.
    """
    return f"{_ALL_SCROLLS}{_DOWN * count}\x1b[{count}A{_ERASE_BELOW}"
