import contextlib
import hashlib
import os
import random
import socket as blocking
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import gevent
import pytest
from gevent import get_hub, socket
from gevent.event import Event
from gevent.threadpool import ThreadPool
from hypothesis import given, settings
from hypothesis import strategies as st

from greenchat.errors import Code, GreenchatError, ProtocolError, TransferError
from greenchat.protocol.limits import CHUNK, MAX_LINE, MAX_NUMBER
from greenchat.protocol.records import Done, File, Go, Got, Have, Pull, Record, Sorry, encode
from greenchat.transfer import channel as channel_module
from greenchat.transfer import pump as pump_module
from greenchat.transfer.channel import Channel
from greenchat.transfer.digest import ALGORITHM, Digest
from greenchat.transfer.partial import Partial
from greenchat.transfer.share import Share, SharedFile

Fails: TypeAlias = Callable[..., AbstractContextManager[None]]
Serve: TypeAlias = "Callable[..., gevent.Greenlet[..., GreenchatError | None]]"
Make: TypeAlias = Callable[[bytes], Path]

SECONDS = 5.0
"""More than anything here takes, less than a test may."""

LARGE = random.Random(0).randbytes(3 * 1024 * 1024)
"""More than the buffers between two ends hold."""

A_FILE = b'\x01{"t":"file","size":4,"algorithm":"sha256"}\n'


# --- two ends ---------------------------------------------------------------------------------


class Ends:
    """Both ends of a data connection: a channel, and a peer that spells out its bytes or is a channel as well."""

    def __init__(self) -> None:
        self.sock, self.peer = socket.socketpair()
        self.channel = Channel(self.sock)
        self.requester = Channel(self.peer)

    def close(self) -> None:
        self.channel.close()
        self.requester.close()

    def say(self, *parts: Record | bytes) -> None:
        """The peer says this."""
        self.peer.sendall(b"".join(part if isinstance(part, bytes) else encode(part) for part in parts))

    def hear(self) -> bytes:
        """All that the peer is told until the connection ends."""
        heard = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := self.peer.recv(1 << 20):
                heard += data
        return bytes(heard)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The one file of the owner."""
    (tmp_path / "share").mkdir()
    return tmp_path / "share" / "file"


@pytest.fixture
def make(shared: Path) -> Make:
    """Fill the owner's file, long ago."""

    def fill(content: bytes) -> Path:
        shared.write_bytes(content)
        os.utime(shared, (1e9, 1e9))
        return shared

    return fill


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[SharedFile]:
    with contextlib.closing(Share(path.parent)) as share, share.open(path.name) as file:
        yield file


def _serve(channel: Channel, path: Path, pool: ThreadPool) -> GreenchatError | None:
    """What an owner does; what went wrong."""
    try:
        with _opened(path) as file:
            channel.upload(file, pool)
    except GreenchatError as error:
        channel.give_up(error)
        return error
    else:
        return None
    finally:
        channel.close()


@pytest.fixture
def serve(ends: Ends, pool: ThreadPool) -> Serve:
    """The channel's end serves a file; what went wrong."""
    return lambda path: gevent.spawn(_serve, ends.channel, path, pool)


def _nothing(_piece: memoryview) -> None:
    pass


def _download(channel: Channel, write: Callable[[memoryview], None]) -> str:
    """What a requester does, up to the owner's digest."""
    return channel.download(channel.expect(File, SECONDS), write)


def _hear_until(ends: Ends, size: int) -> None:
    while size:
        data = ends.peer.recv(size)
        assert data
        size -= len(data)


def _code(error: GreenchatError | None) -> Code | None:
    return error.code if error else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- records ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [Pull("t"), File(MAX_NUMBER, "sha256"), Done("d"), Got("d"), Go()],
    ids=lambda record: type(record).__name__,
)
def test_record_arrives(ends: Ends, record: Record) -> None:
    ends.channel.send(record)
    assert ends.requester.expect(type(record), SECONDS) == record


def test_records_arrive_in_order(ends: Ends) -> None:
    for ticket in "abc":
        ends.channel.send(Pull(ticket))
    assert [ends.requester.expect(Pull, SECONDS).ticket for _ in "abc"] == ["a", "b", "c"]


def test_record_may_come_in_pieces(ends: Ends) -> None:
    expecting = gevent.spawn(ends.channel.expect, Pull, SECONDS)
    for byte in encode(Pull("t")):
        ends.say(bytes([byte]))
        gevent.idle()
    assert expecting.get() == Pull("t")


