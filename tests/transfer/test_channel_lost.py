"""Who vanishes, or is killed, in the middle of a transfer: the other side is told, and nothing is left behind."""

import errno
import os
import threading
from pathlib import Path

import gevent
import pytest
from conftest import _open_descriptors, until
from gevent import get_hub, socket
from gevent.event import Event
from gevent.threadpool import ThreadPool
from transfer.ends import (
    A_FILE,
    LARGE,
    PULL,
    SECONDS,
    Download,
    Ends,
    Gate,
    Make,
    Serve,
    Steps,
    before_each_digest,
    code_of,
    download,
    moving_of,
    opened,
)
from transfer.files import Fails, contents, fill, interrupt, only_content, partial_in, refusing, sha256

from greenchat.errors import Code, GreenchatError
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import CHUNK
from greenchat.protocol.records import Done, File, Pull
from greenchat.transfer import channel as channel_module
from greenchat.transfer.digest import Digest
from greenchat.transfer.partial import Partial

THE_REST = encode(File(4, 2))
DONE = encode(Done("d" * 64))
RESUMED = Pull("t", "sha256", 2, sha256(b"fo"))


def _halted(ends: Ends, partial: Partial, pool: ThreadPool) -> "tuple[gevent.Greenlet[..., str], Gate]":
    """A download of six bytes, with a thread that holds at a gate with four of them."""
    gate = Gate(step=2)
    ends.say(File(6, 0))
    announced = ends.channel.expect(File, SECONDS)
    ends.say(b"four")
    downloading = gevent.spawn(download, ends.channel, partial, pool, announced, moving_of(limit=gate))
    until(gate.reached.is_set)
    return downloading, gate


# --- the owner vanishes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="at once"),
        pytest.param(A_FILE[:9], id="in the header"),
        pytest.param(A_FILE, id="before the first byte"),
        pytest.param(A_FILE + b"fo", id="in the file"),
        pytest.param(A_FILE + b"four", id="before done"),
        pytest.param(A_FILE + b"four" + DONE[:-1], id="in done"),
    ],
)
@pytest.mark.parametrize("unread", [False, True], ids=["closes", "resets"])
def test_row_20_owner_vanishes(ends: Ends, take: Download, fails: Fails, said: bytes, *, unread: bool) -> None:
    if unread:  # what the peer did not read turns its closing into a reset
        ends.channel.send(PULL)
    ends.say(said)
    ends.peer.close()
    with fails(Code.INTERRUPTED):
        take()


@pytest.mark.parametrize(
    ("said", "came"),
    [
        pytest.param(THE_REST, b"", id="before the first byte"),
        pytest.param(THE_REST + b"u", b"u", id="in the file"),
        pytest.param(THE_REST + b"ur", b"ur", id="before done"),
        pytest.param(THE_REST + b"ur" + DONE[:-1], b"ur", id="in done"),
    ],
)
def test_row_20_owner_vanishes_again_while_the_rest_comes(
    ends: Ends, into: Path, pool: ThreadPool, fails: Fails, said: bytes, came: bytes
) -> None:
    interrupt(into, b"fo")
    ends.say(said)
    ends.peer.close()
    with partial_in(into) as partial, fails(Code.INTERRUPTED):
        download(ends.channel, partial, pool)
    assert only_content(into) == b"fo" + came
    with partial_in(into) as partial:
        assert partial.begin("sha256") == sha256(b"fo" + came)


def test_row_20_what_came_before_the_owner_vanished_can_be_resumed_at_once(
    ends: Ends, into: Path, partial: Partial, pool: ThreadPool, take: Download, fails: Fails
) -> None:
    ends.say(A_FILE, b"fo")
    ends.peer.close()
    with fails(Code.INTERRUPTED):
        take()
    assert (partial.size, partial.begin("sha256")) == (2, sha256(b"fo"))
    another = Ends()
    another.say(THE_REST, b"ur", Done("d"))
    assert download(another.channel, partial, pool) == "d"
    assert partial.digest() == sha256(b"four")
    assert only_content(into) == b"four"
    another.close()


