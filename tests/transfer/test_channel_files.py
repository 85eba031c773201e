"""A file over a data connection: exact, or an error on both sides."""

import errno
import itertools
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
from conftest import until
from gevent import socket
from gevent.threadpool import ThreadPool
from transfer.ends import (
    A_FILE,
    LARGE,
    PULL,
    SECONDS,
    Download,
    Ends,
    Hook,
    Make,
    Serve,
    Steps,
    code_of,
    download,
    moving_of,
    opened,
    serve_on,
)
from transfer.files import (
    Fails,
    contents,
    grow,
    names,
    only_content,
    only_name,
    overwrite,
    partial_in,
    refusing,
    replace,
    sha256,
    shrink,
)

from greenchat.errors import Code, ProtocolError
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import BLOCK, CHUNK, DIGESTED_AHEAD, MAX_LINE, MAX_NUMBER
from greenchat.protocol.records import Done, File, Go, Got, Have, Pull, Record
from greenchat.transfer import channel as channel_module
from greenchat.transfer import pump as pump_module
from greenchat.transfer.digest import ALGORITHMS, Digest
from greenchat.transfer.partial import Partial

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
        assert only_content(into) == content
        assert not serving.dead  # not before the requester has it
        ends.requester.send(Got(digest))
        assert serving.get() is None


def test_row_16_sparse_file_arrives_exact(ends: Ends, serve: Serve, make: Make, into: Path, fetch: Download) -> None:
    path = make(b"start")
    os.truncate(path, 2 * len(LARGE))
    serving = serve(path)
    ends.requester.send(Got(fetch()))
    assert serving.get() is None
    assert only_content(into) == b"start".ljust(2 * len(LARGE), b"\0")


@pytest.mark.slow
def test_row_16_file_over_4_gib_arrives_exact(
    ends: Ends, serve: Serve, make: Make, partial: Partial, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data))  # there may be no room for it here
    path, size = make(b"start"), 2**32 + 5
    os.truncate(path, size)
    serving = serve(path)
    with gevent.Timeout(600):
        digest = fetch()
    assert digest == partial.digest()
    assert partial.size == size
    ends.requester.send(Got(digest))
    assert serving.get() is None


def test_both_sides_count_what_moves(ends: Ends, serve: Serve, make: Make, fetch: Download) -> None:
    sent, received = moving_of(len(LARGE)), moving_of(len(LARGE))
    serving = serve(make(LARGE), moving=sent)
    ends.requester.send(Got(fetch(moving=received)))
    assert serving.get() is None
    assert (sent.moved, received.moved) == (len(LARGE), len(LARGE))
    assert (sent.resumed, received.resumed) == (0, 0)


def test_limits_of_both_sides_are_asked(ends: Ends, serve: Serve, make: Make, into: Path, fetch: Download) -> None:
    out, back = Steps(100_000), Steps(70_000)
    serving = serve(make(LARGE), moving=moving_of(limit=out))
    ends.requester.send(Got(fetch(moving=moving_of(limit=back))))
    assert serving.get() is None
    assert max(out.sizes) <= 100_000
    assert max(back.sizes) <= 70_000
    assert sum(out.sizes) == sum(back.sizes) == len(LARGE)
    assert only_content(into) == LARGE


def test_file_may_come_together_with_its_records(ends: Ends, into: Path, take: Download) -> None:
    ends.say(File(4, 0), b"four", Done("digest"), Done("another"))
    moving = moving_of(4)
    assert take(moving=moving) == "digest"
    assert only_content(into) == b"four"
    assert moving.moved == 4
    assert ends.channel.expect(Done, SECONDS) == Done("another")


@pytest.mark.parametrize("cut", [1, len(A_FILE), len(A_FILE) + 2, len(A_FILE) + 4, len(A_FILE) + 9])
def test_file_may_come_in_two_pieces_cut_anywhere(ends: Ends, into: Path, take: Download, cut: int) -> None:
    whole = A_FILE + b"four" + encode(Done("digest"))
    ends.say(whole[:cut])
    downloading = gevent.spawn(take)
    gevent.idle()
    ends.say(whole[cut:])
    assert downloading.get() == "digest"
    assert only_content(into) == b"four"


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


def test_others_run_while_a_file_is_received(ends: Ends, partial: Partial, take: Download) -> None:
    ends.say(A_FILE, b"fo")
    downloading = gevent.spawn(take)
    until(lambda: partial.size == 2)
    assert not downloading.dead
    ends.say(b"ur", Done("d"))
    assert downloading.get() == "d"


