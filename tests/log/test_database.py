import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenchat.log import database as module
from greenchat.log.database import Database, Retention, Row, State
from greenchat.log.files import Files
from greenchat.log.log import Entry
from greenchat.protocol.limits import MAX_SPEAKERS


def row(position: int, block: bytes = b"x\n", room: str = "lobby", origin: str = "ann", said: int = 0) -> Row:
    return Row(room, f"epoch of {room}", Entry(position, block.count(b"\n"), block, origin, said))


def blocks(database: Database, room: str = "lobby", position: int = 0) -> list[bytes]:
    return [entry.block for entry in database.read(room, position)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    one = Database(Files(path), Retention())
    yield one
    one.close()


def test_commit_is_on_the_disk_when_it_returns(database: Database) -> None:
    """So that not even a loss of power takes it back; SQLite's number for FULL is 2."""
    assert database._db.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_committed_to_a_file_that_was_removed(database: Database, path: Path, *, replaced: bool) -> None:
    path.unlink()
    if replaced:
        path.touch()
    with pytest.raises(FileNotFoundError):
        database.commit([row(1)])


def remove(journal: Path) -> None:
    journal.unlink()


def replace(journal: Path) -> None:
    journal.with_name("other").write_bytes(journal.read_bytes())
    journal.with_name("other").rename(journal)


@pytest.mark.attack(47)
@pytest.mark.parametrize("tamper", [remove, replace])
def test_commits_survive_the_loss_of_the_journal(path: Path, tamper: Callable[[Path], None]) -> None:
    database = Database(Files(path), Retention())
    database.commit([row(1), row(2)])
    tamper(path.with_name("messages.db-wal"))
    assert database.commit([row(3)]) == {}
    assert database.detached
    database.commit([row(4)])
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)  # with no journal, as after a crash
    after = Database(Files(copy), Retention())
    assert len(blocks(after)) == 4
    after.close()
    database.close()


@pytest.mark.attack(47)
def test_journal_that_goes_during_a_commit_is_noticed_before_it_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(path)
    database = Database(files, Retention())
    database.commit([row(1)])
    note = files.note_journal

    def remove_and_note() -> None:
        files.journal.unlink(missing_ok=True)
        note()

    monkeypatch.setattr(files, "note_journal", remove_and_note)
    database.commit([row(2)])
    assert database.detached
    database.close()


@pytest.mark.attack(47)
def test_reopened_database_has_a_journal_again(path: Path) -> None:
    database = Database(Files(path), Retention())
    database.commit([row(1)])
    journal = path.with_name("messages.db-wal")
    journal.unlink()
    database.commit([row(2)])
    database.reopen()
    database.commit([row(3)])
    assert (len(blocks(database)), database.detached, journal.exists()) == (3, False, True)
    database.close()


@pytest.mark.attack(47)
@pytest.mark.parametrize("size", [0, 20_000])
def test_truncated_journal_is_an_error(path: Path, size: int) -> None:
    database = Database(Files(path), Retention())
    database.commit([row(1), row(2, b"x" * 50_000 + b"\n")])
    os.truncate(path.with_name("messages.db-wal"), size)
    for _ in range(2):
        with pytest.raises(sqlite3.Error):
            database.commit([row(3)])
    database.close()


@pytest.mark.attack(47)
@pytest.mark.parametrize("age", [0, 1, 3], ids=["new", "one commit old", "three commits old"])
def test_file_overwritten_by_an_old_copy_of_itself_is_an_error(path: Path, tmp_path: Path, age: int) -> None:
    database, copies = Database(Files(path), Retention()), list[bytes]()
    for number in range(4):
        copies.insert(0, path.read_bytes())
        database.commit([row(number + 1, b"x" * 40_000 + b"\n")])
        database.cut_journal()
    path.write_bytes(copies[age])
    for _ in range(2):
        with pytest.raises(sqlite3.Error):
            database.commit([row(5)])
    database.close()


def test_files_that_were_only_touched_are_no_error(path: Path) -> None:
    database = Database(Files(path), Retention())
    for number in range(3):
        database.commit([row(number + 1)])
        path.touch()
        path.with_name("messages.db-wal").touch()
    database.commit([row(4)])
    assert (len(blocks(database)), database.detached) == (4, False)
    database.close()


