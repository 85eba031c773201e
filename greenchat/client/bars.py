"""Rows with bars and colours, by rich, where that is installed."""

import io
from collections.abc import Sequence
from typing import Final

from greenchat.client.progress import Draw, Row, plain

__all__ = ["bars"]

_WIDE: Final = 72
"""Cells; with fewer there is room for names or for bars, and names say more."""


def bars() -> Draw | None:
    """Draws rows by rich; None where that is not installed."""
    try:  # only now, because it takes a tenth of a second and is of use on a terminal alone
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    console = Console(file=io.StringIO(), force_terminal=True)

    def draw(rows: Sequence[Row], width: int) -> list[str]:
        if width < _WIDE:
            return plain(rows, width)
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(ratio=2, no_wrap=True)
        grid.add_column(ratio=1)
        for style in ("progress.download", "progress.data.speed", "progress.remaining"):
            grid.add_column(justify="right", no_wrap=True, style=style)
        for row in rows:
            bar = "" if row.share is None else ProgressBar(total=1.0, completed=row.share)
            grid.add_row(Text(row.what), bar, row.amount, row.rate, row.left)
        console.width = width
        with console.capture() as drawn:
            console.print(grid)
        return drawn.get().splitlines()

    return draw
