"""A file that goes on where it was interrupted, with either side spelled out byte for byte."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import gevent
import pytest
from gevent.threadpool import ThreadPool
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.ends import (
    LARGE,
    PULL,
    SECONDS,
    Clock,
    Ends,
    Hook,
    Make,
    Serve,
    before_each_digest,
    code_of,
    download,
    moving_of,
    serve_on,
)
from transfer.files import (
    Fails,
    contents,
    fill,
    fill_long_ago,
    grow,
    interrupt,
    names,
    only_content,
    only_name,
    overwrite,
    partial_in,
    replace,
    sha256,
    shrink,
)

from greenchat.errors import Code, GreenchatError, ProtocolError
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_NUMBER, WAIT_SECONDS
from greenchat.protocol.records import Done, File, Got, Pull, Wait
from greenchat.transfer import channel as channel_module
from greenchat.transfer.digest import ALGORITHMS, Digest

CONTENT = b"0123456789"


def _pull(offset: int, prefix: str | None = None, algorithm: str = "sha256") -> Pull:
    """Asks for the rest of `CONTENT`."""
    return Pull("t", algorithm, offset, sha256(CONTENT[:offset]) if prefix is None else prefix)


def _answer(offset: int, content: bytes = CONTENT) -> bytes:
    """All that an owner has to say."""
    return encode(File(len(content), offset)) + content[offset:] + encode(Done(sha256(content)))


def _assert_served(
    ends: Ends, serving: "gevent.Greenlet[..., GreenchatError | None]", expected: bytes, content: bytes = CONTENT
) -> None:
    """This is what the owner says, and all of it."""
    assert ends.hear_exactly(len(expected)) == expected
    ends.say(Got(sha256(content)))
    assert not ends.hear()
    assert serving.get() is None


# --- the owner --------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1, 5, 9, 10], ids=["a byte", "half", "all but a byte", "all"])
def test_owner_goes_on_where_the_requester_is(ends: Ends, serve: Serve, make: Make, offset: int) -> None:
    serving = serve(make(CONTENT), _pull(offset))
    _assert_served(ends, serving, _answer(offset))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_owner_compares_by_the_algorithm_that_the_requester_chose(
    ends: Ends, serve: Serve, make: Make, algorithm: str
) -> None:
    prefix, whole = Digest(algorithm), Digest(algorithm)
    prefix.update(CONTENT[:5])
    whole.update(CONTENT)
    serving = serve(make(CONTENT), _pull(5, prefix.hex(), algorithm))
    expected = encode(File(10, 5)) + CONTENT[5:] + encode(Done(whole.hex()))
    assert ends.hear_exactly(len(expected)) == expected
    ends.say(Got(whole.hex()))
    assert serving.get() is None


@pytest.mark.parametrize("offset", [11, 2**40, MAX_NUMBER])
def test_row_22_offset_beyond_the_end_starts_again(ends: Ends, serve: Serve, make: Make, offset: int) -> None:
    serving = serve(make(CONTENT), _pull(offset))
    _assert_served(ends, serving, _answer(0))


def test_row_22_offset_into_an_empty_file_starts_again(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(b""), Pull("t", "sha256", 1, sha256(b"")))
    _assert_served(ends, serving, _answer(0, b""), b"")


@pytest.mark.parametrize("offset", ["-1", "1.5", "true", "null", '"1"', "9223372036854775808"])
def test_row_22_negative_and_other_impossible_offsets_are_refused(ends: Ends, fails: Fails, offset: str) -> None:
    ends.say(encode(PULL).replace(b'"offset":0', f'"offset":{offset}'.encode()))
    with fails(Code.BAD_RECORD, ProtocolError):
        ends.channel.expect(Pull, SECONDS)


@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param("", id="none"),
        pytest.param(sha256(b"another"), id="of another content"),
        pytest.param(sha256(CONTENT), id="of more"),
        pytest.param(sha256(CONTENT[:4]), id="of less"),
        pytest.param(sha256(CONTENT[:5])[:63], id="cut"),
        pytest.param(sha256(CONTENT[:5]).upper(), id="in capitals"),
        pytest.param("x" * 4000, id="long"),
        pytest.param("\0", id="NUL"),
    ],
)
def test_row_22_prefix_of_another_content_starts_again(ends: Ends, serve: Serve, make: Make, prefix: str) -> None:
    serving = serve(make(CONTENT), _pull(5, prefix))
    _assert_served(ends, serving, _answer(0))


def test_row_22_prefix_by_another_algorithm_starts_again(ends: Ends, serve: Serve, make: Make) -> None:
    pytest.importorskip("blake3")
    digest = Digest("blake3")
    digest.update(CONTENT[:5])
    serving = serve(make(CONTENT), _pull(5, digest.hex(), "sha256"))
    _assert_served(ends, serving, _answer(0))


def test_row_22_prefix_without_an_offset_means_nothing(ends: Ends, serve: Serve, make: Make) -> None:
    serving = serve(make(CONTENT), _pull(0, "nonsense"))
    _assert_served(ends, serving, _answer(0))


@settings(deadline=None, max_examples=40)
@given(
    mine=st.binary(max_size=40),
    theirs=st.binary(max_size=40),
    common=st.binary(max_size=40),
)
def test_row_22_whatever_the_requester_has_it_gets_the_owners_file(
    tmp_path_factory: pytest.TempPathFactory, mine: bytes, theirs: bytes, common: bytes
) -> None:
    pool, ends, home = ThreadPool(2), Ends(), tmp_path_factory.mktemp("home")
    path = fill_long_ago(home / "file", common + mine)
    (home / "into").mkdir()
    with partial_in(home / "into") as partial:
        fill(partial, common + theirs)
        pull = Pull("t", "sha256", partial.size, partial.digest())
        serving = gevent.spawn(serve_on, ends.channel, path, pool, pull)
        announced = ends.requester.expect(File, SECONDS)
        assert announced.offset in {0, partial.size}
        if announced.offset != partial.size:
            partial.restart()
        assert download(ends.requester, partial, pool, announced) == partial.digest() == sha256(common + mine)
        ends.requester.send(Got(partial.digest()))
        assert serving.get() is None
        partial.publish()
    assert contents(home / "into") == {"a": common + mine}
    ends.close()
    pool.kill()


def test_only_what_is_missing_is_sent_and_counted(ends: Ends, serve: Serve, make: Make) -> None:
    offset, moving = len(LARGE) - 1000, moving_of(len(LARGE))
    serving = serve(make(LARGE), Pull("t", "sha256", offset, sha256(LARGE[:offset])), moving)
    _assert_served(ends, serving, _answer(offset, LARGE), LARGE)
    assert (moving.moved, moving.resumed) == (len(LARGE), offset)


def test_what_is_started_again_counts_from_nothing(ends: Ends, serve: Serve, make: Make) -> None:
    moving = moving_of(10)
    serving = serve(make(CONTENT), _pull(5, "another"), moving)
    _assert_served(ends, serving, _answer(0))
    assert (moving.moved, moving.resumed) == (10, 0)


def test_part_that_the_requester_has_is_read_in_pieces(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "DIGESTED_AHEAD", 4)
    read: list[tuple[int, int]] = []
    before_each_digest(monkeypatch, lambda offset, size: read.append((offset, size)))
    serving = serve(make(CONTENT), _pull(6))
    _assert_served(ends, serving, _answer(6))
    assert read == [(0, 4), (4, 2), (6, 4)]


# --- waiting ----------------------------------------------------------------------------------


def _slow(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """An owner that has to say `Wait` after each piece of two bytes."""
    monkeypatch.setattr(channel_module, "DIGESTED_AHEAD", pieces)
    monkeypatch.setattr(channel_module, "WAIT_SECONDS", -1.0)


def test_owner_that_reads_for_long_says_so(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch, 2)
    serving = serve(make(CONTENT), _pull(6))
    _assert_served(ends, serving, encode(Wait()) * 3 + _answer(6))


def test_owner_says_so_no_more_often_than_it_has_to(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(channel_module, "DIGESTED_AHEAD", 1)
    monkeypatch.setattr(channel_module, "WAIT_SECONDS", 2.5)
    monkeypatch.setattr(channel_module, "time", clock)
    before_each_digest(monkeypatch, lambda _offset, _size: clock.sleep(1.0))
    serving = serve(make(CONTENT), _pull(8))
    _assert_served(ends, serving, encode(Wait()) * 2 + _answer(8))


def test_owner_that_reads_quickly_says_nothing(ends: Ends, serve: Serve, make: Make) -> None:
    assert WAIT_SECONDS >= 1
    serving = serve(make(CONTENT), _pull(6))
    _assert_served(ends, serving, _answer(6))


def test_owner_that_has_nothing_to_read_says_nothing(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch, 2)
    serving = serve(make(CONTENT))
    _assert_served(ends, serving, _answer(0))


def test_waits_keep_a_requester_patient(
    ends: Ends, serve: Serve, make: Make, into: Path, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch, 1000)
    half = len(LARGE) // 2
    with partial_in(into) as partial:
        fill(partial, LARGE[:half])
        serving = serve(make(LARGE), Pull("t", "sha256", half, partial.digest()))
        announced = ends.requester.expect(File, SECONDS, more=100.0)
        assert announced == File(len(LARGE), half)
        digest = download(ends.requester, partial, pool, announced)
        assert digest == partial.digest() == sha256(LARGE)
        ends.requester.send(Got(digest))
        assert serving.get() is None
        assert only_content(into) == LARGE


def test_row_20_requester_that_takes_no_wait_is_given_up(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch, 10)
    monkeypatch.setattr(channel_module, "STALL_SECONDS", 0.05)
    serving = serve(make(LARGE), Pull("t", "sha256", len(LARGE), "another"))
    assert code_of(serving.get()) is Code.STALLED


# --- row 15: the file changes, also while the requester's part is read ------------------------


def _while_it_is_read(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None], *, after: bool) -> None:
    """Change the file before or after its first piece is digested."""
    real, changes = Digest.update_from, [change]

    def update_from(digest: Digest, fd: int, offset: int, size: int) -> None:
        if changes and not after:
            changes.pop()()
        real(digest, fd, offset, size)
        if changes:
            changes.pop()()

    monkeypatch.setattr(Digest, "update_from", update_from)


@pytest.mark.parametrize("after", [False, True], ids=["before it is read", "after it was read"])
@pytest.mark.parametrize("change", [shrink, grow, overwrite])
def test_row_15_file_that_changes_while_the_requesters_part_is_read(
    ends: Ends,
    serve: Serve,
    make: Make,
    into: Path,
    pool: ThreadPool,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    *,
    after: bool,
) -> None:
    path = make(CONTENT)
    _while_it_is_read(monkeypatch, lambda: change(path), after=after)
    with partial_in(into) as partial:
        fill(partial, CONTENT[:5])
        serving = serve(path, _pull(5))
        announced = ends.requester.expect(File, SECONDS)
        assert announced.size == 10
        if not announced.offset:
            partial.restart()
        with pytest.raises(GreenchatError) as caught:
            download(ends.requester, partial, pool, announced)
    assert caught.value.code in {Code.CHANGED, Code.INTERRUPTED}
    assert code_of(serving.get()) is Code.CHANGED


@pytest.mark.parametrize("after", [False, True], ids=["before it is read", "after it was read"])
@pytest.mark.parametrize("change", [replace, Path.unlink], ids=["replaced", "removed"])
def test_row_15_file_that_is_replaced_while_the_requesters_part_is_read_goes_on_as_it_was(
    ends: Ends,
    serve: Serve,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    *,
    after: bool,
) -> None:
    path = make(CONTENT)
    _while_it_is_read(monkeypatch, lambda: change(path), after=after)
    serving = serve(path, _pull(5))
    _assert_served(ends, serving, _answer(5))


@pytest.mark.parametrize("change", [shrink, grow, overwrite])
def test_row_15_file_that_changes_while_its_rest_is_sent(
    ends: Ends, serve: Serve, make: Make, change: Callable[[Path], None]
) -> None:
    path = make(CONTENT)
    serving = serve(path, _pull(5), moving_of(limit=Hook(lambda: change(path), step=1)))
    heard = ends.hear()
    assert code_of(serving.get()) is Code.CHANGED
    assert b"done" not in heard
    assert heard.startswith(encode(File(10, 5)))
    assert (b"sorry" in heard) == (change is not shrink)  # which ends it amid the bytes


def test_row_15_file_that_changes_when_the_requester_has_it_all_is_not_called_whole(
    ends: Ends, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(CONTENT)
    _while_it_is_read(monkeypatch, lambda: overwrite(path), after=True)
    serving = serve(path, _pull(10))
    heard = ends.hear()
    assert code_of(serving.get()) is Code.CHANGED
    assert heard.startswith(encode(File(10, 10)))
    assert b"done" not in heard


def test_row_15_file_that_changed_in_between_is_fetched_anew(
    ends: Ends, serve: Serve, make: Make, into: Path, pool: ThreadPool
) -> None:
    interrupt(into, b"old content, and longer")
    with partial_in(into) as partial:
        serving = serve(make(CONTENT), Pull("t", "sha256", partial.size, partial.digest()))
        announced = ends.requester.expect(File, SECONDS)
        assert announced == File(10, 0)
        partial.restart()
        ends.requester.send(Got(download(ends.requester, partial, pool, announced)))
        assert serving.get() is None
        partial.publish()
    assert contents(into) == {"a": CONTENT}


# --- the requester ----------------------------------------------------------------------------


def test_requester_adds_the_rest_to_what_it_has(ends: Ends, into: Path, pool: ThreadPool) -> None:
    interrupt(into, CONTENT[:5])
    with partial_in(into) as partial:
        moving = moving_of(10, moved=5)
        ends.say(_answer(5))
        assert download(ends.channel, partial, pool, moving=moving) == partial.digest() == sha256(CONTENT)
        assert (moving.moved, moving.resumed) == (10, 5)
        partial.publish()
    assert contents(into) == {"a": CONTENT}


def test_requester_that_has_all_takes_nothing(ends: Ends, into: Path, pool: ThreadPool) -> None:
    with partial_in(into) as partial:
        fill(partial, CONTENT)
        ends.say(_answer(10))
        assert download(ends.channel, partial, pool) == partial.digest()
        assert partial.size == 10


def test_row_21_part_that_is_not_the_owners_does_not_match(ends: Ends, into: Path, pool: ThreadPool) -> None:
    """An owner that says that it has the same start, and has not, or a start that the disk has changed."""
    with partial_in(into) as partial:
        fill(partial, b"evil!")
        ends.say(_answer(5))
        assert download(ends.channel, partial, pool) != partial.digest()


def test_row_21_start_that_was_changed_on_the_disk_does_not_match(ends: Ends, into: Path, pool: ThreadPool) -> None:
    with partial_in(into) as partial:
        fill(partial, CONTENT[:5])
    (into / only_name(into)).write_bytes(b"01x34")
    with partial_in(into) as partial:
        assert partial.begin("sha256") != sha256(CONTENT[:5])


@pytest.mark.parametrize("more", [b"!", b"!" * 100_000], ids=["a byte", "a flood"])
def test_row_19_more_than_the_rest_is_refused(ends: Ends, into: Path, pool: ThreadPool, more: bytes) -> None:
    with partial_in(into) as partial:
        fill(partial, CONTENT[:5])
        ends.say(encode(File(10, 5)) + CONTENT[5:] + more, Done(sha256(CONTENT)))
        with pytest.raises(ProtocolError):
            download(ends.channel, partial, pool)
        assert partial.size == 10


def test_row_19_less_than_the_rest_is_refused_and_kept(ends: Ends, into: Path, pool: ThreadPool, fails: Fails) -> None:
    with partial_in(into) as partial:
        fill(partial, CONTENT[:5])
        ends.say(File(10, 5), CONTENT[5:7])
        ends.peer.close()
        with fails(Code.INTERRUPTED):
            download(ends.channel, partial, pool)
    assert only_content(into) == CONTENT[:7]
    assert len(names(into)) == 1


def test_file_that_is_lost_again_and_again_is_exact_in_the_end(
    make: Make, into: Path, pool: ThreadPool, fails: Fails
) -> None:
    path, steps = make(LARGE), 0

    def lose_the_connection() -> None:
        nonlocal steps
        steps += 1
        if steps in {2, 4, 6}:
            here.channel.abort()

    for turn in range(4):
        here = Ends()
        with closing(here), partial_in(into) as partial:
            had = partial.size
            pull = Pull("t", "sha256", had, partial.digest())
            moving = moving_of(limit=Hook(lose_the_connection))
            serving = gevent.spawn(serve_on, here.channel, path, pool, pull, moving)
            announced = here.requester.expect(File, SECONDS)
            assert announced.offset == had
            if turn < 3:
                with fails(Code.INTERRUPTED):
                    download(here.requester, partial, pool, announced)
                assert code_of(serving.get()) is Code.INTERRUPTED
                assert had < partial.size < len(LARGE)
            else:
                here.requester.send(Got(download(here.requester, partial, pool, announced)))
                assert serving.get() is None
                partial.publish()
    assert contents(into) == {"a": LARGE}
