"""What a requester that has a ticket may do: go on from the middle, say anything, and vanish."""

import contextlib

import gevent
import pytest
from client.owners import LARGE, VANISHING, Serving, Vanish, all_but_got, taken
from conftest import until
from peers import sha256

from greenchat import Served
from greenchat.errors import Code
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_NUMBER
from greenchat.protocol.records import Done, File, Got, Pull, Sorry
from greenchat.transfer import channel, rate
from greenchat.transfer.digest import ALGORITHMS, Digest

# --- from the middle on -----------------------------------------------------------------------


@pytest.mark.parametrize("had", [b"h", b"hel", b"hello"])
@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relayed"])
def test_only_what_is_missing_is_sent(serving: Serving, had: bytes, *, relayed: bool) -> None:
    take = serving.grants()
    end = serving.joins(take) if relayed else serving.comes()
    end.tell(Pull(take.ticket, "sha256", len(had), sha256(had)))
    assert taken(end, had) == b"hello"
    until(lambda: serving.served)
    assert serving.served == [Served("ann", "file", 5, None)]


def test_large_file_is_sent_from_the_middle_on(serving: Serving) -> None:
    had = LARGE[:10_000_001]
    end = serving.pulls(serving.grants("large").ticket, len(had), sha256(had))
    assert end.record(File) == File(len(LARGE), len(had))
    (moving,) = serving.client.moving
    assert moving.resumed == len(had)
    assert had + end.exactly(len(LARGE) - len(had)) == LARGE
    assert end.record(Done).digest == sha256(LARGE)


def test_prefix_is_of_the_algorithm_that_is_asked_for(serving: Serving) -> None:
    for algorithm in ALGORITHMS:
        prefix, whole = Digest(algorithm), Digest(algorithm)
        prefix.update(b"hel")
        whole.update(b"hello")
        end = serving.pulls(serving.grants().ticket, 3, prefix.hex(), algorithm)
        assert end.record(File) == File(5, 3)
        assert end.exactly(2) == b"lo"
        assert end.record(Done).digest == whole.hex()
        end.close()


@pytest.mark.parametrize(
    ("offset", "prefix"),
    [
        pytest.param(6, sha256(b"hello!"), id="beyond the end"),
        pytest.param(6, sha256(b"hello"), id="beyond the end, but the digest of all"),
        pytest.param(MAX_NUMBER, sha256(b"hello"), id="2^63 - 1"),
        pytest.param(3, sha256(b"HEL"), id="another content"),
        pytest.param(3, sha256(b"hello"), id="of all instead of a part"),
        pytest.param(5, sha256(b"hel"), id="of a part instead of all"),
        pytest.param(3, "", id="no digest"),
        pytest.param(3, sha256(b"hel").upper(), id="in capitals"),
        pytest.param(3, "\u2603" * 100, id="nonsense"),
        pytest.param(0, sha256(b""), id="from the start"),
        pytest.param(0, sha256(b"hello"), id="from the start, whatever the digest"),
    ],
)
def test_row_22_offset_that_does_not_fit_starts_again(serving: Serving, offset: int, prefix: str) -> None:
    assert taken(serving.pulls(serving.grants().ticket, offset, prefix)) == b"hello"
    serving.chat_goes_on()


@pytest.mark.parametrize("offset", ["-1", "9223372036854775808", "1.5", '"3"', "null", "true", "1e400"])
def test_row_22_offset_that_is_none_is_refused(serving: Serving, offset: str) -> None:
    ticket = serving.grants().ticket
    asked = f'"t":"pull","ticket":"{ticket}","algorithm":"sha256","offset":{offset},"prefix":""'
    end = serving.comes(b"\x01{%b}\n" % asked.encode())
    assert end.record(Sorry).code == Code.BAD_RECORD
    assert serving.served == []
    assert taken(serving.pulls(ticket)) == b"hello"  # which was not used up
    serving.chat_goes_on()


@pytest.mark.parametrize("algorithm", ["", "md5", "SHA256", "x" * 5000])
def test_row_22_digest_that_nobody_offered_is_refused(serving: Serving, algorithm: str) -> None:
    end = serving.pulls(serving.grants().ticket, 0, "", algorithm)
    assert end.record(Sorry).code == Code.BAD_VERSION
    assert end.rest() == b""
    assert serving.failed() == Code.BAD_VERSION
    serving.still_serves()
    serving.chat_goes_on()


def test_row_22_file_that_shrank_after_it_was_offered_starts_again(serving: Serving) -> None:
    ticket = serving.grants().ticket
    (serving.home / "file").write_bytes(b"he")
    assert taken(serving.pulls(ticket, 3, sha256(b"hel"))) == b"he"


