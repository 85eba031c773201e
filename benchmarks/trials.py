"""What was measured, of whom, in which round; what failed leaves a gap and a remark, and the others go on."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator

from benchmarks.load import LoadError
from benchmarks.report import Figures, Table, medians

__all__ = ["Trials"]


class Trials:
    """Figures for *tables*, by title their units, of several rounds."""

    def __init__(self, tables: dict[str, dict[str, str]]) -> None:
        self.remarks: dict[str, str] = {}
        self._units = tables
        self._rounds: dict[str, dict[str, list[Figures]]] = {title: defaultdict(list) for title in tables}

    def measure(self, title: str, name: str, trial: Callable[[Figures], None]) -> bool:
        """Have *trial* fill in the figures of one round; whether it could. What it had before it failed counts."""
        figures: Figures = {}
        self._rounds[title][name].append(figures)
        with self.excused(f"{name}, {title}" if title else name):
            trial(figures)
            return True
        return False

    @contextlib.contextmanager
    def excused(self, what: str) -> Iterator[None]:
        """Keep in mind the first reason why *what* failed, if it does."""
        try:
            yield
        except (LoadError, OSError) as error:
            self.remarks.setdefault(what, str(error))

    def tables(self) -> list[Table]:
        """The medians."""
        return [
            Table(title, units, {name: medians(rounds) for name, rounds in self._rounds[title].items()})
            for title, units in self._units.items()
        ]
