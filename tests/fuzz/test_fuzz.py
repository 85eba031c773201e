"""Every case that was ever worth keeping, and some that are plain; `make fuzz` tries millions."""

from collections.abc import Callable

import pytest
from credentials import new_certificate  # noqa: F401 - the targets make certificates
from fuzz import ground
from fuzz.live import TARGETS as LIVE
from fuzz.pure import TARGETS as PURE
from fuzz.run import CASES, HERE
from fuzz.sealed import TARGETS as SEALED

TARGETS = {**PURE, **LIVE, **SEALED}


def test_all_targets_are_run() -> None:
    assert set(CASES) == set(TARGETS) == {path.name for path in (HERE / "corpus").iterdir()}
    assert sum(CASES.values()) >= 2_000_000


@pytest.mark.parametrize(("name", "target"), TARGETS.items(), ids=TARGETS)
def test_corpus(name: str, target: Callable[[bytes], None]) -> None:
    try:
        for path in sorted((HERE / "corpus" / name).iterdir()):
            target(path.read_bytes())
    finally:
        ground.close()
