import pytest

from benchmarks.ends import jain


@pytest.mark.parametrize(("shares", "index"), [([3, 3, 3], 1.0), ([5, 0, 0, 0], 0.25), ([2, 1], 0.9), ([0, 0], 0.0)])
def test_jain(shares: list[float], index: float) -> None:
    assert jain(shares) == pytest.approx(index)
