"""A file over a data connection: exact, or an error on both sides."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeAlias

import gevent
import pytest
from gevent import socket
from gevent.threadpool import ThreadPool
from transfer.ends import (
    LARGE,
    PULL,
    SECONDS,
    Ends,
    Hook,
    Steps,
    code_of,
    contents,
    download,
    moving_of,
    names,
    only_name,
    opened,
    partial_in,
    serve_on,
    sha256,
)

from greenchat.errors import Code, GreenchatError, ProtocolError
from greenchat.protocol.limits import BLOCK, CHUNK, DIGESTED_AHEAD, MAX_LINE, MAX_NUMBER
from greenchat.protocol.records import Done, File, Go, Got, Have, Pull, Record, encode
from greenchat.transfer import channel as channel_module
from greenchat.transfer import pump as pump_module
from greenchat.transfer.digest import ALGORITHMS, Digest
from greenchat.transfer.partial import Partial

Fails: TypeAlias = Callable[..., AbstractContextManager[None]]
Serve: TypeAlias = "Callable[..., gevent.Greenlet[..., GreenchatError | None]]"
Make: TypeAlias = Callable[[bytes], Path]

A_FILE = encode(File(4, 0))


def _content(into: Path) -> bytes:
    """What is on the requester's disk so far."""
    return (into / only_name(into)).read_bytes()


# --- exact ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x", id="one byte"),
        pytest.param(b"\n\x01{}\n" * 3, id="like records"),
        pytest.param(LARGE[: CHUNK - 1], id="a byte less than a chunk"),
        pytest.param(LARGE[:CHUNK], id="a chunk"),
        pytest.param(LARGE[: CHUNK + 1], id="a byte more than a chunk"),
        pytest.param(LARGE[: BLOCK + 1], id="a byte more than a block"),
        pytest.param((LARGE * 2)[: DIGESTED_AHEAD + 1], id="a byte more than is digested at once"),
        pytest.param(LARGE, id="3 MiB"),
    ],
)
def test_row_16_file_arrives_exact(
    ends: Ends, serve: Serve, make: Make, into: Path, pool: ThreadPool, content: bytes, algorithm: str
) -> None:
    expected = Digest(algorithm)
    expected.update(content)
    serving = serve(make(content), Pull("t", algorithm, 0, ""))
    announced = ends.requester.expect(File, SECONDS)
    assert announced == File(len(content), 0)
    with partial_in(into, algorithm=algorithm) as partial:
        digest = download(ends.requester, partial, pool, announced)
        assert digest == partial.digest() == expected.hex()
        assert _content(into) == content
        assert not serving.dead  # not before the requester has it
        ends.requester.send(Got(digest))
        assert serving.get() is None


def test_row_16_sparse_file_arrives_exact(
    ends: Ends, serve: Serve, make: Make, into: Path, partial: Partial, pool: ThreadPool
) -> None:
    path = make(b"start")
    os.truncate(path, 2 * len(LARGE))
    serving = serve(path)
    ends.requester.send(Got(download(ends.requester, partial, pool)))
    assert serving.get() is None
    assert _content(into) == b"start".ljust(2 * len(LARGE), b"\0")


@pytest.mark.slow
def test_row_16_file_over_4_gib_arrives_exact(
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data))  # there may be no room for it here
    path, size = make(b"start"), 2**32 + 5
    os.truncate(path, size)
    serving = serve(path)
    with gevent.Timeout(600):
        digest = download(ends.requester, partial, pool)
    assert digest == partial.digest()
    assert partial.size == size
    ends.requester.send(Got(digest))
    assert serving.get() is None


def test_both_sides_count_what_moves(ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool) -> None:
    sent, received = moving_of(len(LARGE)), moving_of(len(LARGE))
    serving = serve(make(LARGE), moving=sent)
    ends.requester.send(Got(download(ends.requester, partial, pool, moving=received)))
    assert serving.get() is None
    assert (sent.moved, received.moved) == (len(LARGE), len(LARGE))
    assert (sent.resumed, received.resumed) == (0, 0)


def test_limits_of_both_sides_are_asked(
    ends: Ends, serve: Serve, make: Make, into: Path, partial: Partial, pool: ThreadPool
) -> None:
    out, back = Steps(100_000), Steps(70_000)
    serving = serve(make(LARGE), moving=moving_of(limit=out))
    ends.requester.send(Got(download(ends.requester, partial, pool, moving=moving_of(limit=back))))
    assert serving.get() is None
    assert max(out.sizes) <= 100_000
    assert max(back.sizes) <= 70_000
    assert sum(out.sizes) == sum(back.sizes) == len(LARGE)
    assert _content(into) == LARGE


