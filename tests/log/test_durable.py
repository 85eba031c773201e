import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.event
import pytest
from conftest import until
from log.helpers import everything, opened, say

from greenchat.errors import Code, LogError, Refused
from greenchat.log import durable, queue
from greenchat.log.database import Database, Retention
from greenchat.log.durable import DurableLog, DurableLogs
from greenchat.log.log import Entry
from greenchat.protocol.limits import TAIL_LINES


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[DurableLogs]:
    with contextlib.closing(DurableLogs(tmp_path)) as made:
        yield made


def test_log_goes_on_where_it_was(tmp_path: Path) -> None:
    with contextlib.closing(DurableLogs(tmp_path)) as logs:
        first = opened(logs)
        say(first, b"a", b"b", said=2)
    with contextlib.closing(DurableLogs(tmp_path)) as logs:
        second = opened(logs)
        assert (second.epoch, second.position, second.begin) == (first.epoch, 2, 0)
        assert (everything(second), second.settle("ann")) == ([(1, b"a"), (2, b"b")], 2)
        say(second, b"c", said=3)
        assert (everything(second, 1), second.settle("ann")) == ([(2, b"b"), (3, b"c")], 3)


def test_more_is_read_than_memory_holds(logs: DurableLogs) -> None:
    log = opened(logs)
    lines = [b"%d" % number for number in range(3 * TAIL_LINES)]
    for at in range(0, len(lines), 8):
        log.append("ann", b"\n".join(lines[at : at + 8]) + b"\n", 8, 0)
    log.settle("")
    assert [line for _, line in everything(log)] == lines


def test_log_begins_later_when_it_has_forgotten_some(tmp_path: Path) -> None:
    with contextlib.closing(DurableLogs(tmp_path, Retention(lines=100))) as logs:
        log = opened(logs)
        for number in range(300):
            log.append("ann", b"%d\n" % number, 1, 0)
        log.settle("")
        assert log.begin == 200
        assert everything(log)[0] == (201, b"200")


def test_what_is_too_old_goes_though_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "EXPIRY_SECONDS", 0.01)
    with contextlib.closing(DurableLogs(tmp_path, Retention(seconds=-10))) as logs:
        log = opened(logs)
        say(log, b"a")
        until(lambda: log.begin == 1)


def test_log_that_is_opened_again_has_what_was_still_waiting(logs: DurableLogs) -> None:
    first = opened(logs)
    first.append("ann", b"x\n", 1, 0)
    del first
    again = opened(logs)
    assert (again.position, everything(again)) == (1, [(1, b"x")])


def test_directory_is_for_one_server_at_a_time(logs: DurableLogs, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="another server uses it"):
        DurableLogs(tmp_path)


@pytest.mark.parametrize("name", ["messages.db", "lock"])
def test_directory_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(LogError, match="cannot keep messages in"):
        DurableLogs(tmp_path)


def test_file_that_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "messages.db").write_bytes(b"x" * 5000)
    with pytest.raises(LogError, match="file is not a database"):
        DurableLogs(tmp_path)


def test_directory_is_for_its_user_alone(tmp_path: Path) -> None:
    with contextlib.closing(DurableLogs(tmp_path / "new")):
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_full_disk_makes_messages_wait(logs: DurableLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LOG_RETRY_SECONDS", 0.01)
    told: list[bool] = []
    logs.watch(told.append)
    log = opened(logs)
    say(log, b"before")
    pages = logs._writer._db.execute("PRAGMA page_count").fetchone()[0]
    logs._writer._db.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(20):
        log.append("ann", b"x" * 5000 + b"\n", 1, 0)
    until(lambda: told)
    assert (told, log.position) == ([False], 1)
    logs._writer._db.execute("PRAGMA max_page_count = 100000")
    log.settle("")
    assert (told, log.position, len(everything(log))) == ([False, True], 21, 21)


def test_journal_is_cut_when_nothing_can_be_written_and_after_a_crash(tmp_path: Path) -> None:
    """It may be what fills the disk."""
    journal = tmp_path / "messages.db-wal"
    with contextlib.closing(DurableLogs(tmp_path)) as logs:
        log = opened(logs)
        say(log, b"x" * 100_000)
        crashed = journal.read_bytes()
        assert crashed
        pages = logs._writer._db.execute("PRAGMA page_count").fetchone()[0]
        logs._writer._db.execute(f"PRAGMA max_page_count = {pages}")
        log.append("ann", b"x" * 500_000 + b"\n", 1, 0)
        until(lambda: not logs.queue.works)
        until(lambda: journal.stat().st_size == 0)
    journal.write_bytes(crashed)
    with contextlib.closing(DurableLogs(tmp_path)) as logs:
        assert journal.stat().st_size == 0
        assert len(everything(opened(logs))) == 1


@pytest.mark.attack(47)
def test_journal_that_was_removed_costs_no_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = tmp_path / "messages.db-wal"
    with contextlib.closing(DurableLogs(tmp_path)) as logs:
        log = opened(logs)
        for number in range(3):
            say(log, b"a%d" % number)
            journal.unlink()
            say(log, b"b%d" % number)
            say(log, b"c%d" % number)
            assert journal.exists()
        assert [line for _, line in everything(opened(logs))] == [line for _, line in everything(log)]
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in ("messages.db", "messages.db-wal"):
            shutil.copy(tmp_path / file, copy)
    assert [record.getMessage() for record in caplog.records] == [
        f"{journal} was removed while in use; nothing of it is lost"
    ] * 3
    with contextlib.closing(DurableLogs(copy)) as crashed:
        assert len(everything(opened(crashed))) == 9


def test_who_asks_a_disk_that_fails_is_refused(logs: DurableLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(logs)
    say(log, b"x")

    def fail(*_: object) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(Database, "said", fail)
    with pytest.raises(Refused) as refused:
        log.settle("bob")
    assert refused.value.code is Code.UNAVAILABLE


WRITER = """
import sys
from pathlib import Path
from log.helpers import opened
from greenchat.log.durable import DurableLogs
logs = DurableLogs(Path(sys.argv[1]))
log = opened(logs)
while True:
    for _ in range(5):
        log.append("ann", b"%d\\n" % log._appended, 1, 0)
    logs.wait(10)
    print(log.position, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 50, 500])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, acknowledged: int) -> None:
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, env={"PYTHONPATH": path}
    ) as writer:
        assert writer.stdout
        last = 0
        while last < acknowledged:
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = int([b"%d" % last, *writer.stdout.read().split()][-1])
    gevent.sleep(0)
    with contextlib.closing(DurableLogs(tmp_path)) as logs:
        log = opened(logs)
        assert log.position >= last
        assert everything(log) == [(number + 1, b"%d" % number) for number in range(log.position)]


def test_what_is_on_the_disk_and_not_placed_yet_is_not_read(logs: DurableLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or who comes back in that moment would hear it twice."""
    say(opened(logs), b"a")
    log = opened(logs)  # with nothing in memory
    waiting, hold = gevent.event.Event(), DurableLogs._place

    def place_later(self: DurableLogs, batch: list[tuple[DurableLog, Entry]]) -> None:
        waiting.wait()
        hold(self, batch)

    monkeypatch.setattr(logs.queue, "_done", lambda batch: place_later(logs, batch))
    log.append("ann", b"b\n", 1, 0)
    until(lambda: len(logs.look_up(Database.read, "lobby", 0)) == 2)
    assert [entry.block for entry in log.read(0)] == [b"a\n"]
    waiting.set()
    log.settle("")
    assert [entry.block for entry in log.read(0)] == [b"a\n", b"b\n"]
