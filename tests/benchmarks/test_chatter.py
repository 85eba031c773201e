import math

from benchmarks.chatter import percentile


def test_percentile() -> None:
    times = [float(n) for n in range(100, 0, -1)]
    assert percentile(times, 0.99) == 100
    assert percentile(times, 0.5) == 51
    assert math.isnan(percentile([], 0.99))
