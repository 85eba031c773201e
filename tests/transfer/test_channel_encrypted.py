"""A data connection where all is encrypted, between two who know each other's keys."""

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from conftest import reset
from credentials import signed_by_another
from gevent.threadpool import ThreadPool
from transfer.ends import AROUND, LARGE, PULL, Ends, Make, Steps, moving_of, serve_on
from transfer.files import fill, partial_in, sha256, shrink

from greenchat.errors import Code, GreenchatError, ProtocolError, TransferError
from greenchat.protocol.records import File, Got, Pull
from greenchat.security.keys import Identity
from greenchat.security.tls import ALERT, pair_context
from greenchat.transfer import channel as channel_module
from greenchat.transfer import pump
from greenchat.transfer.channel import Channel
from greenchat.transfer.rate import UNLIMITED


@pytest.fixture
def ann(tmp_path: Path) -> Identity:
    """The owner."""
    return Identity(tmp_path / "keys" / "ann.pem")


@pytest.fixture
def bob(tmp_path: Path) -> Identity:
    """The requester."""
    return Identity(tmp_path / "keys" / "bob.pem")


@pytest.fixture
def eve(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "keys" / "eve.pem")


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.close()


def owner_s_end(channel: Channel, me: Identity, peer: bytes) -> GreenchatError | None:
    return _outcome(channel, me, peer, server=True)


def requester_s_end(channel: Channel, me: Identity, peer: bytes) -> GreenchatError | None:
    return _outcome(channel, me, peer, server=False)


def _outcome(channel: Channel, me: Identity, peer: bytes, *, server: bool) -> GreenchatError | None:
    try:
        channel.encrypt(pair_context(me, peer, server=server), peer)
    except GreenchatError as error:
        return error
    return None


def meet(ends: Ends, owner: Identity, requester: Identity) -> None:
    """Both ends begin to encrypt, each knowing the other."""
    owning = gevent.spawn(owner_s_end, ends.channel, owner, requester.certificate)
    assert requester_s_end(ends.requester, requester, owner.certificate) is None
    assert owning.get() is None


def test_records_are_heard_by_the_other_alone(ends: Ends, ann: Identity, bob: Identity) -> None:
    meet(ends, ann, bob)
    ends.requester.send(PULL)
    assert ends.channel.expect(Pull) == PULL
    ends.channel.send(File(4, 0))
    assert b"file" not in ends.hear_exactly(20)


def fetch(ends: Ends, path: Path, directory: Path, pool: ThreadPool, step: int | None = None) -> None:
    """The whole conversation, with a file that has to be exact."""
    content, limit = path.read_bytes(), Steps(step) if step else UNLIMITED
    serving = gevent.spawn(serve_on, ends.channel, path, pool, PULL, moving_of(len(content), limit=limit))
    with partial_in(directory) as partial:
        size = ends.requester.expect(File).size
        digest = ends.requester.download(size, partial, pool, moving_of(size, limit=limit))
        assert digest == partial.digest() == ""  # each byte was checked on its way
        assert partial.begin("sha256") == sha256(content)
        assert partial.size == len(content)
        ends.requester.send(Got(digest))
    assert serving.get() is None


@AROUND
def test_row_16_file_arrives_exactly(
    ends: Ends, ann: Identity, bob: Identity, tmp_path: Path, make: Make, pool: ThreadPool, size: int
) -> None:
    meet(ends, ann, bob)
    fetch(ends, make(LARGE[:size]), tmp_path, pool)


@pytest.mark.parametrize("step", [1000, 16 * 1024, 100_001])
def test_file_may_move_in_small_steps(
    ends: Ends, ann: Identity, bob: Identity, tmp_path: Path, make: Make, pool: ThreadPool, step: int
) -> None:
    meet(ends, ann, bob)
    fetch(ends, make(LARGE[:300_000]), tmp_path, pool, step)


def test_interrupted_file_is_resumed(
    ends: Ends, ann: Identity, bob: Identity, tmp_path: Path, make: Make, pool: ThreadPool
) -> None:
    meet(ends, ann, bob)
    path, half = make(LARGE), len(LARGE) // 2
    serving = gevent.spawn(serve_on, ends.channel, path, pool, Pull("t", "sha256", half, sha256(LARGE[:half])))
    with partial_in(tmp_path) as partial:
        fill(partial, LARGE[:half])
        file = ends.requester.expect(File)
        assert file.offset == half
        digest = ends.requester.download(file.size - half, partial, pool, moving_of(file.size, moved=half))
        assert digest == partial.digest() == ""
        assert partial.begin("sha256") == sha256(LARGE)
        ends.requester.send(Got(digest))
    assert serving.get() is None


def test_row_19_requester_that_takes_nothing_is_given_up(
    ends: Ends, ann: Identity, bob: Identity, make: Make, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "STALL_SECONDS", 0.05)
    meet(ends, ann, bob)
    error = serve_on(ends.channel, make(LARGE), pool)
    assert error is not None
    assert error.code == Code.STALLED


def test_row_20_requester_that_vanishes_in_mid_file_is_an_error(
    ends: Ends, ann: Identity, bob: Identity, make: Make, pool: ThreadPool
) -> None:
    meet(ends, ann, bob)
    serving = gevent.spawn(serve_on, ends.channel, make(LARGE), pool)
    ends.requester.expect(File)
    ends.requester.abort()
    error = serving.get()
    assert error is not None
    assert error.code == Code.INTERRUPTED


