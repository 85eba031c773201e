"""From a file to a connection."""

import errno
import os

import gevent
import pytest
from conftest import until
from transfer.ends import AROUND, LARGE, SECONDS, Clock, Pair, Steps, moving_of, read_all
from transfer.files import Fails, fill_descriptor, refusing

from greenchat.errors import Code
from greenchat.protocol.limits import CHUNK
from greenchat.transfer.pump import send_range

# --- without a limit --------------------------------------------------------------------------


@AROUND
def test_row_16_sent_file_is_exact(pair: Pair, file: int, size: int) -> None:
    fill_descriptor(file, LARGE[:size])
    reading, moving = gevent.spawn(read_all, pair[1].sock), moving_of(size)
    send_range(pair[0], file, 0, size, moving)
    pair[0].close()
    assert reading.get() == LARGE[:size]
    assert moving.moved == size


def test_row_16_stretches_of_a_file_are_sent_exact(pair: Pair, file: int) -> None:
    fill_descriptor(file, LARGE[: 3 * CHUNK])
    reading = gevent.spawn(read_all, pair[1].sock)
    for offset in (2 * CHUNK, 0, CHUNK):
        send_range(pair[0], file, offset, CHUNK, moving_of())
    pair[0].close()
    assert reading.get() == LARGE[: 3 * CHUNK][2 * CHUNK :] + LARGE[: 2 * CHUNK]


def test_sending_does_not_move_the_place_in_the_file(pair: Pair, file: int) -> None:
    fill_descriptor(file, b"0123456789")
    os.lseek(file, 4, os.SEEK_SET)
    send_range(pair[0], file, 0, 10, moving_of())
    assert os.lseek(file, 0, os.SEEK_CUR) == 4
    assert pair[1].sock.recv(100) == b"0123456789"


def test_row_15_only_the_announced_bytes_of_a_file_that_grew_are_sent(pair: Pair, file: int) -> None:
    fill_descriptor(file, b"announced, and more")
    send_range(pair[0], file, 0, 9, moving_of())
    pair[0].close()
    assert read_all(pair[1].sock) == b"announced"


@pytest.mark.parametrize("left", [0, 1, CHUNK + 1], ids=["to nothing", "to one byte", "in the middle"])
def test_row_15_file_that_shrank_is_an_error(pair: Pair, file: int, fails: Fails, left: int) -> None:
    fill_descriptor(file, LARGE[: 2 * CHUNK])
    os.truncate(file, left)
    reading = gevent.spawn(read_all, pair[1].sock)
    with fails(Code.CHANGED):
        send_range(pair[0], file, 0, 2 * CHUNK, moving_of())
    pair[0].close()
    assert reading.get() == LARGE[:left]


def test_row_15_file_that_shrinks_while_it_is_sent_is_an_error(pair: Pair, file: int, fails: Fails) -> None:
    fill_descriptor(file, LARGE)
    sending = gevent.spawn(send_range, pair[0], file, 0, len(LARGE), moving_of())
    pair[1].wait_readable()
    os.truncate(file, 1)
    reading = gevent.spawn(read_all, pair[1].sock)
    with fails(Code.CHANGED):
        sending.get()
    pair[0].close()
    assert len(reading.get()) < len(LARGE)  # what waits in the socket may be zeros by now: it is the file's


def test_row_20_peer_that_vanishes_while_a_file_is_sent_is_an_error(pair: Pair, file: int) -> None:
    fill_descriptor(file, bytes(len(LARGE)))
    sending = gevent.spawn(send_range, pair[0], file, 0, len(LARGE), moving_of())
    pair[1].wait_readable()
    pair[1].close()
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        sending.get()


@pytest.mark.usefixtures("no_patience")
def test_peer_that_takes_nothing_is_given_up(pair: Pair, file: int, fails: Fails) -> None:
    fill_descriptor(file, bytes(len(LARGE)))
    with fails(Code.STALLED):
        send_range(pair[0], file, 0, len(LARGE), moving_of())


# --- with a limit -----------------------------------------------------------------------------


def test_steps_of_what_is_sent_are_those_of_its_limit(pair: Pair, file: int) -> None:
    fill_descriptor(file, LARGE[:10_000])
    limit = Steps(3000)
    send_range(pair[0], file, 0, 10_000, moving_of(limit=limit))
    assert limit.sizes == [3000, 3000, 3000, 1000]
    assert pair[1].sock.recv(20_000) == LARGE[:10_000]


def test_no_limit_makes_a_step_larger_than_a_chunk(pair: Pair, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_descriptor(file, LARGE[: 3 * CHUNK])
    asked: list[int] = []
    real = os.sendfile

    def spy(out: int, source: int, offset: int, count: int) -> int:
        asked.append(count)
        return real(out, source, offset, count)

    monkeypatch.setattr(os, "sendfile", spy)
    reading = gevent.spawn(read_all, pair[1].sock)
    send_range(pair[0], file, 0, 3 * CHUNK, moving_of(limit=Steps(100 * CHUNK)))
    pair[0].close()
    assert len(reading.get()) == 3 * CHUNK
    assert max(asked) == CHUNK


def test_what_is_sent_pauses_for_as_long_as_its_limit_says_and_others_run(
    pair: Pair, file: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gevent, "sleep", clock.sleep)
    fill_descriptor(file, LARGE[:10_000])
    send_range(pair[0], file, 0, 10_000, moving_of(limit=Steps(4000, pause=7.5)))
    assert sum(clock.pauses) == pytest.approx(3 * 7.5)


def test_pause_may_be_ended_by_killing_it(pair: Pair, file: int) -> None:
    fill_descriptor(file, LARGE[:10_000])
    moving = moving_of(limit=Steps(4000, pause=600))
    sending = gevent.spawn(send_range, pair[0], file, 0, 10_000, moving)
    assert pair[1].sock.recv(10_000) == LARGE[:4000]
    gevent.idle()
    sending.kill()
    assert moving.moved == 4000


def test_limit_that_is_lifted_keeps_nobody_who_sends(pair: Pair, file: int) -> None:
    fill_descriptor(file, b"xx")
    limit = Steps(1, pause=3600)
    sending = gevent.spawn(send_range, pair[0], file, 0, 2, moving_of(limit=limit))
    until(lambda: limit.sizes)
    limit.lifted = True
    sending.get(timeout=SECONDS)
    assert limit.sizes == [1, 1]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_that_the_system_does_not_send_by_itself_is_copied(
    pair: Pair, file: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fill_descriptor(file, LARGE)
    asked: list[int] = []
    real = os.sendfile

    def refuse_later(out: int, source: int, offset: int, count: int) -> int:
        asked.append(offset)
        if len(asked) > 1:
            raise OSError(number, "")
        return real(out, source, offset, min(count, 1000))

    monkeypatch.setattr(os, "sendfile", refuse_later)
    reading = gevent.spawn(read_all, pair[1].sock)
    send_range(pair[0], file, 0, len(LARGE), moving_of())
    pair[0].close()
    assert reading.get() == LARGE
    assert asked == [0, 1000]


def test_row_15_file_that_shrinks_while_it_is_copied_is_an_error(
    pair: Pair, file: int, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr(os, "sendfile", refusing(errno.EINVAL))
    fill_descriptor(file, b"hello")
    with fails(Code.CHANGED):
        send_range(pair[0], file, 0, 6, moving_of())