def test_unknown_kinds_and_fields_are_ignored(ends: Ends) -> None:
    ends.say(b'\x01{"t":"news"}\n\x01{"t":"pull","ticket":"t","hue":1}\r\n')
    assert ends.channel.expect(Pull, SECONDS) == Pull("t")


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
        pytest.param(encode(Have("t", 1)), Code.UNEXPECTED, id="a record of the chat connection"),
        pytest.param(b"hello\n", Code.BAD_RECORD, id="text"),
        pytest.param(b"\n", Code.BAD_RECORD, id="empty line"),
        pytest.param(A_FILE.replace(b"\x01", b"x"), Code.BAD_RECORD, id="another mark"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", Code.BAD_RECORD, id="another protocol"),
        pytest.param(b"\x01\n", Code.BAD_RECORD, id="empty record"),
        pytest.param(b"\x01{\n", Code.BAD_RECORD, id="not JSON"),
        pytest.param(b"\x01[]\n", Code.BAD_RECORD, id="no object"),
        pytest.param(b"\x01\xff\n", Code.BAD_RECORD, id="invalid UTF-8"),
        pytest.param(b'\x01{"t":"file","algorithm":"sha256"}\n', Code.BAD_RECORD, id="missing field"),
        pytest.param(b"\x01" + b"[" * 5000 + b"\n", Code.BAD_RECORD, id="deep nesting"),
        pytest.param(A_FILE.replace(b"4", b"-1"), Code.BAD_RECORD, id="negative size"),
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
            ends.channel.send(Pull("x" * 4000))


def test_own_record_too_long_is_not_sent(ends: Ends, fails: Fails) -> None:
    with fails(Code.LINE_TOO_LONG, ProtocolError):
        ends.channel.send(Pull("x" * MAX_LINE))
    ends.channel.abort()
    assert not ends.hear()


# --- a file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x", id="one byte"),
        pytest.param(b"\n\x01{}\n" * 3, id="like records"),
        pytest.param(LARGE[: CHUNK - 1], id="a byte less than a chunk"),
        pytest.param(LARGE[:CHUNK], id="a chunk"),
        pytest.param(LARGE[: CHUNK + 1], id="a byte more than a chunk"),
        pytest.param(LARGE, id="3 MiB"),
    ],
)
def test_row_16_file_arrives_exact(ends: Ends, serve: Serve, make: Make, content: bytes) -> None:
    serving = serve(make(content))
    received = bytearray()
    announced = ends.requester.expect(File, SECONDS)
    assert announced == File(len(content), ALGORITHM)
    digest = ends.requester.download(announced, received.extend)
    assert digest == _sha256(content)
    assert received == content
    assert not serving.dead  # not before the requester has it
    ends.requester.send(Got(digest))
    assert serving.get() is None


def test_row_16_sparse_file_arrives_exact(ends: Ends, serve: Serve, make: Make) -> None:
    path = make(b"start")
    os.truncate(path, 2 * len(LARGE))
    serving = serve(path)
    received = bytearray()
    ends.requester.send(Got(_download(ends.requester, received.extend)))
    assert serving.get() is None
    assert received == b"start".ljust(2 * len(LARGE), b"\0")


