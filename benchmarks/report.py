"""Results as a table, as JSON and as a plot, each with the machine and the versions they came from."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gevent

__all__ = ["Results", "as_json", "plot", "table"]


@dataclass(frozen=True)
class Results:
    """One run of a benchmark: the settings, and for each contender the figures by name."""

    title: str
    settings: str
    unit: str
    figures: dict[str, dict[str, float]]
    skipped: dict[str, str]
    """Contenders that were not measured, and why."""
    versions: dict[str, str]
    """What the others were."""

    def machine(self) -> dict[str, str]:
        """Where this run took place."""
        return {
            "cpu": f"{_cpu()}, {os.cpu_count()} cores",
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "gevent": gevent.__version__,
        }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def table(results: Results) -> str:
    """The results for people."""
    columns = list(next(iter(results.figures.values())))
    rows = [["", *columns]]
    rows += [[name, *(f"{figures[column]:,.1f}" for column in columns)] for name, figures in results.figures.items()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        f"{results.title}: {results.settings}",
        _described(results),
        f"all in {results.unit}",
        "",
    ]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += [f"{name}: skipped, {why}" for name, why in results.skipped.items()]
    return "\n".join(lines)


def _described(results: Results) -> str:
    machine = results.machine()
    versions = [f"Python {machine['python']}", f"gevent {machine['gevent']}", *results.versions.values()]
    return ", ".join([machine["cpu"], machine["system"], *versions])


def as_json(results: Results) -> str:
    """The results for programs."""
    return json.dumps(asdict(results) | {"machine": results.machine()}, indent=2) + "\n"


def plot(results: Results, path: Path) -> None:
    """The results as bars, one group for each figure."""
    try:
        from matplotlib import pyplot as plt  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'greenchat[bench]'") from None
    columns = list(next(iter(results.figures.values())))
    figure, axes = plt.subplots(figsize=(9, 5))
    width = 0.8 / len(results.figures)
    for place, (name, figures) in enumerate(results.figures.items()):
        at: list[Any] = [n + place * width for n in range(len(columns))]
        axes.bar(at, [figures[column] for column in columns], width, label=name)
    axes.set_xticks([n + 0.4 - width / 2 for n in range(len(columns))], columns)
    axes.set_ylabel(results.unit)
    axes.set_title(f"{results.title}: {results.settings}")
    axes.legend()
    figure.savefig(path, dpi=120)
