"""Results as tables, as JSON and as plots, each with the machine and the versions they came from."""

import json
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import gevent

__all__ = ["Figures", "Results", "Table", "as_json", "as_text", "medians", "plot"]

Figures: TypeAlias = dict[str, float]
"""One row of a table: a figure for each column that it has one for."""


@dataclass(frozen=True)
class Table:
    """Figures for each contender."""

    title: str
    """What was measured, or nothing if it is the only table."""
    units: dict[str, str]
    """The columns, and what they are counted in; nothing for a ratio."""
    rows: dict[str, Figures]


@dataclass(frozen=True)
class Results:
    """One run of a benchmark: the settings and the figures."""

    title: str
    settings: str
    tables: list[Table]
    skipped: dict[str, str]
    """Contenders that were not measured, and why."""
    versions: dict[str, str]
    """Of the others; what is behind a comma in a name is only how it was used."""
    remarks: dict[str, str] = field(default_factory=dict)
    """Why a figure is missing, by what was measured."""

    def machine(self) -> dict[str, str]:
        """Where this run took place."""
        return {
            "cpu": f"{_cpu()}, {os.cpu_count()} cores",
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "gevent": gevent.__version__,
        }


def medians(rounds: Sequence[Mapping[str, float]]) -> Figures:
    """Of each figure, over the rounds; none of what most rounds have none of."""
    names = dict.fromkeys(name for one in rounds for name in one)
    figures = {name: [one[name] for one in rounds if name in one] for name in names}
    return {name: statistics.median(those) for name, those in figures.items() if len(those) * 2 > len(rounds)}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def as_text(results: Results) -> str:
    """The results for people."""
    lines = [f"{results.title}: {results.settings}", _described(results)]
    for table in results.tables:
        lines += ["", *([f"{table.title}:"] if table.title else []), *_lines(table)]
    lines += [f"{what}: {why}" for what, why in results.remarks.items()]
    lines += [f"{name}: skipped, {why}" for name, why in results.skipped.items()]
    return "\n".join(lines)


def _lines(table: Table) -> list[str]:
    rows = [["", *table.units], ["", *table.units.values()]]
    rows += [[name, *(_number(figures.get(column)) for column in table.units)] for name, figures in table.rows.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _number(figure: float | None) -> str:
    """Three digits of it, or all those before the point."""
    if figure is None or math.isnan(figure):
        return "-"
    digits = 2 if abs(figure) < 9.995 else 1 if abs(figure) < 99.95 else 0
    return f"{figure:,.{digits}f}"


def _described(results: Results) -> str:
    machine = results.machine()
    others = [f"{name.partition(',')[0]} {version}" for name, version in results.versions.items()]
    own = [f"Python {machine['python']}", f"gevent {machine['gevent']}"]
    return ", ".join([machine["cpu"], machine["system"], *own, *dict.fromkeys(others)])


def as_json(results: Results) -> str:
    """The results for programs."""
    return json.dumps(asdict(results) | {"machine": results.machine()}, indent=2) + "\n"


def plot(results: Results, path: Path) -> None:
    """The results as bars: a row of pictures for each table, a picture for each unit in it."""
    try:
        from matplotlib import pyplot as plt  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'greenchat[bench]'") from None
    across = max(len(set(table.units.values())) for table in results.tables)
    size = (max(9, 5 * across), 1 + 4 * len(results.tables))
    figure, axes = plt.subplots(len(results.tables), across, figsize=size, squeeze=False, layout="constrained")
    for table, pictures in zip(results.tables, axes, strict=True):
        units = dict.fromkeys(table.units.values())
        for picture in pictures[len(units) :]:
            picture.set_axis_off()
        for unit, picture in zip(units, pictures, strict=False):
            _draw(table, unit, picture)
        pictures[0].set_title(table.title, loc="left")
        pictures[len(units) - 1].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(results.title)
    figure.savefig(path, dpi=80)


def _draw(table: Table, unit: str, picture: Any) -> None:
    """The columns of one unit, as groups of one bar for each contender."""
    columns = [column for column, its_unit in table.units.items() if its_unit == unit]
    width = 0.8 / len(table.rows)
    for place, (name, figures) in enumerate(table.rows.items()):
        at = [n + place * width for n in range(len(columns))]
        picture.bar(at, [figures.get(column, 0) for column in columns], width, label=name)
    picture.set_xticks([n + 0.4 - width / 2 for n in range(len(columns))], columns)
    picture.set_ylabel(unit or "ratio")