def test_serving_may_be_killed_and_its_thread_is_free_again(
    ends: Ends, ann: Identity, bob: Identity, make: Make, pool: ThreadPool
) -> None:
    meet(ends, ann, bob)
    serving = gevent.spawn(serve_on, ends.channel, make(LARGE), pool)
    ends.requester.expect(File)
    serving.kill()
    assert pool.apply(sum, ((1, 2),)) == 3
    with pytest.raises((TransferError, ProtocolError)):  # by bytes of the file that had left, if there are any
        ends.requester.expect(Got)


def test_row_15_file_that_shrinks_is_an_abort(
    ends: Ends, ann: Identity, bob: Identity, tmp_path: Path, make: Make, pool: ThreadPool
) -> None:
    meet(ends, ann, bob)
    path = make(LARGE)
    serving = gevent.spawn(serve_on, ends.channel, path, pool)
    file = ends.requester.expect(File)
    shrink(path)
    with partial_in(tmp_path) as partial, pytest.raises(TransferError) as lost:
        ends.requester.download(file.size, partial, pool, moving_of(file.size))
    assert lost.value.code == Code.INTERRUPTED
    error = serving.get()
    assert error is not None
    assert error.code == Code.CHANGED


# --- who is not whom the other expects --------------------------------------------------------


def test_stranger_in_the_owner_s_place_is_found_out(ends: Ends, ann: Identity, bob: Identity, eve: Identity) -> None:
    owning = gevent.spawn(owner_s_end, ends.channel, eve, bob.certificate)
    error = requester_s_end(ends.requester, bob, ann.certificate)
    assert error is not None
    assert error.code == Code.UNTRUSTED
    assert owning.get() is not None


def test_stranger_in_the_requester_s_place_is_found_out(
    ends: Ends, ann: Identity, bob: Identity, eve: Identity
) -> None:
    asking = gevent.spawn(requester_s_end, ends.requester, eve, ann.certificate)
    error = owner_s_end(ends.channel, ann, bob.certificate)
    assert error is not None
    assert error.code in (Code.UNTRUSTED, Code.BAD_TLS)
    asking.join()


def test_certificate_that_the_other_has_signed_for_somebody_else_is_not_the_other_s(
    ends: Ends, ann: Identity, bob: Identity, tmp_path: Path
) -> None:
    friend = signed_by_another(ann, tmp_path / "friend.pem")
    owning = gevent.spawn(owner_s_end, ends.channel, friend, bob.certificate)
    error = requester_s_end(ends.requester, bob, ann.certificate)
    assert error is not None
    assert error.code == Code.UNTRUSTED
    owning.join()


def test_row_19_peer_that_does_not_shake_hands_is_given_up(
    ends: Ends, ann: Identity, bob: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "HANDSHAKE_SECONDS", 0.05)
    error = owner_s_end(ends.channel, ann, bob.certificate)
    assert error is not None
    assert error.code == Code.STALLED


@pytest.mark.parametrize("junk", [b"x" * 100, b"\x16" * 100, b"\x16\x03\x01\x40\x00" + b"x" * 20_000])
def test_row_19_junk_instead_of_a_handshake_is_an_error(ends: Ends, ann: Identity, bob: Identity, junk: bytes) -> None:
    ends.peer.sendall(junk)
    error = owner_s_end(ends.channel, ann, bob.certificate)
    assert error is not None
    assert error.code == Code.BAD_TLS


def test_row_20_peer_that_vanishes_in_the_handshake_is_an_error(ends: Ends, ann: Identity, bob: Identity) -> None:
    ends.peer.shutdown(1)
    error = owner_s_end(ends.channel, ann, bob.certificate)
    assert error is not None
    assert error.code == Code.INTERRUPTED


@pytest.mark.parametrize("place", [0, 100, 500_000, -1])
def test_row_21_flipped_byte_is_found_out(
    ends: Ends, ann: Identity, bob: Identity, tmp_path: Path, make: Make, pool: ThreadPool, place: int
) -> None:
    meet(ends, ann, bob)
    sealed = bytearray(ends.channel._tls.seal(LARGE[:1_000_000])) if ends.channel._tls else bytearray()
    sealed[place] ^= 1
    sending = gevent.spawn(ends.sock.sendall, bytes(sealed))
    with partial_in(tmp_path) as partial, pytest.raises(GreenchatError) as broken:
        ends.requester.download(1_000_000, partial, pool, moving_of(1_000_000))
    assert broken.value.code in (Code.BAD_TLS, Code.INTERRUPTED)
    sending.kill()


def test_nothing_plain_is_said_once_a_handshake_has_begun(ends: Ends, ann: Identity, bob: Identity) -> None:
    ends.peer.sendall(b"\x16" * 100)
    error = owner_s_end(ends.channel, ann, bob.certificate)
    assert error is not None
    ends.channel.give_up(error)
    ends.channel.close()
    assert ends.peer.recv(100)[:1] in (ALERT, b"")
    assert ends.peer.recv(100) == b""


def test_peer_that_is_gone_when_it_is_told_changes_nothing(ends: Ends, ann: Identity, bob: Identity) -> None:
    ends.channel._early = b"x" * 100
    reset(ends.peer)
    error = owner_s_end(ends.channel, ann, bob.certificate)
    assert error is not None
    assert error.code == Code.BAD_TLS