def test_file_is_read_from_the_disk_once(
    ends: Ends, serve: Serve, make: Make, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece is sent once it is read and digested, while the next one is: the hub never waits for the disk."""
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
    ends.requester.send(Got(fetch()))
    assert serving.get() is None
    ahead = list(itertools.accumulate(1 if event == "digested" else -1 for event in events))
    assert min(ahead) == ahead[-1] == 0
    assert max(ahead) <= 2
    assert len(events) == 2 * len(LARGE) // CHUNK


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
    ends: Ends, into: Path, partial: Partial, take: Download
) -> None:
    ends.say(A_FILE.replace(b"}", b',"mode":2541,"mtime":1}'), b"four", Done("d"))
    take()
    partial.publish()
    status = (into / "a").stat()
    assert not status.st_mode & 0o7111
    assert status.st_mtime > 1e9


# --- row 10: the requester's disk -------------------------------------------------------------


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
        patch.setattr(os, "pwrite", refusing(errno.ENOSPC))
        with fails(Code.DISK):
            download(ends.requester, partial, pool)
    ends.requester.close()
    assert code_of(serving.get()) is Code.INTERRUPTED
    assert not names(into)
    assert pool.apply(sha256, (b"",)) == sha256(b"")


def test_row_10_disk_that_is_full_in_the_middle_ends_the_connection(
    ends: Ends, into: Path, pool: ThreadPool, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refuse = os.pwrite, refusing(errno.ENOSPC)

    def fill_up(fd: int, data: memoryview, offset: int) -> Any:
        return (real if offset < 2 else refuse)(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", fill_up)
    ends.say(File(MAX_NUMBER, 0), b"xx")
    with partial_in(into) as partial:
        downloading = gevent.spawn(download, ends.channel, partial, pool)
        until(lambda: partial.size == 2)
        ends.say(b"x")
        with fails(Code.DISK):
            downloading.get()
        assert not ends.hear()  # nor does the owner wait for anything
    assert only_content(into) == b"xx"


# --- row 15: the file changes -----------------------------------------------------------------


def _once(change: Callable[[], object]) -> Hook:
    """Make the change when the first step has been sent."""
    changes = [change]
    return Hook(lambda: changes.pop()() if changes else None)


def test_row_15_file_that_shrinks_ends_the_transfer(
    ends: Ends, serve: Serve, make: Make, partial: Partial, fetch: Download, fails: Fails
) -> None:
    path = make(LARGE)
    serving = serve(path, moving=moving_of(limit=_once(lambda: shrink(path))))
    with fails(Code.INTERRUPTED):
        fetch()
    assert partial.size < len(LARGE)
    assert code_of(serving.get()) is Code.CHANGED


@pytest.mark.parametrize("change", [grow, overwrite])
def test_row_15_file_that_is_written_to_ends_the_transfer(
    ends: Ends,
    serve: Serve,
    make: Make,
    partial: Partial,
    fetch: Download,
    fails: Fails,
    change: Callable[[Path], None],
) -> None:
    path = make(LARGE)
    serving = serve(path, moving=moving_of(limit=_once(lambda: change(path))))
    with fails(Code.CHANGED):
        fetch()
    assert partial.size == len(LARGE)  # as announced, before the peer is told
    assert code_of(serving.get()) is Code.CHANGED


@pytest.mark.parametrize("change", [shrink, grow, overwrite])
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


@pytest.mark.parametrize("change", [replace, Path.unlink], ids=["replaced", "removed"])
def test_row_15_file_that_is_replaced_or_removed_arrives_as_it_was(
    ends: Ends, serve: Serve, make: Make, into: Path, fetch: Download, change: Callable[[Path], None]
) -> None:
    path = make(LARGE)
    serving = serve(path, moving=moving_of(limit=_once(lambda: change(path))))
    digest = fetch()
    ends.requester.send(Got(digest))
    assert serving.get() is None
    assert only_content(into) == LARGE
    assert digest == sha256(LARGE)


# --- row 19: more or fewer bytes than announced -----------------------------------------------


@pytest.mark.parametrize("more", [b"!", b"!\n", b"!" * 3 * MAX_LINE], ids=["a byte", "a line", "a flood"])
def test_row_19_more_bytes_than_announced_are_refused(ends: Ends, into: Path, take: Download, more: bytes) -> None:
    ends.say(A_FILE, b"four", more, Done(sha256(b"four" + more)))
    with pytest.raises(ProtocolError):
        take()
    assert only_content(into) == b"four"


def test_row_19_fewer_bytes_than_announced_are_refused(ends: Ends, take: Download, fails: Fails) -> None:
    ends.say(File(100, 0), b"few", Done(sha256(b"few")))
    ends.peer.shutdown(socket.SHUT_WR)
    with fails(Code.INTERRUPTED):
        take()


def test_row_19_fewer_bytes_than_announced_on_an_open_connection(
    ends: Ends, take: Download, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 0.01)
    ends.say(File(MAX_NUMBER, 0), b"few")
    with fails(Code.STALLED):
        take()


def test_row_19_done_that_never_comes_is_given_up(
    ends: Ends, partial: Partial, take: Download, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module.Channel.expect, "__defaults__", (0.01, 0.0))
    ends.say(A_FILE, b"four")
    with fails(Code.STALLED):
        take()
    assert partial.size == 4


def test_row_19_announced_size_is_neither_allocated_nor_reserved(
    ends: Ends, into: Path, take: Download, fails: Fails
) -> None:
    ends.say(File(MAX_NUMBER, 0), b"few")
    ends.peer.shutdown(socket.SHUT_WR)
    with fails(Code.INTERRUPTED):
        take()
    status = (into / only_name(into)).stat()
    assert status.st_size == 3
    assert status.st_blocks * 512 <= BLOCK