@pytest.mark.slow
def test_row_16_file_over_4_gib_arrives_exact(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, size = make(b"start"), 2**32 + 5
    os.truncate(path, size)
    serving = serve(path)
    digest, length = Digest(), 0

    def write(piece: memoryview) -> None:
        nonlocal length
        digest.update(piece)
        length += len(piece)

    with gevent.Timeout(600):
        assert _download(ends.requester, write) == digest.hex()
    ends.requester.send(Got(digest.hex()))
    assert serving.get() is None
    assert length == size


def test_file_may_come_together_with_its_records(ends: Ends) -> None:
    ends.say(File(4, ALGORITHM), b"four", Done("digest"), Done("another"))
    received = bytearray()
    assert _download(ends.channel, received.extend) == "digest"
    assert received == b"four"
    assert ends.channel.expect(Done, SECONDS) == Done("another")


@pytest.mark.parametrize("cut", [1, len(A_FILE), len(A_FILE) + 2, len(A_FILE) + 4, len(A_FILE) + 9])
def test_file_may_come_in_two_pieces_cut_anywhere(ends: Ends, cut: int) -> None:
    whole = A_FILE + b"four" + encode(Done("digest"))
    received = bytearray()
    ends.say(whole[:cut])
    downloading = gevent.spawn(_download, ends.channel, received.extend)
    gevent.idle()
    ends.say(whole[cut:])
    assert downloading.get() == "digest"
    assert received == b"four"


def test_uploads_share_few_threads(make: Make) -> None:
    path, one_thread, everyone = make(LARGE[: 2 * CHUNK]), ThreadPool(1), [Ends() for _ in range(3)]
    serving = [gevent.spawn(_serve, ends.channel, path, one_thread) for ends in everyone]
    for ends in everyone:
        ends.requester.send(Got(_download(ends.requester, _nothing)))
    assert [one.get() for one in serving] == [None] * 3
    for ends in everyone:
        ends.close()
    one_thread.kill()


# --- row 3 and 9: a peer's word never decides where or as what a file is kept -----------------


def test_row_03_name_in_an_announcement_decides_nothing(ends: Ends, tmp_path: Path) -> None:
    said = A_FILE.replace(b"}", b',"name":"../evil","file":"evil","path":"/tmp/evil"}')
    ends.say(said, b"four", Done(_sha256(b"four")))
    (tmp_path / "into").mkdir()
    with Partial(tmp_path / "into", "asked-for") as partial:
        assert _download(ends.channel, partial.write) == partial.digest()
        partial.publish()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["into", "into/asked-for"]


@pytest.mark.parametrize("said", [Have("t", 4), Pull("t"), Go(), Got("d")], ids=lambda record: type(record).__name__)
def test_row_03_another_answer_than_the_file_is_refused(ends: Ends, fails: Fails, said: Record) -> None:
    ends.channel.send(Pull("t"))
    ends.say(said, A_FILE)
    with fails(Code.UNEXPECTED, ProtocolError):
        ends.channel.expect(File, SECONDS)


def test_row_09_mode_and_time_in_an_announcement_decide_nothing(ends: Ends, tmp_path: Path) -> None:
    ends.say(A_FILE.replace(b"}", b',"mode":2541,"mtime":1}'), b"four", Done("d"))
    with Partial(tmp_path, "a") as partial:
        _download(ends.channel, partial.write)
        partial.publish()
    status = (tmp_path / "a").stat()
    assert not status.st_mode & 0o7111
    assert status.st_mtime > 1e9


# --- row 10: the requester's disk -------------------------------------------------------------


def test_row_10_full_disk_of_the_requester_does_not_hurt_the_owner(
    ends: Ends, serve: Serve, make: Make, pool: ThreadPool, fails: Fails
) -> None:
    def refuse(_piece: memoryview) -> None:
        raise TransferError(Code.DISK)

    serving = serve(make(LARGE))
    with fails(Code.DISK):
        _download(ends.requester, refuse)
    ends.requester.close()
    assert _code(serving.get()) is Code.INTERRUPTED
    assert pool.apply(_sha256, (b"",)) == _sha256(b"")


# --- row 15: the file changes -----------------------------------------------------------------


def _shrink(path: Path) -> None:
    os.truncate(path, 10)


def _grow(path: Path) -> None:
    with path.open("ab") as end:
        end.write(b"more")


def _overwrite(path: Path) -> None:
    with path.open("r+b") as start:
        start.write(b"other bytes")


def _once(change: Callable[[], object], received: bytearray) -> Callable[[memoryview], None]:
    """Take pieces, and make the change when the first has come."""

    def write(piece: memoryview) -> None:
        if not received:
            change()
        received.extend(piece)

    return write


def test_row_15_file_that_shrinks_ends_the_transfer(ends: Ends, serve: Serve, make: Make, fails: Fails) -> None:
    path = make(LARGE)
    serving = serve(path)
    received = bytearray()
    with fails(Code.INTERRUPTED):
        _download(ends.requester, _once(lambda: _shrink(path), received))
    assert len(received) < len(LARGE)
    assert _code(serving.get()) is Code.CHANGED


@pytest.mark.parametrize("change", [_grow, _overwrite])
def test_row_15_file_that_is_written_to_ends_the_transfer(
    ends: Ends, serve: Serve, make: Make, fails: Fails, change: Callable[[Path], None]
) -> None:
    path = make(LARGE)
    serving = serve(path)
    received = bytearray()
    with fails(Code.CHANGED):
        _download(ends.requester, _once(lambda: change(path), received))
    assert len(received) == len(LARGE)  # as announced, before the peer is told
    assert _code(serving.get()) is Code.CHANGED


@pytest.mark.parametrize("change", [_shrink, _grow, _overwrite])
def test_row_15_file_that_changes_before_its_first_byte(
    ends: Ends, pool: ThreadPool, make: Make, fails: Fails, change: Callable[[Path], None]
) -> None:
    with _opened(make(LARGE[:1000])) as file:
        change(make(LARGE[:1000]))
        uploading = gevent.spawn(ends.channel.upload, file, pool)
        assert ends.requester.expect(File, SECONDS).size == 1000
        with fails(Code.CHANGED):
            uploading.get()


def _replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"another")
    path.with_name("new").rename(path)