# --- the requester vanishes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "pull", "heard"),
    [
        pytest.param(LARGE, PULL, 0, id="before the header"),
        pytest.param(LARGE, PULL, 10, id="in the header"),
        pytest.param(LARGE, PULL, CHUNK, id="in the file"),
        pytest.param(b"four", PULL, len(A_FILE) + 4, id="before done"),
        pytest.param(b"four", PULL, len(A_FILE) + 4 + len(DONE), id="before got"),
        pytest.param(b"", PULL, len(A_FILE), id="in an empty file"),
        pytest.param(b"four", RESUMED, 0, id="resumed, before the header"),
        pytest.param(b"four", RESUMED, len(THE_REST) + 1, id="resumed, in the file"),
        pytest.param(b"four", RESUMED, len(THE_REST) + 2, id="resumed, before done"),
        pytest.param(b"four", RESUMED, len(THE_REST) + 2 + len(DONE), id="resumed, before got"),
    ],
)
@pytest.mark.parametrize("unread", [False, True], ids=["closes", "resets"])
def test_row_20_requester_vanishes(
    ends: Ends, serve: Serve, make: Make, content: bytes, pull: Pull, heard: int, *, unread: bool
) -> None:
    if unread:
        ends.channel.send(PULL)  # never read, which turns its peer's closing into a reset
        heard += len(encode(PULL)) if heard else 0
    serving = serve(make(content), pull)
    ends.hear_exactly(heard)
    ends.peer.close()
    assert code_of(serving.get()) is Code.INTERRUPTED


def test_row_20_requester_that_ends_instead_of_got(ends: Ends, serve: Serve, make: Make, fetch: Download) -> None:
    serving = serve(make(b"four"))
    fetch()
    ends.peer.shutdown(socket.SHUT_WR)
    assert code_of(serving.get()) is Code.INTERRUPTED


def test_row_20_requester_that_vanishes_while_its_part_is_read_ends_the_reading(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "DIGESTED_AHEAD", 100)
    monkeypatch.setattr(channel_module, "WAIT_SECONDS", -1.0)
    read: list[int] = []
    before_each_digest(monkeypatch, lambda offset, _size: read.append(offset))
    ends.peer.close()
    serving = serve(make(LARGE), Pull("t", "sha256", len(LARGE), "x"))
    assert code_of(serving.get()) is Code.INTERRUPTED
    assert len(read) <= 2


def test_upload_that_cannot_be_sent_is_interrupted(ends: Ends, make: Make, pool: ThreadPool, fails: Fails) -> None:
    ends.peer.close()
    with opened(make(b"four")) as file, fails(Code.INTERRUPTED):
        ends.channel.upload(file, PULL, pool, moving_of())


# --- threads and their descriptors ------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "pull", "kill"),
    [
        pytest.param(LARGE, PULL, False, id="peer gone"),
        pytest.param(LARGE, PULL, True, id="killed while it sends"),
        pytest.param(b"four", PULL, True, id="killed while it waits for the thread"),
        pytest.param(LARGE, RESUMED, True, id="killed while the requester's part is read"),
    ],
)
def test_row_20_lost_upload_closes_no_descriptor_that_a_thread_reads(
    ends: Ends,
    serve: Serve,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    pull: Pull,
    *,
    kill: bool,
) -> None:
    hub, started, go_on, ended = get_hub(), Event(), threading.Event(), threading.Event()
    still_open: list[bool] = []

    def read_for_long(_digest: Digest, fd: int, _offset: int, _size: int) -> None:
        hub.loop.run_callback_threadsafe(started.set)
        go_on.wait(SECONDS)
        still_open.append(Path(f"/proc/self/fd/{fd}").exists())
        ended.set()

    monkeypatch.setattr(Digest, "update_from", read_for_long)
    ends.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    serving = serve(make(content), pull)
    started.wait()
    serving.kill(block=False) if kill else ends.peer.close()
    gevent.idle()
    go_on.set()
    ended.wait(SECONDS)
    serving.join()
    assert still_open == [True]


def test_row_20_lost_download_closes_no_descriptor_that_a_thread_reads(
    ends: Ends, into: Path, pool: ThreadPool
) -> None:
    with partial_in(into) as partial:
        downloading, gate = _halted(ends, partial, pool)
        downloading.kill()
        ends.channel.close()
    fresh = os.open(os.devnull, os.O_RDONLY)  # which would get the number, were it free
    gate.go_on.set()
    until(lambda: partial._fd < 0)
    os.close(fresh)
    assert only_content(into) == b"four"
    with partial_in(into) as partial:
        assert partial.begin("sha256") == sha256(b"four")


