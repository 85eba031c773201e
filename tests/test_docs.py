"""The documents agree with the tests."""

import re
from pathlib import Path

from attack_table import DOCUMENT, files_by_row, tabulated

HERE = Path(__file__).parent


def test_table_of_attacks_is_current() -> None:
    document = DOCUMENT.read_text()
    assert document == tabulated(document), "run python tools/attack_table.py"


def test_each_known_attack_has_a_test() -> None:
    assert set(files_by_row()) >= set(range(1, 37))


def test_all_test_files_that_are_named_exist() -> None:
    for name in re.findall(r"`tests/([\w/]+\.py)`", DOCUMENT.read_text()):
        assert (HERE / name).exists(), name