def test_file_may_come_together_with_its_records(ends: Ends, into: Path, partial: Partial, pool: ThreadPool) -> None:
    ends.say(File(4, 0), b"four", Done("digest"), Done("another"))
    moving = moving_of(4)
    assert download(ends.channel, partial, pool, moving=moving) == "digest"
    assert _content(into) == b"four"
    assert moving.moved == 4
    assert ends.channel.expect(Done, SECONDS) == Done("another")


@pytest.mark.parametrize("cut", [1, len(A_FILE), len(A_FILE) + 2, len(A_FILE) + 4, len(A_FILE) + 9])
def test_file_may_come_in_two_pieces_cut_anywhere(
    ends: Ends, into: Path, partial: Partial, pool: ThreadPool, cut: int
) -> None:
    whole = A_FILE + b"four" + encode(Done("digest"))
    ends.say(whole[:cut])
    downloading = gevent.spawn(download, ends.channel, partial, pool)
    gevent.idle()
    ends.say(whole[cut:])
    assert downloading.get() == "digest"
    assert _content(into) == b"four"


def test_many_transfers_share_few_threads(make: Make, into: Path) -> None:
    path, digests, receives = make(LARGE[: 2 * CHUNK]), ThreadPool(1), ThreadPool(1)
    everyone = [Ends() for _ in range(3)]

    def fetch(ends: Ends, partial: Partial) -> None:
        ends.requester.send(Got(download(ends.requester, partial, receives)))

    with ExitStack() as stack:
        serving = [gevent.spawn(serve_on, ends.channel, path, digests) for ends in everyone]
        fetching = [
            gevent.spawn(fetch, ends, stack.enter_context(partial_in(into, f"{place}")))
            for place, ends in enumerate(everyone)
        ]
        gevent.joinall(fetching, raise_error=True)
        assert [one.get() for one in serving] == [None] * 3
        assert list(contents(into).values()) == [LARGE[: 2 * CHUNK]] * 3
    for ends in everyone:
        ends.close()
    digests.kill()
    receives.kill()


def test_others_run_while_a_file_is_received(ends: Ends, partial: Partial, pool: ThreadPool) -> None:
    ends.say(A_FILE, b"fo")
    downloading = gevent.spawn(download, ends.channel, partial, pool)
    while partial.size < 2:
        gevent.sleep(0.001)
    assert not downloading.dead
    ends.say(b"ur", Done("d"))
    assert downloading.get() == "d"


