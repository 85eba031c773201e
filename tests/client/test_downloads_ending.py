"""The end of the connection to the server, or of the program's patience, while a file is on its way."""

import fcntl
from pathlib import Path

import gevent
import pytest
from client.owners import Alone, nothing_is_there, refuses, wait_for_part
from conftest import People, until
from gevent import socket
from peers import Owner, Proxy, breaks_off, chat_goes_on, code_of, fetching, gives, header, left, received

from greenchat import ChatClient, ChatServer, Route
from greenchat.client import downloads
from greenchat.errors import Code, ServerGone
from greenchat.protocol.records import Dial, Want
from greenchat.transfer import rate

pytestmark = pytest.mark.usefixtures("tried_once")


def test_row_33_server_that_ends_ends_the_requests(server: ChatServer, people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    dan.wire.record(Want)
    dan.wire.close()
    stopping = gevent.spawn(server.stop)
    assert code_of(request) in {Code.SERVER_GONE, Code.OWNER_LEFT}
    ann.close()
    stopping.get()


def test_closing_ends_a_request_that_waits_for_its_answer(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    dan.wire.record(Want)
    ann.close()
    assert isinstance(request.get(), ServerGone)


def test_closing_ends_a_request_that_waits_in_line(people: People, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    requests = [fetching(ann, "dan", f"file{number}") for number in range(3)]
    for _ in requests:
        dan.grants()
    ann.close()
    assert [type(request.get()) for request in requests] == [ServerGone] * 3
    assert nothing_is_there(people)


def test_closing_ends_a_transfer_and_keeps_what_has_come(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    ann.close()
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == {"part": b"hel"}


def test_closing_between_two_attempts_keeps_what_has_come(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (1000.0,))
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    wait_for_part(people, b"hel")
    ann.close()
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == {"part": b"hel"}


@pytest.mark.parametrize("size", [5, 10**6], ids=["all that was sent has come", "more is on its way"])
def test_closing_waits_for_no_limited_rate(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(rate.RateLimit, "pause", lambda _self, _size: 20.0)
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(10**6 + 1))
    until(lambda: ann.moving)
    end.send(b"x" * size)
    until(lambda: any(left(people.home("ann")).values()))
    with gevent.Timeout(10):
        ann.close()
        assert isinstance(request.get(), ServerGone)


def test_request_whose_greenlet_is_killed_can_be_resumed(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    request.kill()
    assert end.rest() == b""
    assert left(people.home("ann")) == {"part": b"hel"}
    chat_goes_on(ann, dan)
    until(lambda: _nobody_holds(people.home("ann")))
    request = fetching(ann)
    end = dan.pulled()
    assert dan.pull.offset == 3
    gives(end, b"hello", 3)
    assert received(request).resumed == 3


def _nobody_holds(home: Path) -> bool:
    with next(home.iterdir()).open("rb") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_callers_own_timeout_is_the_callers(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        ann.fetch("dan", "file")


@pytest.mark.usefixtures("tried_again")
def test_request_after_the_server_is_gone_is_an_error_at_once(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.02)
    alone.server.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ServerGone):
        list(alone.client.messages())
    assert isinstance(fetching(alone.client).get(), ServerGone)


def test_row_33_loss_of_the_server_keeps_what_has_come(
    server: ChatServer, people: People, dan: Owner, tmp_path: Path
) -> None:
    proxy = Proxy(server.port)
    ann = ChatClient("ann", proxy.port, share=tmp_path, into=people.home("ann"))
    ann.start()
    request = fetching(ann)
    dan.pulled().send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    proxy.close()
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == {"part": b"hel"}
    ann.close()
    assert left(people.home("ann")) == {"part": b"hel"}


def test_refused_requests_leave_nothing_behind(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    for number in range(20):
        request = fetching(ann, "dan", f"file{number}")
        refuses(dan, Code.NOT_FOUND)
        assert code_of(request) == Code.NOT_FOUND
    mine = ann._downloads
    assert not mine._asked
    assert not mine._fetching
    assert nothing_is_there(people)


def test_row_20_owner_that_never_comes_to_the_relay(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    ann = people.client("ann", route=Route.RELAY)
    request = fetching(ann)
    dan.grants()
    dan.wire.record(Dial)
    dan.wire.close()
    assert code_of(request) == Code.UNKNOWN_OWNER
    assert nothing_is_there(people)
