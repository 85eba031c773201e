"""A connection that is lost, and a file that is tried again."""

import gevent
import pytest
from client.owners import refuses, wait_for_part
from conftest import People, Stub, until
from peers import Owner, breaks_off, chat_goes_on, code_of, fetching, gives, header, left, received, sha256

from greenchat import ChatClient, Received, Route
from greenchat.client import downloads
from greenchat.errors import Code, ConnectError, ServerGone
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Done, Sorry
from greenchat.transfer import digest

pytestmark = pytest.mark.usefixtures("tried_again")


def test_lost_file_comes_by_the_other_route_and_from_where_it_was_lost(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 8)
    dan.grants(8)
    end = dan.dialled()
    assert (dan.pull.offset, dan.pull.prefix) == (3, sha256(b"hel"))
    breaks_off(end, b"lo ", 8, 3)
    dan.grants(8)
    end = dan.shown(stub.accept())
    assert (dan.pull.offset, dan.pull.prefix) == (6, sha256(b"hello "))
    gives(end, b"hello yo", 6)
    assert received(request) == Received("dan", people.home("ann") / "file", 8, None, unchanged=False, resumed=6)
    assert left(people.home("ann")) == {"file": b"hello yo"}
    chat_goes_on(ann, dan)


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
def test_lost_file_comes_by_the_same_route_if_that_is_the_only_one(
    people: People, stub: Stub, dan: Owner, route: Route
) -> None:
    request = fetching(people.client("ann", route=route))
    for offset, piece in enumerate((b"h", b"e", b"l")):
        dan.grants()
        end = dan.shown(stub.accept()) if route is Route.DIRECT else dan.dialled()
        assert dan.pull.offset == offset
        breaks_off(end, piece, 5, offset)
    dan.grants()
    gives(dan.shown(stub.accept()) if route is Route.DIRECT else dan.dialled(), b"hello", 3)
    assert received(request).resumed == 3


