import contextlib
import os
import socket as blocking
import subprocess
import threading
import time

import gevent
import pytest
from conftest import until
from gevent import socket
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.ends import A_FILE, LARGE, PULL, SECONDS, Download, Ends, Hook, Make, Serve, code_of, moving_of
from transfer.files import Fails

from greenchat.errors import Code, GreenchatError, ProtocolError, TransferError
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_LINE, MAX_NUMBER, SLOWEST_DISK
from greenchat.protocol.records import Done, File, Go, Got, Have, Pull, Record, Sorry, Wait
from greenchat.transfer import channel as channel_module
from greenchat.transfer.channel import Channel
from greenchat.transfer.partial import Partial

# --- records ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [Pull("t", "sha256", 7, "p"), File(MAX_NUMBER, 0), Done("d"), Got("d"), Go(), Wait()],
    ids=lambda record: type(record).__name__,
)
def test_record_arrives(ends: Ends, record: Record) -> None:
    ends.channel.send(record)
    assert ends.requester.expect(type(record), SECONDS) == record


def test_records_arrive_in_order(ends: Ends) -> None:
    for ticket in "abc":
        ends.channel.send(Pull(ticket, "sha256", 0, ""))
    assert [ends.requester.expect(Pull, SECONDS).ticket for _ in "abc"] == ["a", "b", "c"]


def test_record_may_come_in_pieces(ends: Ends) -> None:
    expecting = gevent.spawn(ends.channel.expect, Pull, SECONDS)
    for byte in encode(PULL):
        ends.say(bytes([byte]))
        gevent.idle()
    assert expecting.get() == PULL


def test_unknown_kinds_and_fields_are_ignored(ends: Ends) -> None:
    ends.say(b'\x01{"t":"news"}\n' + encode(PULL).replace(b"}\n", b',"hue":1}\r\n'))
    assert ends.channel.expect(Pull, SECONDS) == PULL


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.CHANGED, Code.BAD_TICKET])
def test_sorry_is_raised_as_its_error(ends: Ends, fails: Fails, code: Code) -> None:
    ends.say(Sorry(code, "\x1b[2J what a peer says is not shown"))
    with pytest.raises(TransferError) as caught:
        ends.channel.expect(File, SECONDS)
    assert caught.value.code is code
    assert "\x1b" not in str(caught.value)


def test_sorry_of_an_unknown_code_is_a_failure(ends: Ends, fails: Fails) -> None:
    ends.say(Sorry("on-holiday", ""))
    with fails(Code.FAILED):
        ends.channel.expect(File, SECONDS)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(encode(Done("d")), Code.UNEXPECTED, id="another record"),
        pytest.param(encode(Have("t", 1, ("sha256",))), Code.UNEXPECTED, id="a record of the chat connection"),
        pytest.param(b"hello\n", Code.BAD_RECORD, id="text"),
        pytest.param(b"\n", Code.BAD_RECORD, id="empty line"),
        pytest.param(A_FILE.replace(b"\x01", b"x"), Code.BAD_RECORD, id="another mark"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", Code.BAD_RECORD, id="another protocol"),
        pytest.param(b"\x01\n", Code.BAD_RECORD, id="empty record"),
        pytest.param(b"\x01{\n", Code.BAD_RECORD, id="not JSON"),
        pytest.param(b"\x01[]\n", Code.BAD_RECORD, id="no object"),
        pytest.param(b"\x01\xff\n", Code.BAD_RECORD, id="invalid UTF-8"),
        pytest.param(b'\x01{"t":"file","offset":0}\n', Code.BAD_RECORD, id="missing field"),
        pytest.param(b"\x01" + b"[" * 5000 + b"\n", Code.BAD_RECORD, id="deep nesting"),
        pytest.param(A_FILE.replace(b"4", b"-1"), Code.BAD_RECORD, id="negative size"),
        pytest.param(A_FILE.replace(b"0", b"-1"), Code.BAD_RECORD, id="row 22: negative offset"),
        pytest.param(A_FILE.replace(b"4", b"4.0"), Code.BAD_RECORD, id="fraction of a byte"),
        pytest.param(A_FILE.replace(b"4", b"true"), Code.BAD_RECORD, id="boolean size"),
        pytest.param(A_FILE.replace(b"4", b'"4"'), Code.BAD_RECORD, id="size as text"),
        pytest.param(A_FILE.replace(b"4", b"9223372036854775808"), Code.BAD_RECORD, id="row 19: 2^63 bytes"),
        pytest.param(A_FILE.replace(b"4", b"9" * 5000), Code.BAD_RECORD, id="huge integer"),
    ],
)
def test_peer_that_breaks_a_rule(ends: Ends, fails: Fails, said: bytes, code: Code) -> None:
    ends.say(said)
    with fails(code, ProtocolError):
        ends.channel.expect(File, SECONDS)


