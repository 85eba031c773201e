"""What the documents say of the tests is so."""

import re
from pathlib import Path

HERE = Path(__file__).parent
ATTACKS = HERE.parent / "docs" / "attacks.md"


def test_each_row_of_attacks_has_its_tests_where_the_table_says() -> None:
    said = re.findall(r"^\| (\d+) \| ((?:`[\w/]+\.py`(?:, )?)+) \|$", ATTACKS.read_text(), re.MULTILINE)
    found: dict[int, list[str]] = {}
    for path in sorted(HERE.rglob("test_*.py")):
        for row in sorted({int(row) for row in re.findall(r"^ *def test_row_(\d\d)_", path.read_text(), re.MULTILINE)}):
            found.setdefault(row, []).append(str(path.relative_to(HERE)))
    assert {int(row): re.findall(r"`([^`]+)`", files) for row, files in said} == found
    assert set(found) == set(range(1, 37))


def test_all_test_files_that_are_named_exist() -> None:
    for name in re.findall(r"`tests/([\w/]+\.py)`", ATTACKS.read_text()):
        assert (HERE / name).exists(), name