# --- what it says of the file -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(encode(Got(sha256(b"jello"))), Code.MISMATCH, id="another digest"),
        pytest.param(encode(Got("")), Code.MISMATCH, id="no digest"),
        pytest.param(b"x" * 100_000, Code.LINE_TOO_LONG, id="a flood"),
        pytest.param(b"\x00\xff\n", Code.BAD_RECORD, id="no record"),
        pytest.param(encode(Pull("t", "sha256", 0, "")), Code.UNEXPECTED, id="asks again"),
        pytest.param(encode(Sorry(Code.DISK, "")), Code.DISK, id="its disk is full"),
        pytest.param(encode(Sorry("of-a-newer-version", "")), Code.FAILED, id="a new reason"),
    ],
)
def test_row_19_requester_that_answers_something_else_was_not_served(
    serving: Serving, answer: bytes, code: Code
) -> None:
    end = serving.pulls(serving.grants().ticket)
    all_but_got(end)
    end.send(answer)
    assert serving.failed() == code
    serving.chat_goes_on()
    serving.still_serves()


def test_row_19_requester_that_talks_before_its_turn_gets_its_file(serving: Serving) -> None:
    end = serving.pulls(serving.grants().ticket)
    end.tell(Got(sha256(b"hello")))  # what it will say anyway
    assert end.exactly(end.record(File).size) == b"hello"
    end.record(Done)
    until(lambda: serving.served)
    assert serving.served == [Served("ann", "file", 5, None)]


# --- who vanishes -----------------------------------------------------------------------------


@VANISHING
@pytest.mark.parametrize("first", [b"", b'\x01{"t":"pu'], ids=["before the ticket", "in the ticket"])
def test_row_20_somebody_vanishes(serving: Serving, first: bytes, vanish: Vanish) -> None:
    end = serving.comes(first)
    until(lambda: serving.client._uploads._strangers)
    vanish(end.sock)
    until(lambda: not serving.client._uploads._strangers)
    assert serving.served == []
    serving.chat_goes_on()
    serving.still_serves()


@VANISHING
@pytest.mark.parametrize("read", [0, 100_000], ids=["before the file", "in mid-file"])
def test_row_20_requester_vanishes_while_it_is_sent_a_file(serving: Serving, read: int, vanish: Vanish) -> None:
    end = serving.pulls(serving.grants("large").ticket)
    end.exactly(read)
    vanish(end.sock)
    assert serving.failed() == Code.INTERRUPTED
    assert (serving.served[0].requester, serving.served[0].file) == ("ann", "large")
    serving.chat_goes_on()
    serving.still_serves()


def test_row_20_requester_that_vanishes_before_got_is_not_counted_as_served(serving: Serving) -> None:
    end = serving.pulls(serving.grants().ticket)
    all_but_got(end)
    end.close()
    assert serving.failed() == Code.INTERRUPTED


def test_refusal_instead_of_got_is_told(serving: Serving) -> None:
    end = serving.pulls(serving.grants().ticket)
    all_but_got(end)
    end.tell(Sorry(Code.MISMATCH, ""))
    assert serving.failed() == Code.MISMATCH


def test_row_32_requester_that_leaves_may_still_be_sent_what_it_has_a_ticket_for(serving: Serving) -> None:
    take = serving.grants()
    serving.ann.close()
    assert taken(serving.pulls(take.ticket)) == b"hello"


@VANISHING
def test_row_20_requester_vanishes_while_its_part_is_read(
    serving: Serving, vanish: Vanish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "DIGESTED_AHEAD", 1000)  # so that it takes long
    monkeypatch.setattr(channel, "WAIT_SECONDS", 0.0)
    end = serving.pulls(serving.grants("large").ticket, len(LARGE), sha256(LARGE))
    end.line()
    vanish(end.sock)
    assert serving.failed() == Code.INTERRUPTED
    serving.chat_goes_on()
    serving.still_serves()


# --- the end ----------------------------------------------------------------------------------


def test_closing_ends_what_is_being_served(serving: Serving) -> None:
    end = serving.pulls(serving.grants("large").ticket)
    end.exactly(100_000)
    serving.client.close()
    with contextlib.suppress(ConnectionResetError):
        assert len(end.rest()) < len(LARGE)
    with pytest.raises(ConnectionRefusedError):
        serving.comes()


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relayed"])
def test_closing_waits_for_no_limited_rate(serving: Serving, monkeypatch: pytest.MonkeyPatch, *, relayed: bool) -> None:
    monkeypatch.setattr(rate.RateLimit, "pause", lambda _self, _size: 20.0)
    take = serving.grants("large")
    end = serving.joins(take) if relayed else serving.comes()
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    end.exactly(1000)
    with gevent.Timeout(10):
        serving.client.close()
