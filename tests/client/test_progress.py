import pytest

from greenchat.client.progress import Progress, Row, plain
from greenchat.protocol.limits import RATE_SAMPLES, SHOWN_AFTER_SECONDS
from greenchat.transfer.moving import Moving

MIB = 1024 * 1024


def big(**fields: object) -> Moving:
    """A gibibyte from ann, begun at 0."""
    usual = {"file": "big.iso", "peer": "ann", "sending": False, "size": 1024 * MIB, "begun": 0.0}
    return Moving(**{**usual, **fields})  # type: ignore[arg-type]  # as each test likes


def row(file: Moving, now: float = 1.0) -> Row:
    return Progress().rows([file], now, 4)[0]


def test_row_says_all_there_is_to_say() -> None:
    assert row(big(moved=128 * MIB)) == Row(
        what="big.iso from ann", rate="128.0 MiB/s", amount="128.0 of 1,024.0 MiB", left="0:07 left", share=0.125
    )


def test_what_goes_out_goes_to_somebody() -> None:
    assert row(big(sending=True)).what == "big.iso to ann"


def test_file_has_a_row_once_it_takes_a_while() -> None:
    assert Progress().rows([big()], SHOWN_AFTER_SECONDS - 0.01, 4) == []
    assert len(Progress().rows([big()], SHOWN_AFTER_SECONDS, 4)) == 1


def test_nothing_that_moves_is_no_row() -> None:
    assert Progress().rows([], 1.0, 4) == []


@pytest.mark.parametrize(
    ("size", "moved", "amount"),
    [
        (0, 0, "0.0 of 0.0 KiB"),
        (1, 1, "0.0 of 0.0 KiB"),
        (2048, 1024, "1.0 of 2.0 KiB"),
        (9999 * 1024, 1024, "1.0 of 9,999.0 KiB"),
        (10_000 * 1024, MIB, "1.0 of 9.8 MiB"),
        (100 * 1024 * MIB, 1024 * MIB, "1.0 of 100.0 GiB"),
        (2**63 - 1, 2**62, "4,096.0 of 8,192.0 PiB"),
        (MIB, 2 * MIB, "1,024.0 of 1,024.0 KiB"),
    ],
)
def test_amounts_are_in_units_that_fit(size: int, moved: int, amount: str) -> None:
    assert row(big(size=size, moved=moved)).amount == amount