@pytest.mark.parametrize("change", [_replace, Path.unlink], ids=["replaced", "removed"])
def test_row_15_file_that_is_replaced_or_removed_arrives_as_it_was(
    ends: Ends, serve: Serve, make: Make, change: Callable[[Path], None]
) -> None:
    path = make(LARGE)
    serving = serve(path)
    received = bytearray()
    digest = _download(ends.requester, _once(lambda: change(path), received))
    ends.requester.send(Got(digest))
    assert serving.get() is None
    assert received == LARGE
    assert digest == _sha256(LARGE)


# --- row 19: more or fewer bytes than announced -----------------------------------------------


@pytest.mark.parametrize("more", [b"!", b"!\n", b"!" * 3 * MAX_LINE], ids=["a byte", "a line", "a flood"])
def test_row_19_more_bytes_than_announced_are_refused(ends: Ends, more: bytes) -> None:
    ends.say(A_FILE, b"four", more, Done(_sha256(b"four" + more)))
    received = bytearray()
    with pytest.raises(ProtocolError):
        _download(ends.channel, received.extend)
    assert received == b"four"


def test_row_19_fewer_bytes_than_announced_are_refused(ends: Ends, fails: Fails) -> None:
    ends.say(File(100, ALGORITHM), b"few", Done(_sha256(b"few")))
    ends.peer.shutdown(socket.SHUT_WR)
    with fails(Code.INTERRUPTED):
        _download(ends.channel, _nothing)


def test_row_19_fewer_bytes_than_announced_on_an_open_connection(
    ends: Ends, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 0.005)
    ends.say(File(MAX_NUMBER, ALGORITHM), b"few")
    with fails(Code.STALLED):
        _download(ends.channel, _nothing)


# --- row 20: the peer vanishes ----------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="at once"),
        pytest.param(A_FILE[:9], id="in the header"),
        pytest.param(A_FILE, id="before the first byte"),
        pytest.param(A_FILE + b"fo", id="in the file"),
        pytest.param(A_FILE + b"four", id="before done"),
        pytest.param(A_FILE + b"four" + encode(Done("d"))[:-1], id="in done"),
    ],
)
@pytest.mark.parametrize("unread", [False, True], ids=["closes", "resets"])
def test_row_20_owner_vanishes(ends: Ends, fails: Fails, said: bytes, *, unread: bool) -> None:
    if unread:  # what the peer did not read turns its closing into a reset
        ends.channel.send(Pull("t"))
    ends.say(said)
    ends.peer.close()
    with fails(Code.INTERRUPTED):
        _download(ends.channel, _nothing)


@pytest.mark.parametrize(
    ("content", "heard"),
    [
        pytest.param(LARGE, 0, id="before the header"),
        pytest.param(LARGE, 10, id="in the header"),
        pytest.param(LARGE, CHUNK, id="in the file"),
        pytest.param(b"four", len(A_FILE) + 4, id="before done"),
        pytest.param(b"four", len(A_FILE) + 4 + len(encode(Done("d" * 64))), id="before got"),
        pytest.param(b"", len(A_FILE), id="in an empty file"),
    ],
)
def test_row_20_requester_vanishes(ends: Ends, serve: Serve, make: Make, content: bytes, heard: int) -> None:
    serving = serve(make(content))
    _hear_until(ends, heard)
    ends.peer.close()
    assert _code(serving.get()) is Code.INTERRUPTED


def test_row_20_requester_that_ends_instead_of_got(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(b"four"))
    _download(ends.requester, _nothing)
    ends.peer.shutdown(socket.SHUT_WR)
    assert _code(serving.get()) is Code.INTERRUPTED