@settings(deadline=None)
@given(said=st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: b"\x01{" + data + b"}\n"))
def test_whatever_a_peer_says_is_a_foreseen_error(said: bytes) -> None:
    with contextlib.closing(Ends()) as ends:
        ends.say(said)
        ends.peer.shutdown(socket.SHUT_WR)
        with pytest.raises((ProtocolError, TransferError)):
            ends.channel.expect(File, SECONDS)


def _say_for_ever(ends: Ends, said: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            ends.say(said)


@pytest.mark.attack(37)
def test_tls_is_refused_at_its_first_byte(ends: Ends, fails: Fails) -> None:
    ends.say(b"\x16")
    with fails(Code.BAD_RECORD, ProtocolError):
        ends.channel.expect(File, SECONDS)


@pytest.mark.parametrize("start", [b"", b"\x01"], ids=["text", "record"])
def test_endless_line_is_refused_before_it_is_long(ends: Ends, fails: Fails, start: bytes) -> None:
    ends.say(start)
    saying = gevent.spawn(_say_for_ever, ends, b"x" * 1000)
    with fails(Code.LINE_TOO_LONG, ProtocolError):
        ends.channel.expect(File, SECONDS)
    assert len(ends.channel._early) <= 2 * MAX_LINE
    saying.kill()


def _padded(record: bytes, size: int) -> bytes:
    return record.replace(b"}\n", b" " * (size + 1 - len(record)) + b"}\n")


def test_longest_record_is_taken(ends: Ends) -> None:
    ends.say(_padded(A_FILE, MAX_LINE))
    assert ends.channel.expect(File, SECONDS).size == 4


def test_record_over_the_limit_is_refused(ends: Ends, fails: Fails) -> None:
    ends.say(_padded(A_FILE, MAX_LINE + 1))
    with fails(Code.LINE_TOO_LONG, ProtocolError):
        ends.channel.expect(File, SECONDS)


def test_silent_peer_is_given_up(ends: Ends, fails: Fails) -> None:
    with fails(Code.STALLED):
        ends.channel.expect(File, 0.005)


def test_row_19_peer_that_trickles_bytes_is_given_up(ends: Ends, fails: Fails) -> None:
    def trickle() -> None:
        while True:
            ends.say(b"x")
            gevent.sleep(0.001)

    trickling = gevent.spawn(trickle)
    with fails(Code.STALLED):
        ends.channel.expect(File, 0.02)
    trickling.kill()


def test_row_19_flood_of_unknown_records_meets_the_deadline_too(fails: Fails) -> None:
    near, far = blocking.socketpair()
    channel = Channel(socket.socket(fileno=near.detach()))
    flood = subprocess.Popen(["yes", '\x01{"t":"news"}'], stdout=far.fileno(), stderr=subprocess.DEVNULL)
    far.close()
    guard = threading.Timer(0.5, flood.kill)  # no greenlet would get its turn
    guard.start()
    try:
        with fails(Code.STALLED):
            channel.expect(File, 0.01)
    finally:
        guard.cancel()
        guard.join()
        flood.kill()
        flood.wait()
        channel.close()


def test_peer_that_takes_no_record_is_given_up(ends: Ends, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "STALL_SECONDS", 0.005)
    with fails(Code.STALLED):
        while True:
            ends.channel.send(Sorry("x" * 4000, ""))


def test_own_record_too_long_is_not_sent(ends: Ends, fails: Fails) -> None:
    with fails(Code.LINE_TOO_LONG, ProtocolError):
        ends.channel.send(Sorry("x" * MAX_LINE, ""))
    ends.channel.abort()
    assert not ends.hear()


# --- more time --------------------------------------------------------------------------------


def _granted(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that *channel* gives its peer for each record."""
    seconds: list[float] = []
    real = channel._receive_within

    def spy(granted: float) -> Record:
        seconds.append(granted)
        return real(granted)

    monkeypatch.setattr(channel, "_receive_within", spy)
    return seconds


def test_each_wait_grants_as_much_time_again(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    granted = _granted(ends.channel, monkeypatch)
    ends.say(Wait(), Wait(), Wait(), File(4, 2))
    assert ends.channel.expect(File, 7.5, more=100.0) == File(4, 2)
    assert granted == [7.5] * 4


def test_last_wait_grants_no_more_than_is_left(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    granted = _granted(ends.channel, monkeypatch)
    ends.say(Wait(), File(4, 2))
    assert ends.channel.expect(File, 7.5, more=-5.0) == File(4, 2)
    assert granted[0] == 7.5
    assert 0 < granted[1] <= 2.5


def test_silence_after_a_wait_is_not_forgiven(ends: Ends, fails: Fails) -> None:
    ends.say(Wait())
    with fails(Code.STALLED):
        ends.channel.expect(File, 0.01, more=100.0)


def test_sorry_after_a_wait_is_raised(ends: Ends, fails: Fails) -> None:
    ends.say(Wait(), Sorry(Code.NOT_FOUND, ""))
    with fails(Code.NOT_FOUND):
        ends.channel.expect(File, SECONDS, more=100.0)


def test_end_after_a_wait_is_an_interruption(ends: Ends, fails: Fails) -> None:
    ends.say(Wait())
    ends.peer.close()
    with fails(Code.INTERRUPTED):
        ends.channel.expect(File, SECONDS, more=100.0)


def test_wait_where_none_is_allowed_is_refused(ends: Ends, fails: Fails) -> None:
    ends.say(Wait(), Done("d"))
    with fails(Code.UNEXPECTED, ProtocolError):
        ends.channel.expect(Done, SECONDS)


def test_row_19_flood_of_waits_ends_when_its_time_is_over(ends: Ends) -> None:
    saying = gevent.spawn(_say_for_ever, ends, encode(Wait()) * 100)
    begun = time.monotonic()
    with pytest.raises((ProtocolError, TransferError)):
        ends.channel.expect(File, 0.05, more=0.05)
    assert time.monotonic() - begun < SECONDS
    assert len(ends.channel._early) <= 2 * MAX_LINE
    saying.kill()


def test_row_19_waits_without_end_do_not_hold_for_ever(ends: Ends) -> None:
    def wait_for_ever() -> None:
        with contextlib.suppress(OSError):
            while True:
                ends.say(Wait())
                gevent.sleep(0.01)

    waiting = gevent.spawn(wait_for_ever)
    begun = time.monotonic()
    with pytest.raises((ProtocolError, TransferError)):
        ends.channel.expect(File, 1.0, more=0.1)
    assert time.monotonic() - begun < SECONDS
    waiting.kill()


def test_wait_for_a_small_part_is_no_offence(ends: Ends) -> None:
    """An owner whose disk has to wake up says so after `WAIT_SECONDS`, however little it has to read."""
    ends.say(Wait(), File(4, 2))
    assert ends.channel.expect(File, SECONDS, more=2 / SLOWEST_DISK) == File(4, 2)


# --- giving up and ending ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TransferError, ProtocolError])
def test_peer_is_told_why(ends: Ends, fails: Fails, kind: type[GreenchatError]) -> None:
    ends.channel.give_up(kind(Code.BAD_TICKET, "/home/somebody is nobody's business"))
    ends.channel.close()
    heard = ends.hear()
    assert b'"bad-ticket"' in heard
    assert b"somebody" not in heard


def test_nothing_is_told_amid_the_bytes_of_a_file(ends: Ends, serve: Serve, make: Make) -> None:
    path = make(LARGE)
    serving = serve(path, moving=moving_of(limit=Hook(lambda: os.truncate(path, 10))))
    heard = ends.hear()
    assert code_of(serving.get()) is Code.CHANGED
    assert b"sorry" not in heard
    assert len(heard) < len(LARGE)


def test_peer_is_told_why_when_it_pulled_what_is_not_there(ends: Ends, serve: Serve, make: Make, fails: Fails) -> None:
    path = make(b"four")
    path.unlink()
    serving = serve(path)
    with fails(Code.NOT_FOUND):
        ends.requester.expect(File, SECONDS)
    assert code_of(serving.get()) is Code.NOT_FOUND


def test_giving_up_on_a_lost_peer_is_no_error(ends: Ends) -> None:
    ends.peer.close()
    ends.channel.give_up(TransferError(Code.CHANGED))


def test_abort_ends_whoever_waits(ends: Ends, fails: Fails) -> None:
    expecting = gevent.spawn(ends.channel.expect, File, SECONDS)
    gevent.idle()
    ends.channel.abort()
    with fails(Code.INTERRUPTED):
        expecting.get()


@pytest.mark.parametrize("half", [b"", b"ha"], ids=["before the first byte", "in the file"])
def test_abort_ends_a_download(ends: Ends, partial: Partial, take: Download, fails: Fails, half: bytes) -> None:
    ends.say(A_FILE, half)
    downloading = gevent.spawn(take)
    until(lambda: partial.size == len(half))
    gevent.idle()
    ends.channel.abort()
    with fails(Code.INTERRUPTED):
        downloading.get()
    assert partial.size == len(half)


def test_abort_ends_an_upload(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(LARGE))
    ends.peer.recv(1)
    gevent.idle()
    ends.channel.abort()
    assert code_of(serving.get()) is Code.INTERRUPTED


def test_abort_of_a_lost_connection_is_no_error(ends: Ends) -> None:
    ends.peer.close()
    ends.channel.abort()
    ends.channel.close()
    ends.channel.abort()
