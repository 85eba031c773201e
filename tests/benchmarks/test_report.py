import json

from benchmarks.report import Results, Table, as_json, as_text, medians

RESULTS = Results(
    "race",
    "two laps",
    [
        Table(
            "uphill",
            {"speed": "MB/s", "of best": ""},
            {"hare": {"speed": 1234.56, "of best": 1}, "snail": {"speed": 0.5}},
        )
    ],
    {"tortoise": "it is asleep"},
    {"hare, rested": "2.6", "hare": "2.6"},
)


def test_a_table_has_units_and_a_dash_where_there_is_no_figure() -> None:
    lines = as_text(RESULTS).splitlines()
    assert lines[3:8] == [
        "uphill:",
        "       speed  of best",
        "        MB/s         ",
        " hare  1,235     1.00",
        "snail   0.50        -",
    ]


def test_skipped_contenders_are_told_and_versions_only_once() -> None:
    text = as_text(RESULTS)
    assert text.endswith("tortoise: skipped, it is asleep")
    assert text.count("hare 2.6") == 1


def test_json_has_the_figures_and_the_machine() -> None:
    data = json.loads(as_json(RESULTS))
    assert data["tables"][0]["rows"]["hare"]["speed"] == 1234.56
    assert set(data["machine"]) == {"cpu", "system", "python", "gevent"}


def test_the_median_is_taken_of_each_figure() -> None:
    assert medians([{"a": 1, "b": 9}, {"a": 5, "b": 7}, {"a": 2, "b": 8}]) == {"a": 2, "b": 8}


def test_a_figure_that_most_rounds_lack_has_no_median() -> None:
    assert medians([{"a": 1, "b": 9}, {"a": 5}, {"a": 2}]) == {"a": 2}
    assert medians([{"a": 1}, {}, {"a": 3}]) == {"a": 2}
    assert medians([{}, {}, {}]) == {}


def test_remarks_say_why_a_figure_is_missing() -> None:
    results = Results("race", "two laps", [], {}, {}, {"hare, uphill": "it fell"})
    assert as_text(results).endswith("hare, uphill: it fell")
