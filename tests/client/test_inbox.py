import itertools

import gevent
import pytest

from greenchat.client import inbox
from greenchat.client.inbox import Inbox
from greenchat.errors import Code, ServerGone
from greenchat.protocol.limits import MAX_LINE


def test_lines_come_in_order() -> None:
    box = Inbox()
    box.put(b"ann: 1\nbob: 2\n")
    box.put(b"ann: 3\n")
    box.close()
    assert list(box) == ["ann: 1", "bob: 2", "ann: 3"]


def test_line_that_is_not_there_yet_is_waited_for() -> None:
    box = Inbox()
    reading = gevent.spawn(next, box)
    gevent.sleep(0)
    assert not reading.ready()
    box.put(b"ann: hi\n")
    assert reading.get() == "ann: hi"


def test_closing_ends_the_wait() -> None:
    box = Inbox()
    reading = gevent.spawn(list, box)
    gevent.sleep(0)
    box.close()
    assert reading.get() == []


def test_error_comes_after_what_arrived_before_it() -> None:
    box = Inbox()
    box.put(b"ann: last\n")
    box.close(ServerGone(Code.SHUTDOWN))
    lines = box
    assert next(lines) == "ann: last"
    with pytest.raises(ServerGone):
        next(lines)


def test_first_closing_decides() -> None:
    box = Inbox()
    box.close()
    box.close(ServerGone(Code.SHUTDOWN))
    assert list(box) == []


def test_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_INBOX", 10)
    box = Inbox()
    box.put(b"12345\n")
    box.put(b"1\n2\n3\n4\n")
    box.put(b"abc\n")
    assert box.missed == 4
    box.close()
    assert list(box) == ["12345", "abc"]


def test_what_was_read_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_INBOX", 10)
    box, got = Inbox(), []
    lines = box
    for number in range(100):
        box.put(b"%08d\n" % number)
        got.append(next(lines))
    assert got == [f"{number:08}" for number in range(100)]
    assert box.missed == 0


def test_separators_of_python_end_no_line() -> None:
    box = Inbox()
    box.put("ann: a\x0bb\x0cc\x1cd\x85e\u2028f\n".encode())
    box.close()
    assert list(box) == ["ann: a\x0bb\x0cc\x1cd\x85e\u2028f"]


def test_invalid_utf_8_is_shown_as_such() -> None:
    box = Inbox()
    box.put(b"ann: \xff\n")
    assert list(itertools.islice(box, 1)) == ["ann: \ufffd"]


FLOODING = b"x\n" * MAX_LINE


def test_row_30_a_flood_waits_for_the_program_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_INBOX", 3 * len(FLOODING))
    box = Inbox()
    box.put(FLOODING)
    box.put(FLOODING)
    flooding = gevent.spawn(box.put, FLOODING)
    gevent.idle()
    assert not flooding.ready()
    assert next(box) == "x"
    flooding.get(timeout=5)
    assert box.missed == 0


def test_row_30_nothing_else_waits_for_the_program_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_INBOX", 3 * len(FLOODING))
    box = Inbox()
    box.put(FLOODING)
    box.put(FLOODING)
    speaking = gevent.spawn(box.put, b"ann: hi\n")
    gevent.idle()
    assert speaking.ready()
