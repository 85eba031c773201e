"""What there is to say of files that move: in figures, and as plain lines. Nothing here writes anywhere."""

import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from greenchat.protocol.limits import MAX_NAME_CHARACTERS, RATE_SAMPLES, SHOWN_AFTER_SECONDS
from greenchat.protocol.text import safe_line
from greenchat.transfer.moving import Moving

__all__ = ["Draw", "Progress", "Row", "plain"]

_UNITS: Final = [(1024**power, name) for power, name in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), 1)]
_GAP: Final = "   "
_LONGEST_LEFT: Final = 100 * 3600.0
"""Seconds; who would have to wait longer is told nothing."""


class Row(NamedTuple):
    """One line in its parts, safe to show."""

    what: str
    rate: str
    amount: str = ""
    left: str = ""
    share: float | None = None
    """Of the file, from 0 to 1, moved by now."""


Draw: TypeAlias = Callable[[Sequence[Row], int], list[str]]
"""Makes of each row a line of at most that many cells."""


class Progress:
    """Follows files from one look to the next, because a rate takes two."""

    def __init__(self) -> None:
        self._samples: dict[Moving, deque[tuple[float, int]]] = {}

    def rows(self, moving: Iterable[Moving], now: float, limit: int) -> list[Row]:
        """A row for each file that has been moving for a while; of more than *limit*, the last row sums up the rest."""
        shown = [file for file in moving if now - file.begun >= SHOWN_AFTER_SECONDS]
        self._samples = {file: self._samples.get(file) or _first_sample(file) for file in shown}
        rates = [self._rate(file, now) for file in shown]
        rows = [_row(file, rate) for file, rate in zip(shown, rates, strict=True)]
        if len(rows) > limit:
            rest = rates[limit - 1 :]
            rows[limit - 1 :] = [Row(f"and {len(rest)} more files", _rate(sum(rest)))]
        return rows

    def _rate(self, file: Moving, now: float) -> float:
        """Bytes per second over the last `RATE_SAMPLES` looks."""
        samples = self._samples[file]
        then, moved = samples[0]
        samples.append((now, file.moved))
        return max(0.0, (file.moved - moved) / (now - then)) if now > then else 0.0


def _first_sample(file: Moving) -> deque[tuple[float, int]]:
    return deque([(file.begun, file.resumed)], maxlen=RATE_SAMPLES)


def _row(file: Moving, rate: float) -> Row:
    moved = min(file.moved, file.size)
    way = "to" if file.sending else "from"
    step, unit = _unit(file.size)
    return Row(
        what=safe_line(f"{file.file} {way} {file.peer[:MAX_NAME_CHARACTERS]}").replace("\t", " "),
        rate=_rate(rate),
        amount=f"{moved / step:,.1f} of {file.size / step:,.1f} {unit}",
        left=_left(file.size - moved, rate),
        share=moved / file.size if file.size else 1.0,
    )


def _rate(rate: float) -> str:
    step, unit = _unit(rate)
    return f"{rate / step:,.1f} {unit}/s"


def _unit(size: float) -> tuple[int, str]:
    """The first unit, in bytes and by name, in which *size* has no more than four digits before its point."""
    return next((unit for unit in _UNITS if size < 10_000 * unit[0]), _UNITS[-1])


def _left(missing: int, rate: float) -> str:
    if not rate or missing / rate > _LONGEST_LEFT:
        return "-:-- left"
    minutes, seconds = divmod(round(missing / rate), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def plain(rows: Sequence[Row], width: int) -> list[str]:
    """Each row as text alone, the figures below each other; where it is narrow, those on the right are cut off."""
    columns = ([row.amount for row in rows], [row.rate for row in rows], [row.left for row in rows])
    figures = [_GAP.join(parts) for parts in zip(*map(_aligned, columns), strict=True)]
    room = max(width - max(map(len, figures), default=0) - len(_GAP), width // 4)
    return [_fit(_fit(row.what, room) + _GAP + text, width) for row, text in zip(rows, figures, strict=True)]


def _aligned(column: list[str]) -> list[str]:
    return [text.rjust(max(map(len, column))) for text in column]


def _fit(text: str, width: int) -> str:
    """*text* in exactly *width* cells, at least one, cut or filled up."""
    if sum(map(_cells, text)) <= width:
        return text + " " * (width - sum(map(_cells, text)))
    kept, used = "", 0
    for sign in text:
        used += _cells(sign)
        if used >= width:  # the last cell is for the sign that something was cut off
            break
        kept += sign
    return _fit(f"{kept}\u2026", width)


def _cells(sign: str) -> int:
    """How many cells of a terminal *sign* takes (UAX #11)."""
    if unicodedata.category(sign) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "FW" else 1
