"""What is published has the digest that the owner told, and the owner hears that it was."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from gevent.threadpool import ThreadPool
from transfer.ends import A_FILE, LARGE, SECONDS, Download, Ends, Make, Serve, before_each_digest, code_of, download
from transfer.files import Fails, names, only_content, partial_in, refusing, sha256

from greenchat.errors import Code, GreenchatError
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import CHUNK
from greenchat.protocol.records import Done, File, Got, Pull
from greenchat.transfer import channel as channel_module
from greenchat.transfer.channel import Channel
from greenchat.transfer.digest import Digest
from greenchat.transfer.partial import Partial

# --- row 21: bytes flipped on the way, and wrong digests --------------------------------------


@pytest.mark.parametrize(
    ("came", "digest"),
    [
        pytest.param(b"f0ur", sha256(b"four"), id="flipped bytes"),
        pytest.param(b"four", sha256(b"five"), id="another digest"),
        pytest.param(b"four", sha256(b"four").upper(), id="in capitals"),
        pytest.param(b"four", "", id="no digest"),
        pytest.param(b"four", sha256(b"four")[:8], id="the start of the digest"),
    ],
)
def test_row_21_what_does_not_match_is_never_published(
    ends: Ends, into: Path, pool: ThreadPool, came: bytes, digest: str
) -> None:
    ends.say(A_FILE, came, Done(digest))
    with partial_in(into) as partial:
        assert download(ends.channel, partial, pool) != partial.digest()
        assert not (into / "a").exists()
        partial.resumable = False
    assert not names(into)


def test_row_21_bit_flipped_anywhere_on_the_way_does_not_match(
    ends: Ends, serve: Serve, make: Make, into: Path, partial: Partial, pool: ThreadPool
) -> None:
    flipping = Ends()
    flip_at = len(encode(File(len(LARGE), 0))) + len(LARGE) // 2

    def forward() -> None:
        passed = 0
        while data := bytearray(ends.peer.recv(CHUNK)):
            if 0 <= flip_at - passed < len(data):
                data[flip_at - passed] ^= 4
            passed += len(data)
            flipping.say(bytes(data))

    forwarding, serving = gevent.spawn(forward), serve(make(LARGE))
    digest = download(flipping.channel, partial, pool)
    assert digest == sha256(LARGE)
    assert partial.digest() != digest
    assert partial.digest() == sha256(only_content(into))
    ends.requester.abort()
    assert code_of(serving.get()) is Code.INTERRUPTED
    forwarding.join()
    flipping.close()


def test_row_21_digest_is_of_what_was_read_and_not_of_what_was_announced(
    ends: Ends, serve: Serve, make: Make, into: Path, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Digest, "hex", lambda _digest: sha256(b"five"))
    serving = serve(make(b"four"))
    assert fetch() != sha256(only_content(into))
    ends.requester.close()
    assert code_of(serving.get()) is Code.INTERRUPTED


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(lambda requester: requester.send(Got(sha256(b"five"))), Code.MISMATCH, id="something else"),
        pytest.param(lambda requester: requester.send(Done(sha256(b"four"))), Code.UNEXPECTED, id="anything but got"),
        pytest.param(lambda requester: requester.give_up(GreenchatError(Code.DISK)), Code.DISK, id="gives up"),
    ],
)
def test_row_21_requester_that_does_not_say_that_it_got_the_file_is_no_success(
    ends: Ends, serve: Serve, make: Make, fetch: Download, answer: Callable[[Channel], None], code: Code
) -> None:
    serving = serve(make(b"four"))
    assert fetch() == sha256(b"four")
    answer(ends.requester)
    assert code_of(serving.get()) is code


def test_row_21_file_that_cannot_be_read_again_for_its_digest_does_not_match(
    ends: Ends, serve: Serve, make: Make, into: Path, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "preadv", refusing(errno.EIO))
    serving = serve(make(b"four"))
    assert fetch() != sha256(b"four")
    assert only_content(into) == b"four"
    ends.requester.close()
    assert code_of(serving.get()) is Code.INTERRUPTED


def test_requester_that_never_answers_is_given_up(
    ends: Ends, serve: Serve, make: Make, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "PUBLISH_SECONDS", 0.005)
    serving = serve(make(b"four"))
    fetch()
    assert code_of(serving.get(timeout=SECONDS)) is Code.STALLED


# --- algorithms -------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["", "md5", "SHA256", "blake3\0", "x" * 1000, "__class__"])
@pytest.mark.parametrize("offset", [0, 2])
def test_row_27_algorithm_that_the_owner_does_not_have_is_refused_before_a_byte_is_sent(
    ends: Ends, serve: Serve, make: Make, fails: Fails, algorithm: str, offset: int
) -> None:
    serving = serve(make(b"four"), Pull("t", algorithm, offset, sha256(b"fo")))
    with fails(Code.BAD_VERSION):
        ends.requester.expect(File, SECONDS)
    assert code_of(serving.get()) is Code.BAD_VERSION
    assert not ends.hear()


def test_digest_of_a_thread_does_not_hold_up_others(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def wait(_offset: int, _size: int) -> None:
        assert go_on.wait(SECONDS)

    before_each_digest(monkeypatch, wait)
    serving = serve(make(b"four"))
    ends.hear_exactly(len(A_FILE))
    gevent.idle()
    assert not serving.dead
    go_on.set()
    assert ends.hear_exactly(4) == b"four"
    done = encode(Done(sha256(b"four")))
    assert ends.hear_exactly(len(done)) == done
    ends.say(Got(sha256(b"four")))
    assert serving.get() is None
