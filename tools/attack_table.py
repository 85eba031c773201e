"""Rewrite the table at the end of docs/attacks.md that names the test files of each attack.

python tools/attack_table.py
"""

import re
from pathlib import Path
from typing import Final

__all__ = ["DOCUMENT", "files_by_row", "tabulated"]

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "attacks.md"
HEADER: Final = "| row | files |\n|---|---|\n"

_MARK: Final = re.compile(r"^ *(?:@pytest\.mark\.attack\((\d+)\)|def test_row_(\d\d)_)", re.MULTILINE)


def files_by_row() -> dict[int, list[str]]:
    """Return the test files of each attack, relative to `tests`, in order."""
    found: dict[int, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for row in sorted({int(mark or name) for mark, name in _MARK.findall(path.read_text())}):
            found.setdefault(row, []).append(str(path.relative_to(ROOT / "tests")))
    return dict(sorted(found.items()))


def tabulated(document: str) -> str:
    """Return *document* with its table made anew."""
    rows = (f"| {row} | {', '.join(f'`{file}`' for file in files)} |\n" for row, files in files_by_row().items())
    return document[: document.index(HEADER)] + HEADER + "".join(rows)


if __name__ == "__main__":
    DOCUMENT.write_text(tabulated(DOCUMENT.read_text()))