@pytest.mark.parametrize(
    ("content", "kill"),
    [
        pytest.param(LARGE, False, id="peer gone"),
        pytest.param(LARGE, True, id="killed while it sends"),
        pytest.param(
            b"four",
            True,
            id="killed while it waits for the thread",
        ),
    ],
)
def test_row_20_lost_upload_closes_no_descriptor_that_a_thread_reads(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch, content: bytes, *, kill: bool
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
    serving = serve(make(content))
    started.wait()
    serving.kill(block=False) if kill else ends.peer.close()
    gevent.idle()
    go_on.set()
    ended.wait(SECONDS)
    serving.join()
    assert still_open == [True]


def test_upload_that_cannot_be_sent_is_interrupted(ends: Ends, make: Make, pool: ThreadPool, fails: Fails) -> None:
    ends.peer.close()
    with _opened(make(b"four")) as file, fails(Code.INTERRUPTED):
        ends.channel.upload(file, pool)


# --- row 21: bytes flipped on the way, and wrong digests --------------------------------------


@pytest.mark.parametrize(
    ("came", "digest"),
    [
        pytest.param(b"f0ur", _sha256(b"four"), id="flipped bytes"),
        pytest.param(b"four", _sha256(b"five"), id="another digest"),
        pytest.param(b"four", "", id="no digest"),
        pytest.param(b"four", _sha256(b"four")[:8], id="the start of the digest"),
    ],
)
def test_row_21_what_does_not_match_is_never_published(ends: Ends, tmp_path: Path, came: bytes, digest: str) -> None:
    ends.say(A_FILE, came, Done(digest))
    with Partial(tmp_path, "a") as partial:
        assert _download(ends.channel, partial.write) != partial.digest()
        assert not (tmp_path / "a").exists()
    assert not list(tmp_path.iterdir())


def test_row_21_digest_is_of_what_was_read_and_not_of_what_was_announced(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Digest, "hex", lambda _digest: _sha256(b"five"))
    serving = serve(make(b"four"))
    received = bytearray()
    assert _download(ends.requester, received.extend) != _sha256(bytes(received))
    ends.requester.close()
    assert _code(serving.get()) is Code.INTERRUPTED


def test_row_21_requester_that_got_something_else_is_no_success(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(b"four"))
    _download(ends.requester, _nothing)
    ends.requester.send(Got(_sha256(b"five")))
    assert _code(serving.get()) is Code.MISMATCH


def test_requester_that_answers_anything_but_got_is_no_success(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(b"four"))
    ends.requester.send(Done(_download(ends.requester, _nothing)))
    assert _code(serving.get()) is Code.UNEXPECTED


def test_requester_that_gives_up_is_believed(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(b"four"))
    _download(ends.requester, _nothing)
    ends.requester.give_up(TransferError(Code.DISK))
    assert _code(serving.get()) is Code.DISK


def test_row_21_file_that_cannot_be_read_again_for_its_digest_does_not_match(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    serving = serve(make(b"four"))
    received = bytearray()
    assert _download(ends.requester, received.extend) != _sha256(b"four")
    assert received == b"four"
    ends.requester.close()
    assert _code(serving.get()) is Code.INTERRUPTED


def test_requester_that_never_answers_is_given_up(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "PUBLISH_SECONDS", 0.005)
    serving = serve(make(b"four"))
    _download(ends.requester, _nothing)
    assert _code(serving.get(timeout=SECONDS)) is Code.STALLED


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
    serving = serve(path)
    announced = ends.peer.recv(CHUNK)
    _shrink(path)
    heard = announced + ends.hear()
    assert _code(serving.get()) is Code.CHANGED
    assert b"sorry" not in heard
    assert len(heard) < len(LARGE)


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
def test_abort_ends_a_download(ends: Ends, fails: Fails, half: bytes) -> None:
    ends.say(A_FILE, half)
    downloading = gevent.spawn(_download, ends.channel, _nothing)
    gevent.idle()
    ends.channel.abort()
    with fails(Code.INTERRUPTED):
        downloading.get()


def test_abort_ends_an_upload(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(LARGE))
    ends.peer.recv(1)
    gevent.idle()
    ends.channel.abort()
    assert _code(serving.get()) is Code.INTERRUPTED


def test_abort_of_a_lost_connection_is_no_error(ends: Ends) -> None:
    ends.peer.close()
    ends.channel.abort()
    ends.channel.close()
    ends.channel.abort()