# --- killed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pull", "heard"),
    [
        pytest.param(PULL, 1, id="in the header"),
        pytest.param(PULL, len(A_FILE), id="in the file"),
        pytest.param(PULL, len(A_FILE) + 4, id="before done"),
        pytest.param(PULL, len(A_FILE) + 4 + len(DONE), id="before got"),
        pytest.param(RESUMED, len(THE_REST), id="resumed"),
    ],
)
def test_row_20_owner_killed_at_any_step_ends_the_connection(
    ends: Ends, serve: Serve, make: Make, pull: Pull, heard: int
) -> None:
    serving = serve(make(b"four"), pull)
    ends.hear_exactly(heard)
    serving.kill()
    assert b"sorry" not in ends.hear()
    assert ends.sock.fileno() == -1


@pytest.mark.parametrize(
    "said", [b"", A_FILE[:9], A_FILE, A_FILE + b"fo", A_FILE + b"four", A_FILE + b"four" + DONE[:9]]
)
def test_row_20_requester_killed_at_any_step_keeps_what_came(
    ends: Ends, into: Path, pool: ThreadPool, said: bytes
) -> None:
    came = said[len(A_FILE) :][:4]
    with partial_in(into) as partial:
        ends.say(said)
        downloading = gevent.spawn(download, ends.channel, partial, pool)
        until(lambda: partial.size == len(came))
        gevent.idle()
        downloading.kill()
        ends.channel.close()
        until(lambda: not partial._in_use.locked())
        assert partial.begin("sha256") == sha256(came)
    assert list(contents(into).values()) == ([came] if came else [])


def test_row_20_what_came_is_free_for_another_as_soon_as_its_greenlet_has_ended(
    ends: Ends, into: Path, pool: ThreadPool
) -> None:
    with partial_in(into) as partial:
        ends.say(A_FILE, b"fo")
        downloading = gevent.spawn(download, ends.channel, partial, pool)
        until(lambda: partial.size == 2)
        downloading.kill()
    with partial_in(into) as partial:
        assert (partial.size, partial.resumable) == (2, True)


def test_row_20_thread_that_hangs_holds_up_its_greenlet_for_a_moment_only(
    ends: Ends, partial: Partial, take: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "ABORT_SECONDS", 0.01)
    gate = Gate(step=2)
    ends.say(File(6, 0), b"fo")
    announced = ends.channel.expect(File, SECONDS)
    ends.say(b"ur")
    downloading = gevent.spawn(take, announced, moving_of(limit=gate))
    until(gate.reached.is_set)
    downloading.kill()
    assert downloading.dead
    assert partial._in_use.locked()
    gate.go_on.set()


def test_row_20_requester_killed_in_a_file_ends_the_connection(
    ends: Ends, serve: Serve, make: Make, into: Path, pool: ThreadPool
) -> None:
    gate = Gate()
    serving = serve(make(LARGE))
    with partial_in(into) as partial:
        downloading = gevent.spawn(download, ends.requester, partial, pool, moving=moving_of(limit=gate))
        until(gate.reached.is_set)
        downloading.kill()
        assert code_of(serving.get()) is Code.INTERRUPTED
        gate.go_on.set()
        ends.requester.close()
    until(lambda: partial._fd < 0)
    assert LARGE.startswith(only_content(into))


def test_row_20_owner_killed_while_it_pauses_for_its_limit(
    ends: Ends, serve: Serve, make: Make, partial: Partial, fetch: Download, fails: Fails
) -> None:
    moving = moving_of(limit=Steps(1000, pause=600))
    serving = serve(make(LARGE), moving=moving)
    downloading = gevent.spawn(fetch)
    until(lambda: partial.size == 1000)
    gevent.idle()
    serving.kill()
    with fails(Code.INTERRUPTED):
        downloading.get()
    assert partial.digest() == sha256(LARGE[:1000])


class Busy:
    """A pool of one thread that is busy, with *more* tasks waiting for it; a pool takes one without blocking."""

    def __init__(self, more: int) -> None:
        self.pool = ThreadPool(1)
        self._go_on = threading.Event()
        for _ in range(1 + more):
            self.pool.spawn(self._go_on.wait, SECONDS)

    def free(self) -> None:
        self._go_on.set()
        self.pool.join()
        self.pool.kill()


