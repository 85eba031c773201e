import pytest


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Pure functions open nothing; the search for leaks would take longer than their tests."""
