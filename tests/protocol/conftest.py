import pytest
from hypothesis import settings

# A busy machine makes a slow example, not a wrong one.
settings.register_profile("greenchat", parent=settings(), deadline=None)
settings.load_profile("greenchat")


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Pure functions open nothing; the search for leaks would take longer than their tests."""