def test_after_everything_but_the_last_word_only_that_is_asked_for(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    breaks_off(dan.pulled(), b"hello", 5)
    end = dan.pulled()
    assert dan.pull.offset == 5
    end.send(header(5, 5) + encode(Done(sha256(b"hello"))))
    assert received(request).resumed == 5
    assert left(people.home("ann")) == {"file": b"hello"}


@pytest.mark.parametrize("now", [b"jello!", b"jell", b"jello", b"he", b""])
def test_row_22_file_of_another_content_starts_again(people: People, dan: Owner, now: bytes) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    breaks_off(dan.pulled(), b"hel", 5)
    gives(dan.pulled(), now)
    assert received(request).resumed == 0
    assert left(people.home("ann")) == {"file": now}


@pytest.mark.parametrize("offset", [1, 2, 4, 5, 2**63 - 1])
def test_row_22_owner_that_goes_on_from_elsewhere_is_refused(people: People, dan: Owner, offset: int) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    dan.pulled().send(header(5, offset) + b"hello")
    assert code_of(request) == Code.UNEXPECTED
    assert left(people.home("ann")) == {"part": b"hel"}
    chat_goes_on(ann, dan)


def test_row_22_owner_that_goes_on_from_beyond_the_end_is_refused(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    breaks_off(dan.pulled(), b"hel", 5)
    dan.pulled().send(header(2, 3) + encode(Done(sha256(b"hel"))))
    assert code_of(request) == Code.UNEXPECTED


def test_what_was_had_is_no_longer_counted_after_starting_again(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    breaks_off(dan.pulled(), b"hel", 5)
    breaks_off(dan.pulled(), b"j", 5, 0)
    end = dan.pulled()
    assert (dan.pull.offset, dan.pull.prefix) == (1, sha256(b"j"))
    gives(end, b"jello", 1)
    assert received(request).resumed == 1
    assert left(people.home("ann")) == {"file": b"jello"}


def test_owner_may_have_another_digest_by_then(people: People, stub: Stub, dan: Owner) -> None:
    if "blake3" not in digest.ALGORITHMS:
        pytest.skip("blake3 is not installed")
    request = fetching(people.client("ann", route=Route.DIRECT))
    dan.grants(5, "sha256", "blake3")
    end = dan.shown(stub.accept())
    assert dan.pull.algorithm == "blake3"
    breaks_off(end, b"hel", 5)
    dan.grants(5, "sha256")
    end = dan.shown(stub.accept())
    assert (dan.pull.algorithm, dan.pull.prefix) == ("sha256", sha256(b"hel"))
    gives(end, b"hello", 3)
    assert received(request).resumed == 3


@pytest.mark.parametrize("code", [Code.INTERRUPTED, Code.STALLED, Code.BAD_TICKET, Code.TOO_MANY, Code.RELAY_BUSY])
def test_file_is_asked_for_again_after_what_passes(people: People, dan: Owner, code: Code) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    dan.pulled().tell(Sorry(code, ""))
    gives(dan.pulled(), b"hello")
    assert received(request).size == 5


def test_file_is_asked_for_again_after_a_question_that_was_not_answered(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    dan.pulled().close()
    refuses(dan, Code.OWNER_SILENT)
    gives(dan.pulled(), b"hello")
    assert received(request).size == 5


@pytest.mark.parametrize(
    "code", [Code.NOT_FOUND, Code.CHANGED, Code.MISMATCH, Code.DISK, Code.BAD_VERSION, Code.FAILED]
)
def test_file_is_not_asked_for_again_after_what_does_not_pass(people: People, dan: Owner, code: Code) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    dan.pulled().tell(Sorry(code, ""))
    assert code_of(request) == code
    chat_goes_on(ann, dan)


def test_last_error_is_what_is_told(people: People, dan: Owner) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    refuses(dan, Code.NOT_FOUND)
    assert code_of(request) == Code.NOT_FOUND
    chat_goes_on(ann, dan)


def test_owner_that_has_left_is_not_waited_for(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    end = dan.pulled()
    dan.wire.close()
    until(lambda: not people._server._context.directory.find("dan"))
    end.close()
    assert code_of(request) == Code.UNKNOWN_OWNER


def test_owner_that_cannot_be_reached_is_tried_as_often_as_told(people: People, dan: Owner) -> None:
    dan._stub.close()
    request = fetching(people.client("ann", route=Route.DIRECT))
    for _ in range(5):
        dan.grants()
    assert isinstance(request.get(), ConnectError)
    assert code_of(request) == Code.UNREACHABLE


def test_file_waits_in_no_line_while_it_is_tried_again(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann", route=Route.DIRECT, parallel=1)
    first, second = fetching(ann, "dan", "first"), fetching(ann, "dan", "second")
    dan.grants()
    ticket = dan.ticket
    dan.grants()
    other, dan.ticket = dan.ticket, ticket
    breaks_off(dan.shown(stub.accept()), b"fir", 5)
    gives(dan.pulled(), b"first", 3)
    assert received(first).resumed == 3
    dan.ticket = other
    gives(dan.shown(stub.accept()), b"second")
    assert received(second).size == 6


# --- pauses -----------------------------------------------------------------------------------


class Pauses:
    """Stands in for an event that never comes, and takes down how long it was waited for."""

    def __init__(self, ann: ChatClient) -> None:
        self.made: list[float] = []
        self._closing = ann._downloads._closing

    def wait(self, seconds: float) -> None:
        self.made.append(seconds)

    def set(self) -> None:
        self._closing.set()


def test_pauses_grow_and_then_it_has_failed(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.5, 1.0, 2.0))
    ann = people.client("ann", route=Route.DIRECT)
    pauses = Pauses(ann)
    monkeypatch.setattr(ann._downloads, "_closing", pauses)
    request = fetching(ann)
    for _ in range(4):
        dan.pulled().close()
    assert code_of(request) == Code.INTERRUPTED
    assert pauses.made == [0.5, 1.0, 2.0]
    chat_goes_on(ann, dan)


def test_progress_starts_the_pauses_anew(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.5, 1.0))
    monkeypatch.setattr(downloads, "SLOWEST_STEP", 1)
    ann = people.client("ann", route=Route.DIRECT)
    pauses = Pauses(ann)
    monkeypatch.setattr(ann._downloads, "_closing", pauses)
    request = fetching(ann)
    had = 0
    for piece in (b"h", b"", b"e", b"l", b"", b""):
        breaks_off(dan.pulled(), piece, 5, had)
        had += len(piece)
    assert code_of(request) == Code.INTERRUPTED
    assert pauses.made == [0.5, 1.0, 0.5, 0.5, 1.0]
    assert left(people.home("ann")) == {"part": b"hel"}
    chat_goes_on(ann, dan)


def test_row_19_progress_by_trickles_is_none(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.5, 1.0))
    ann = people.client("ann", route=Route.DIRECT)
    monkeypatch.setattr(ann._downloads, "_closing", Pauses(ann))
    request = fetching(ann)
    for had, piece in enumerate((b"h", b"e", b"l")):
        breaks_off(dan.pulled(), piece, 5, had)
    assert code_of(request) == Code.INTERRUPTED


def test_closing_cuts_a_pause_short(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (1000.0,))
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    wait_for_part(people, b"hel")
    until(lambda: not ann._downloads._routes._channels and not ann.moving)
    ann.close()
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == {"part": b"hel"}


def test_first_answer_that_too_many_wait_is_asked_again(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann", route=Route.DIRECT))
    refuses(dan, Code.TOO_MANY)
    gives(dan.pulled(), b"hello")
    assert received(request).size == 5


def test_no_more_are_asked_for_than_are_among_the_next(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "ASKED_AHEAD", 2)
    ann = people.client("ann", route=Route.DIRECT, parallel=1)
    requests = [gevent.spawn(ann.fetch, "dan", f"file{n}") for n in range(6)]
    until(lambda: len(ann._downloads._asked) == 2)
    gevent.sleep(0)
    assert len(ann._downloads._asked) == 2
    for greenlet in requests:
        greenlet.kill()
