from collections.abc import Iterator

import gevent
import pytest
from conftest import Stub, Wire, reset
from gevent import socket

from greenchat.client import session
from greenchat.client.session import Session
from greenchat.connect import connect
from greenchat.errors import Code, ConnectError, Refused, ServerGone
from greenchat.protocol import records
from greenchat.protocol.codec import encode
from greenchat.protocol.wire import Text


class Both:
    """A client's session, and the server's end of it."""

    def __init__(self, stub: Stub) -> None:
        self.session = Session(connect("127.0.0.1", stub.port))
        self.server = stub.accept()

    def answered(self, answer: bytes) -> str:
        self.server.send(answer)
        return self.session.hello(records.Hello(1, "ann", 0)).name


@pytest.fixture
def both(stub: Stub) -> Iterator[Both]:
    one = Both(stub)
    yield one
    one.session.close()


WELCOME = encode(records.Welcome(1, "ann"))


def test_hello_says_who_and_where(both: Both) -> None:
    assert both.answered(WELCOME) == "ann"
    assert both.server.record(records.Hello) == records.Hello(1, "ann", 0)


def test_server_decides_the_name(both: Both) -> None:
    assert both.answered(encode(records.Welcome(1, "Zo\xeb"))) == "Zo\xeb"


@pytest.mark.parametrize(
    ("welcome", "code"),
    [
        pytest.param(records.Welcome(2, "ann"), Code.BAD_VERSION, id="a version that we do not speak"),
        pytest.param(records.Welcome(0, "ann"), Code.BAD_VERSION, id="a version that never was"),
        pytest.param(records.Welcome(1, "\x1b[2J"), Code.BAD_NAME, id="a name that is none"),
    ],
)
def test_welcome_that_cannot_be_is_an_error(both: Both, welcome: records.Welcome, code: Code) -> None:
    with pytest.raises(ConnectError) as failure:
        both.answered(encode(welcome))
    assert failure.value.code == code


def test_what_comes_with_the_welcome_is_not_lost(both: Both) -> None:
    both.answered(WELCOME + b"bob: hi\n")
    assert next(both.session.events()) == Text(b"bob: hi\n")


def test_refusal_has_its_code_and_safe_words(both: Both) -> None:
    with pytest.raises(Refused) as refused:
        both.answered(encode(records.Refused("name-taken", "no \x1b[31m")))
    assert refused.value.code == Code.NAME_TAKEN
    assert str(refused.value) == "no \u241b[31m"


def test_error_line_is_a_refusal(both: Both) -> None:
    with pytest.raises(Refused, match="the server is full"):
        both.answered(b"error: the server is full\n")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", id="SSH"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x28" + b"\x00" * 30_000, id="no line at all"),
        pytest.param(b"\x01{}\n", id="malformed record"),
        pytest.param(encode(records.Go()), id="another record"),
    ],
)
def test_row_36_another_protocol_is_an_error(both: Both, answer: bytes) -> None:
    with pytest.raises(ConnectError):
        both.answered(answer)


def test_row_36_another_protocol_is_named_as_such(both: Both) -> None:
    with pytest.raises(ConnectError, match="not a greenchat server: check the host and the port"):
        both.answered(b"220 mail.example ESMTP\r\n")


def test_server_that_closes_is_an_error(both: Both) -> None:
    both.server.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectError, match="the server closed the connection"):
        both.session.hello(records.Hello(1, "ann", 0))


def test_server_that_says_nothing_is_an_error(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.01)
    with pytest.raises(ConnectError, match="the server does not answer"):
        both.session.hello(records.Hello(1, "ann", 0))


def test_events_end_with_the_connection(both: Both) -> None:
    both.answered(WELCOME)
    both.server.send(b"bob: 1\n" + encode(records.Fail(1, "x", "y")) + b"bob: 2\nhalf")
    both.server.sock.shutdown(socket.SHUT_WR)
    events = [Text(b"bob: 1\n"), records.Fail(1, "x", "y"), Text(b"bob: 2\n")]
    assert list(both.session.events()) == events


def test_lines_of_many_greenlets_are_each_whole(both: Both) -> None:
    lines = [b"%d" % number * 2_000_000 + b"\n" for number in range(4)]
    sending = [gevent.spawn(both.session.send, line) for line in lines]
    arrived = both.server.exactly(sum(map(len, lines)))
    gevent.joinall(sending, raise_error=True)
    assert sorted(arrived.splitlines(keepends=True)) == lines


def test_sending_to_a_server_that_is_gone_is_an_error(both: Both) -> None:
    reset(both.server.sock)
    with pytest.raises(ServerGone):
        _send_for_ever(both)


def test_sending_to_a_server_that_never_reads_is_an_error(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SEND_SECONDS", 0.01)
    with pytest.raises(ServerGone):
        _send_for_ever(both)


def test_server_that_reads_slowly_is_no_such(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SEND_SECONDS", 0.2)
    both.session._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sending = gevent.spawn(both.session.send, b"x" * 8_000_000 + b"\n")
    taken = 0
    while taken <= 8_000_000:
        taken += len(both.server.sock.recv(400_000))
        gevent.sleep(0.02)
    sending.get(timeout=5)


def _send_for_ever(both: Both) -> None:
    while True:
        both.session.send(b"x" * 1_000_000 + b"\n")


def test_silent_server_is_asked_whether_it_is_there(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.01)
    both.answered(WELCOME)
    both.server.record(records.Hello)
    both.session.heartbeat = True
    event = gevent.spawn(next, both.session.events())
    both.server.record(records.Ping)
    both.server.tell(records.Pong())
    assert event.get(timeout=5) == records.Pong()


def test_server_that_does_not_answer_a_heartbeat_is_gone(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(session, "PONG_SECONDS", 0.01)
    both.answered(WELCOME)
    both.session.heartbeat = True
    with pytest.raises(ServerGone, match="it does not answer"):
        next(both.session.events())


def test_what_was_sent_arrives_after_finishing(both: Both) -> None:
    both.session.send(b"last\n")
    both.session.finish()
    both.session.finish()
    assert both.server.rest() == b"last\n"


def test_local_host_is_where_the_server_sees_us(both: Both) -> None:
    assert both.session.local_host == both.server.sock.getpeername()[0]


def test_closing_ends_the_connection(stub: Stub) -> None:
    one = Session(connect("127.0.0.1", stub.port))
    server: Wire = stub.accept()
    one.close()
    assert server.rest() == b""