@pytest.mark.parametrize("more", [0, 1], ids=["queued", "waiting to be queued"])
def test_row_20_killed_while_it_waits_for_a_thread_to_receive(ends: Ends, partial: Partial, more: int) -> None:
    busy, before = Busy(more), len(_open_descriptors())
    ends.say(A_FILE, b"four", Done("d"))
    downloading = gevent.spawn(download, ends.channel, partial, busy.pool)
    until(lambda: len(_open_descriptors()) > before)
    downloading.kill()
    busy.free()
    assert len(_open_descriptors()) == before
    assert partial.size in {0, 4}


@pytest.mark.parametrize("more", [0, 1], ids=["queued", "waiting to be queued"])
@pytest.mark.parametrize("pull", [PULL, RESUMED], ids=["to digest what is sent", "to read the requester's part"])
def test_row_20_killed_while_it_waits_for_a_thread(ends: Ends, make: Make, pull: Pull, more: int) -> None:
    busy = Busy(more)
    with opened(make(b"four")) as file:
        before = len(_open_descriptors())
        uploading = gevent.spawn(ends.channel.upload, file, pull, busy.pool, moving_of(4))
        until(lambda: len(_open_descriptors()) > before)
        uploading.kill()
        busy.free()
        assert len(_open_descriptors()) == before


@pytest.mark.parametrize("more", [0, 1], ids=["queued", "waiting to be queued"])
def test_row_20_partial_that_was_closed_while_its_thread_was_waited_for_stays_closed(
    ends: Ends, into: Path, more: int
) -> None:
    busy, before = Busy(more), len(_open_descriptors())
    with partial_in(into) as partial:
        fill(partial, b"had")
        ends.say(A_FILE, b"four", Done("d"))
        opened_now = len(_open_descriptors())
        downloading = gevent.spawn(download, ends.channel, partial, busy.pool)
        until(lambda: len(_open_descriptors()) > opened_now)
        downloading.kill()
    busy.free()
    assert len(_open_descriptors()) == before
    assert only_content(into) == b"had"


def test_row_20_shared_thread_is_free_again_after_its_peer_vanished(
    ends: Ends, partial: Partial, into: Path, fails: Fails
) -> None:
    one_thread = ThreadPool(1)
    ends.say(A_FILE, b"fo")
    downloading = gevent.spawn(download, ends.channel, partial, one_thread)
    until(lambda: partial.size == 2)
    ends.peer.close()
    with fails(Code.INTERRUPTED):
        downloading.get()
    another = Ends()
    another.say(A_FILE, b"next", Done("d"))
    with partial_in(into, "b") as next_one:
        assert download(another.channel, next_one, one_thread) == "d"
    another.close()
    one_thread.kill()


@pytest.mark.parametrize("keep", [True, False])
def test_row_33_partial_closed_while_its_thread_receives_stays_or_goes_as_its_user_wants(
    ends: Ends, into: Path, pool: ThreadPool, fails: Fails, *, keep: bool
) -> None:
    with partial_in(into) as partial:
        downloading, gate = _halted(ends, partial, pool)
        partial.resumable = keep
    ends.channel.abort()
    gate.go_on.set()
    with fails(Code.INTERRUPTED):
        downloading.get()
    assert list(contents(into).values()) == ([b"four"] if keep else [])


# --- out of descriptors -----------------------------------------------------------------------


def test_without_descriptors_a_download_fails_as_foreseen(
    ends: Ends, take: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "dup", refusing(errno.EMFILE))
    ends.say(A_FILE, b"four", Done("d"))
    with pytest.raises(GreenchatError):
        take()


@pytest.mark.parametrize("pull", [PULL, RESUMED], ids=["whole", "resumed"])
def test_without_descriptors_an_upload_fails_as_foreseen(
    ends: Ends, make: Make, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch, pull: Pull
) -> None:
    monkeypatch.setattr(os, "dup", refusing(errno.EMFILE))
    with opened(make(b"four")) as file, pytest.raises(GreenchatError):
        ends.channel.upload(file, pull, pool, moving_of())