@pytest.mark.parametrize(
    ("moved", "left"),
    [
        (0, "-:-- left"),
        (1, "-:-- left"),
        (MIB, "17:03 left"),
        (MIB // 10, "2:50:39 left"),
        (512 * MIB, "0:01 left"),
        (1024 * MIB, "0:00 left"),
    ],
)
def test_time_left_is_told_if_it_can_be_known(moved: int, left: str) -> None:
    assert row(big(moved=moved)).left == left


@pytest.mark.parametrize("now", [0.5, 1.0, 100.0])
def test_empty_file_is_done(now: float) -> None:
    assert row(big(size=0), now).share == 1.0


def test_what_was_there_before_is_not_the_rate() -> None:
    resumed = row(big(moved=612 * MIB, resumed=512 * MIB))
    assert resumed.rate == "100.0 MiB/s"
    assert resumed.amount == "612.0 of 1,024.0 MiB"


def rates(file: Moving, *looks: tuple[float, int]) -> list[str]:
    """The rate at each look: when, and how much had moved."""
    progress, found = Progress(), []
    for now, file.moved in looks:
        found.append(progress.rows([file], now, 4)[0].rate)
    return found


def test_rate_is_of_the_last_seconds() -> None:
    fast = [(n / 4, n * MIB) for n in range(2, 2 * RATE_SAMPLES)]
    end, moved = fast[-1]
    stuck = [(end + n / 4, moved) for n in range(1, 2 * RATE_SAMPLES)]
    found = [float(rate.removesuffix(" KiB/s").replace(",", "")) for rate in rates(big(), *fast, *stuck)]
    assert found[: len(fast)] == [4096.0] * len(fast)
    falling = found[len(fast) : len(fast) + RATE_SAMPLES]
    assert falling == sorted(set(falling), reverse=True)
    assert found[-1] == 0.0


def test_clock_that_stands_still_is_no_error() -> None:
    assert rates(big(begun=-1.0), *[(0.0, n * MIB) for n in range(2 * RATE_SAMPLES)])[-1] == "0.0 KiB/s"


def test_file_that_starts_again_has_no_rate_below_zero() -> None:
    assert rates(big(), (1.0, MIB), (2.0, 0))[-1] == "0.0 KiB/s"


def test_files_are_forgotten_with_the_last_look_at_them() -> None:
    progress = Progress()
    progress.rows([big(), big()], 1.0, 4)
    progress.rows([], 2.0, 4)
    assert progress._samples == {}


def test_more_files_than_rows_are_summed_up_in_the_last_row() -> None:
    files = [big(file=f"{n}.iso", moved=MIB) for n in range(8)]
    found = Progress().rows(files, 1.0, 4)
    assert [row.what for row in found] == ["0.iso from ann", "1.iso from ann", "2.iso from ann", "and 5 more files"]
    assert found[3] == Row("and 5 more files", rate="5,120.0 KiB/s")
    assert len(Progress().rows(files[:4], 1.0, 4)) == 4


def test_row_25_names_are_made_safe() -> None:
    hostile = big(file="\x1b[2J\x1b]0;x\x07\r\n\tname\u202e", peer="\x9bann\x00")
    assert row(hostile).what == "\u241b[2J\u241b]0;x\u2407\u240d\u240a name\ufffd from \ufffdann\u2400"


def test_row_25_peer_whose_name_is_none_is_cut() -> None:
    assert row(big(peer="e" + "\u0301" * 8000)).what == "big.iso from e" + "\u0301" * 31


# --- plain lines ------------------------------------------------------------------------------

ROWS = [
    Row("big.iso from ann", "83.1 MiB/s", "120.3 of 1,024.0 MiB", "0:11 left", 0.1),
    Row("\u540d\u524d.txt to bob", "0.0 KiB/s", "0.1 of 4.9 KiB", "-:-- left", 0.0),
    Row("and 5 more files", "100.0 MiB/s"),
]


def test_figures_are_below_each_other() -> None:
    assert plain(ROWS, 72) == [
        "big.iso from ann          120.3 of 1,024.0 MiB    83.1 MiB/s   0:11 left",
        "\u540d\u524d.txt to bob                 0.1 of 4.9 KiB     0.0 KiB/s   -:-- left",
        "and 5 more files                                 100.0 MiB/s            ",
    ]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (66, "big.iso from ann     120.3 of 1,024.0 MiB   83.1 MiB/s   0:11 left"),
        (63, "big.iso from a\u2026   120.3 of 1,024.0 MiB   83.1 MiB/s   0:11 left"),
        (40, "big.iso f\u2026   120.3 of 1,024.0 MiB   83.\u2026"),
        (20, "big.\u2026   120.3 of 1,\u2026"),
    ],
)
def test_line_is_cut_to_the_width(width: int, line: str) -> None:
    assert plain(ROWS[:1], width) == [line]


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("\u540d" * 6, "\u540d" * 6),
        ("\u540d" * 7, "\u540d" * 5 + "\u2026 "),
        ("a" + "\u540d" * 6, "a" + "\u540d" * 5 + "\u2026"),
        ("e\u0301" * 12, "e\u0301" * 12),
        ("e\u0301" * 13, "e\u0301" * 11 + "\u2026"),
        ("\uff41" * 6, "\uff41" * 6),
        ("", " " * 12),
    ],
    ids=["wide", "too wide", "odd", "marks", "too many", "full width", "empty"],
)
def test_width_is_counted_in_cells(what: str, shown: str) -> None:
    assert plain([Row(what, "rate", "amount", "left")], 35) == [f"{shown}   amount   rate   left"]


def test_no_row_is_no_line() -> None:
    assert plain([], 80) == []