def test_file_is_read_from_the_disk_once(
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent is digested at the same time: piece by piece, not in a second pass."""
    events: list[str] = []
    real = pump_module.send_range

    def sent(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]  # as it was called
        events.append("sent")

    update_from = Digest.update_from

    def digested(digest: Digest, fd: int, offset: int, size: int) -> None:
        update_from(digest, fd, offset, size)
        events.append("digested")

    monkeypatch.setattr(channel_module, "DIGESTED_AHEAD", CHUNK)
    monkeypatch.setattr(channel_module, "send_range", sent)
    monkeypatch.setattr(Digest, "update_from", digested)
    serving = serve(make(LARGE))
    ends.requester.send(Got(download(ends.requester, partial, pool)))
    assert serving.get() is None
    pieces = [set(events[place : place + 2]) for place in range(0, len(events), 2)]
    assert pieces == [{"sent", "digested"}] * (len(LARGE) // CHUNK)


# --- row 3 and 9: a peer's word never decides where or as what a file is kept -----------------


def test_row_03_name_in_an_announcement_decides_nothing(
    ends: Ends, tmp_path: Path, into: Path, pool: ThreadPool
) -> None:
    said = A_FILE.replace(b"}", b',"name":"../evil","file":"evil","path":"/tmp/evil"}')
    ends.say(said, b"four", Done(sha256(b"four")))
    with partial_in(into, "asked-for") as partial:
        assert download(ends.channel, partial, pool) == partial.digest()
        partial.publish()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["into", "into/asked-for"]


@pytest.mark.parametrize(
    "said",
    [Have("t", 4, ("sha256",)), PULL, Go(), Got("d"), Done("d")],
    ids=lambda record: type(record).__name__,
)
def test_row_03_another_answer_than_the_file_is_refused(ends: Ends, fails: Fails, said: Record) -> None:
    ends.channel.send(PULL)
    ends.say(said, A_FILE)
    with fails(Code.UNEXPECTED, ProtocolError):
        ends.channel.expect(File, SECONDS)


def test_row_09_mode_and_time_in_an_announcement_decide_nothing(
    ends: Ends, into: Path, partial: Partial, pool: ThreadPool
) -> None:
    ends.say(A_FILE.replace(b"}", b',"mode":2541,"mtime":1}'), b"four", Done("d"))
    download(ends.channel, partial, pool)
    partial.publish()
    status = (into / "a").stat()
    assert not status.st_mode & 0o7111
    assert status.st_mtime > 1e9


# --- row 10: the requester's disk -------------------------------------------------------------


def _refuse(*_arguments: object) -> int:
    raise OSError(errno.ENOSPC, "")


@pytest.mark.parametrize("content", [LARGE, b"four"], ids=["in mid-file", "in what came with the header"])
def test_row_10_full_disk_of_the_requester_does_not_hurt_the_owner(
    ends: Ends,
    serve: Serve,
    make: Make,
    into: Path,
    pool: ThreadPool,
    fails: Fails,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    serving = serve(make(content))
    with partial_in(into) as partial, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _refuse)
        with fails(Code.DISK):
            download(ends.requester, partial, pool)
    ends.requester.close()
    assert code_of(serving.get()) is Code.INTERRUPTED
    assert not names(into)
    assert pool.apply(sha256, (b"",)) == sha256(b"")


def test_row_10_disk_that_is_full_in_the_middle_ends_the_connection(
    ends: Ends, into: Path, pool: ThreadPool, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def fill_up(fd: int, data: memoryview, offset: int) -> int:
        return real(fd, data, offset) if offset < 2 else _refuse()

    monkeypatch.setattr(os, "pwrite", fill_up)
    ends.say(File(MAX_NUMBER, 0), b"xx")
    with partial_in(into) as partial:
        downloading = gevent.spawn(download, ends.channel, partial, pool)
        while partial.size < 2:
            gevent.sleep(0.001)
        ends.say(b"x")
        with fails(Code.DISK):
            downloading.get()
        assert not ends.hear()  # nor does the owner wait for anything
    assert not names(into)


# --- row 15: the file changes -----------------------------------------------------------------


def _shrink(path: Path) -> None:
    os.truncate(path, 10)


def _grow(path: Path) -> None:
    with path.open("ab") as end:
        end.write(b"more")


def _overwrite(path: Path) -> None:
    with path.open("r+b") as start:
        start.write(b"other bytes")


def _replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"another")
    path.with_name("new").rename(path)


def _once(change: Callable[[], object]) -> Hook:
    """Make the change when the first step has been sent."""
    changes = [change]
    return Hook(lambda: changes.pop()() if changes else None)


def test_row_15_file_that_shrinks_ends_the_transfer(
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool, fails: Fails
) -> None:
    path = make(LARGE)
    serving = serve(path, moving=moving_of(limit=_once(lambda: _shrink(path))))
    with fails(Code.INTERRUPTED):
        download(ends.requester, partial, pool)
    assert partial.size < len(LARGE)
    assert code_of(serving.get()) is Code.CHANGED


@pytest.mark.parametrize("change", [_grow, _overwrite])
def test_row_15_file_that_is_written_to_ends_the_transfer(
    ends: Ends,
    serve: Serve,
    make: Make,
    partial: Partial,
    pool: ThreadPool,
    fails: Fails,
    change: Callable[[Path], None],
) -> None:
    path = make(LARGE)
    serving = serve(path, moving=moving_of(limit=_once(lambda: change(path))))
    with fails(Code.CHANGED):
        download(ends.requester, partial, pool)
    assert partial.size == len(LARGE)  # as announced, before the peer is told
    assert code_of(serving.get()) is Code.CHANGED


@pytest.mark.parametrize("change", [_shrink, _grow, _overwrite])
def test_row_15_file_that_changes_before_its_first_byte(
    ends: Ends, pool: ThreadPool, make: Make, fails: Fails, change: Callable[[Path], None]
) -> None:
    path = make(LARGE[:1000])
    with opened(path) as file:
        change(path)
        uploading = gevent.spawn(ends.channel.upload, file, PULL, pool, moving_of())
        assert ends.requester.expect(File, SECONDS).size == 1000
        with fails(Code.CHANGED):
            uploading.get()


@pytest.mark.parametrize("change", [_replace, Path.unlink], ids=["replaced", "removed"])
def test_row_15_file_that_is_replaced_or_removed_arrives_as_it_was(
    ends: Ends,
    serve: Serve,
    make: Make,
    into: Path,
    partial: Partial,
    pool: ThreadPool,
    change: Callable[[Path], None],
) -> None:
    path = make(LARGE)
    serving = serve(path, moving=moving_of(limit=_once(lambda: change(path))))
    digest = download(ends.requester, partial, pool)
    ends.requester.send(Got(digest))
    assert serving.get() is None
    assert _content(into) == LARGE
    assert digest == sha256(LARGE)


# --- row 19: more or fewer bytes than announced -----------------------------------------------


@pytest.mark.parametrize("more", [b"!", b"!\n", b"!" * 3 * MAX_LINE], ids=["a byte", "a line", "a flood"])
def test_row_19_more_bytes_than_announced_are_refused(
    ends: Ends, into: Path, partial: Partial, pool: ThreadPool, more: bytes
) -> None:
    ends.say(A_FILE, b"four", more, Done(sha256(b"four" + more)))
    with pytest.raises(ProtocolError):
        download(ends.channel, partial, pool)
    assert _content(into) == b"four"


def test_row_19_fewer_bytes_than_announced_are_refused(
    ends: Ends, partial: Partial, pool: ThreadPool, fails: Fails
) -> None:
    ends.say(File(100, 0), b"few", Done(sha256(b"few")))
    ends.peer.shutdown(socket.SHUT_WR)
    with fails(Code.INTERRUPTED):
        download(ends.channel, partial, pool)


def test_row_19_fewer_bytes_than_announced_on_an_open_connection(
    ends: Ends, partial: Partial, pool: ThreadPool, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 0.01)
    ends.say(File(MAX_NUMBER, 0), b"few")
    with fails(Code.STALLED):
        download(ends.channel, partial, pool)


def test_row_19_done_that_never_comes_is_given_up(
    ends: Ends, partial: Partial, pool: ThreadPool, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module.Channel.expect, "__defaults__", (0.01, 0.0))
    ends.say(A_FILE, b"four")
    with fails(Code.STALLED):
        download(ends.channel, partial, pool)
    assert partial.size == 4


def test_row_19_announced_size_is_neither_allocated_nor_reserved(
    ends: Ends, into: Path, partial: Partial, pool: ThreadPool, fails: Fails
) -> None:
    ends.say(File(MAX_NUMBER, 0), b"few")
    ends.peer.shutdown(socket.SHUT_WR)
    with fails(Code.INTERRUPTED):
        download(ends.channel, partial, pool)
    status = (into / only_name(into)).stat()
    assert status.st_size == 3
    assert status.st_blocks * 512 <= BLOCK


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
    assert partial.digest() == sha256(_content(into))
    ends.requester.abort()
    assert code_of(serving.get()) is Code.INTERRUPTED
    forwarding.join()
    flipping.close()


def test_row_21_digest_is_of_what_was_read_and_not_of_what_was_announced(
    ends: Ends,
    serve: Serve,
    make: Make,
    into: Path,
    partial: Partial,
    pool: ThreadPool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Digest, "hex", lambda _digest: sha256(b"five"))
    serving = serve(make(b"four"))
    assert download(ends.requester, partial, pool) != sha256(_content(into))
    ends.requester.close()
    assert code_of(serving.get()) is Code.INTERRUPTED


def test_row_21_requester_that_got_something_else_is_no_success(
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool
) -> None:
    serving = serve(make(b"four"))
    download(ends.requester, partial, pool)
    ends.requester.send(Got(sha256(b"five")))
    assert code_of(serving.get()) is Code.MISMATCH


def test_requester_that_answers_anything_but_got_is_no_success(
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool
) -> None:
    serving = serve(make(b"four"))
    ends.requester.send(Done(download(ends.requester, partial, pool)))
    assert code_of(serving.get()) is Code.UNEXPECTED


def test_requester_that_gives_up_is_believed(
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool
) -> None:
    serving = serve(make(b"four"))
    download(ends.requester, partial, pool)
    ends.requester.give_up(GreenchatError(Code.DISK))
    assert code_of(serving.get()) is Code.DISK


def test_row_21_file_that_cannot_be_read_again_for_its_digest_does_not_match(
    ends: Ends,
    serve: Serve,
    make: Make,
    into: Path,
    partial: Partial,
    pool: ThreadPool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    serving = serve(make(b"four"))
    assert download(ends.requester, partial, pool) != sha256(b"four")
    assert _content(into) == b"four"
    ends.requester.close()
    assert code_of(serving.get()) is Code.INTERRUPTED


def test_requester_that_never_answers_is_given_up(
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "PUBLISH_SECONDS", 0.005)
    serving = serve(make(b"four"))
    download(ends.requester, partial, pool)
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
    ends: Ends, serve: Serve, make: Make, partial: Partial, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, real = threading.Event(), Digest.update_from

    def update_from(digest: Digest, fd: int, offset: int, size: int) -> None:
        assert go_on.wait(SECONDS)
        real(digest, fd, offset, size)

    monkeypatch.setattr(Digest, "update_from", update_from)
    serving = serve(make(b"four"))
    ends.hear_exactly(len(A_FILE) + 4)  # sent, though not digested
    gevent.idle()
    assert not serving.dead
    go_on.set()
    done = encode(Done(sha256(b"four")))
    assert ends.hear_exactly(len(done)) == done
    ends.say(Got(sha256(b"four")))
    assert serving.get() is None
