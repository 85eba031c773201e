from benchmarks.load import LoadError
from benchmarks.report import Figures
from benchmarks.trials import Trials


def test_what_fails_in_most_rounds_is_a_gap_and_a_remark() -> None:
    trials = Trials({"uphill": {"speed": "MB/s", "height": "m"}})

    def climb(figures: Figures) -> None:
        figures["speed"] = len(outcomes)
        outcomes.append(1)
        if len(outcomes) > 1:
            raise LoadError(f"fell in round {len(outcomes)}")
        figures["height"] = 9

    outcomes: list[int] = []
    assert [trials.measure("uphill", "hare", climb) for _ in range(3)] == [True, False, False]
    assert trials.tables()[0].rows == {"hare": {"speed": 1}}
    assert trials.remarks == {"hare, uphill": "fell in round 2"}


def test_one_failure_of_three_leaves_the_median_of_the_others() -> None:
    trials = Trials({"uphill": {"speed": "MB/s"}})

    def climb(figures: Figures) -> None:
        if (speed := speeds.pop()) == 0:
            raise LoadError("fell")
        figures["speed"] = speed

    speeds = [5, 0, 7]
    for _ in range(3):
        trials.measure("uphill", "hare", climb)
    assert trials.tables()[0].rows == {"hare": {"speed": 6}}