def test_commit_that_could_not_be_secured_is_not_made_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(path)
    database = Database(files, Retention(lines=1))
    database.commit([row(1)])
    with monkeypatch.context() as patch:
        patch.setattr(Files, "replaced", property(lambda _: True))
        with pytest.raises(FileNotFoundError):
            database.commit([row(2)])
    assert database.commit([row(2)]) == {"lobby": 1}
    assert database.state("lobby").position == 2
    database.close()


READER = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0.01).execute("SELECT * FROM entries").fetchall()
except sqlite3.OperationalError as error:
    print(error)
"""


def test_no_other_process_can_hold_the_journal(database: Database, path: Path) -> None:
    database.commit([row(1)])
    read = subprocess.run([sys.executable, "-c", READER, path], capture_output=True, text=True, check=True)
    assert read.stdout == "database is locked\n"


def test_room_of_which_nothing_is_known(database: Database) -> None:
    assert database.state("lobby")[1:] == (0, 0)
    assert (blocks(database), database.said("ann")) == ([], None)


def test_room_where_nothing_was_said_yet_keeps_its_epoch(path: Path) -> None:
    first, second = Database(Files(path), Retention()), Database(Files(path), Retention())
    assert first.state("lobby") == second.state("lobby")
    first.close()
    second.close()


def test_what_was_committed_is_there_when_it_is_opened_again(path: Path) -> None:
    first = Database(Files(path), Retention())
    first.commit([row(1, said=1), row(3, b"a\nb\n", said=3), row(1, room="tea", origin="bob")])
    first.close()
    again = Database(Files(path), Retention())
    assert again.read("lobby", 0) == [Entry(1, 1, b"x\n", "ann", 1), Entry(3, 2, b"a\nb\n", "ann", 3)]
    assert blocks(again, "tea") == [b"x\n"]
    assert (again.state("lobby"), again.state("tea")) == (
        State("epoch of lobby", 3, 0),
        State("epoch of tea", 1, 0),
    )
    assert (again.said("ann"), again.said("bob")) == (3, None)
    again.close()


def test_commit_that_fails_leaves_nothing(database: Database) -> None:
    database.commit([row(1)])
    with pytest.raises(sqlite3.IntegrityError):
        database.commit([row(2), row(1)])
    assert (blocks(database), database.state("lobby")) == ([b"x\n"], State("epoch of lobby", 1, 0))
    database.commit([row(2)])
    assert blocks(database) == [b"x\n"] * 2


def test_file_is_for_its_user_alone(database: Database, path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_room_keeps_its_last_lines(path: Path) -> None:
    database = Database(Files(path), Retention(lines=1000))
    begins: dict[str, int] = {}
    for number in range(1, 2001):
        begins |= database.commit([row(number, b"%d\n" % number), row(number, room="tea" if number < 9 else "pub")])
    begin = begins["lobby"]
    assert 990 <= begin <= 1000
    assert database.state("lobby") == State("epoch of lobby", 2000, begin)
    kept, position = list[bytes](), begin
    while found := database.read("lobby", position):
        kept += [entry.block for entry in found]
        position = found[-1].position
    assert kept == [b"%d\n" % number for number in range(begin + 1, 2001)]
    assert len(blocks(database, "tea")) == 8
    database.close()


def test_file_has_so_many_bytes_and_the_newest_of_all_rooms(path: Path) -> None:
    database = Database(Files(path), Retention(size=1_000_000))
    for number in range(1, 1001):
        database.commit([row((number + 1) // 2, b"x" * 4000 + b"\n", room=f"{number % 2}")])
        assert database._used() <= 1_000_000 + 33_000
    database.cut_journal()
    assert path.stat().st_size <= 1_000_000 + 66_000
    for room in ("0", "1"):
        state, entries = database.state(room), database.read(room, 0)
        assert state.begin == entries[0].position - 1
        assert 60 < state.position - state.begin < 130
    database.close()


def test_journal_is_emptied(database: Database, path: Path) -> None:
    for number in range(1, 301):
        database.commit([row(number, b"x" * 4000 + b"\n")])
    assert database.checkpoint() > 1_000_000
    database.cut_journal()
    assert path.with_name("messages.db-wal").stat().st_size == 0
    assert database.checkpoint() == 0


def test_what_is_old_is_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(Files(path), Retention(seconds=60))
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    database.commit([row(1, b"old\n")])
    monkeypatch.setattr(time, "time", lambda: 1050.0)
    database.commit([row(2, b"new\n")])
    assert database.expire() == {}
    monkeypatch.setattr(time, "time", lambda: 1070.0)
    assert database.expire() == {"lobby": 1}
    assert (blocks(database), database.expire()) == ([b"new\n"], {})
    database.close()


@pytest.mark.attack(48)
def test_nothing_is_deleted_for_its_age_while_the_clock_is_in_doubt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(Files(path), Retention(seconds=60))
    database.commit([row(1)])
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert database.expire(by_age=False) == {}
    assert blocks(database) == [b"x\n"]
    database.close()


@pytest.mark.attack(48)
def test_what_was_said_under_a_clock_gone_back_is_no_older_than_what_came_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Database(Files(path), Retention())
    first.commit([row(1)])
    first.close()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1000.0)
        second = Database(Files(path), Retention(seconds=86_400))
        second.commit([row(2, said=1)])
    assert second.expire() == {}
    assert len(blocks(second)) == 2
    second.close()


def test_position_is_kept_though_all_is_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(Files(path), Retention(seconds=60))
    database.commit([row(1), row(2)])
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert database.expire() == {"lobby": 2}
    assert database.state("lobby") == State("epoch of lobby", 2, 2)
    database.close()


def test_speakers_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for second in range(MAX_SPEAKERS // 1000 + 2):
        monkeypatch.setattr(time, "time", lambda: float(second))  # noqa: B023 - called before the next
        database.commit([row(second + 1)])
        rows = [(f"{second} {number}", 1, second) for number in range(1000)]
        with database._change():
            database._db.executemany("INSERT INTO speakers VALUES (?, ?, ?)", rows)
    database.expire()
    assert database._count("SELECT count(*) FROM speakers") <= MAX_SPEAKERS + 1000
    assert (database.said("0 0"), database.said("66 999")) == (None, 1)


def test_places_of_empty_rooms_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ROOMS", 10)
    database = Database(Files(path), Retention(seconds=0))
    database.commit([row(1, room=str(number)) for number in range(10)])
    monkeypatch.setattr(time, "time", lambda: 1e12)
    database.expire()
    database.expire()
    assert database._count("SELECT count(*) FROM rooms") == 10
    database.commit([row(1, room="10")])
    database.expire()
    epoch = database.state("new").epoch
    assert [database.state(str(number)) for number in (0, 9)] == [State(epoch, 0, 0)] * 2
    assert database.state("10") == State("epoch of 10", 1, 0)
    database.close()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 9000), min_size=2, max_size=12), st.data())
def test_torn_write_damages_nothing_that_was_committed(tmp_path: Path, sizes: list[int], data: st.DataObject) -> None:
    """A crash in the middle of a write leaves a part of it, or bytes that nobody wrote."""
    for old in tmp_path.iterdir():
        old.unlink()
    path, journal = tmp_path / "messages.db", tmp_path / "messages.db-wal"
    with contextlib.closing(Database(Files(path), Retention())) as database:  # a draw ends some examples early
        lengths = []
        for number, size in enumerate(sizes, 1):
            database.commit([row(number, b"%d" % number * size + b"\n")])
            lengths.append(journal.stat().st_size)
        survived = data.draw(st.integers(0, len(sizes) - 2))
        torn = data.draw(st.integers(lengths[survived], lengths[survived + 1] - 1))
        shutil.copy(path, tmp_path / "torn.db")
        written = journal.read_bytes()
        garbage = data.draw(st.binary(max_size=100))
        (tmp_path / "torn.db-wal").write_bytes(written[:torn] + garbage)
    with contextlib.closing(Database(Files(tmp_path / "torn.db"), Retention())) as after:
        found, position = list[bytes](), 0
        while entries := after.read("lobby", position):
            found += [entry.block for entry in entries]
            position = entries[-1].position
        assert found == [b"%d" % number * size + b"\n" for number, size in enumerate(sizes[: survived + 1], 1)]
        assert after.commit([row(survived + 2, b"next\n")]) == {}
