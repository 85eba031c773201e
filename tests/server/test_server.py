import gevent
import pytest
from conftest import People, Wire, hello, until
from gevent import socket

from greenchat import ChatServer
from greenchat.errors import Code, ListenError
from greenchat.protocol.records import Dial, Error, Get, Go, Have, Relay, Sorry, Take, Want, Welcome, encode
from greenchat.server import outbox
from greenchat.server import server as server_module


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_listens_on_this_machine_in_both_families(server: ChatServer, host: str) -> None:
    assert host in server.hosts
    wire = Wire(server.port, host)
    wire.send(hello("ann"))
    wire.record(Welcome)
    wire.close()


def test_listens_at_the_given_host_alone() -> None:
    with ChatServer(host="127.0.0.1") as server:
        assert server.hosts == ("127.0.0.1",)
        with pytest.raises(ConnectionRefusedError):
            Wire(server.port, "::1")


def test_listens_on_the_given_port() -> None:
    with ChatServer() as first:
        port = first.port
    with ChatServer(port) as second:
        assert second.port == port


def test_port_in_use_is_an_error_that_says_what_to_do(server: ChatServer) -> None:
    with pytest.raises(ListenError, match=f"port {server.port} is in use: give another") as refusal:
        ChatServer(server.port).start()
    assert refusal.value.code == Code.CANNOT_LISTEN


def test_port_in_use_in_one_family_is_an_error() -> None:
    with ChatServer(host="::1") as other, pytest.raises(ListenError, match="in use"):
        ChatServer(other.port).start()


def test_rooms_of_two_servers_are_apart(server: ChatServer, people: People) -> None:
    ann, bob = people.member("ann"), people.member("bob")
    with ChatServer() as elsewhere:
        twin = Wire(elsewhere.port)
        twin.send(hello("ann") + b"hi\n")
        twin.record(Welcome)
        ann.send(b"here\n")
        assert bob.line() == b"ann: here"
        twin.close()


def test_full_server_says_so_and_serves_who_is_in(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    bob, cat = people.member("bob"), people.wire(b"cat\nhi\n")
    assert bob.line() == b"cat: hi"
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 0.01)
    assert people.wire().rest() == b"error: the server is full: try again later\n"
    bob.send(b"hello\n")
    assert cat.line() == b"bob: hello"
    cat.close()
    bob.send(b"bye\n")
    until(lambda: _is_let_in(people))


def _is_let_in(people: People) -> bool:
    return people.wire(hello("dan")).line().startswith(b'\x01{"t":"welcome"')


# --- stopping ---------------------------------------------------------------------------------


def test_row_33_everyone_is_told_of_the_end(server: ChatServer, people: People) -> None:
    everyone = [people.member("ann"), people.member("bob"), people.wire(b"guest\n"), people.wire()]
    until(lambda: len(server._sessions) == len(everyone))
    stopping = gevent.spawn(server.stop)
    for wire in everyone:
        assert b"the server is shutting down" in wire.rest()
        wire.close()
    stopping.get()


def _shutdown() -> Error:
    return Error(Code.SHUTDOWN, "the server is shutting down")


@pytest.mark.parametrize(
    ("first", "last"),
    [
        pytest.param(b"bob\n", b"error: the server is shutting down\n", id="guest"),
        pytest.param(hello("bob"), encode(_shutdown()), id="client"),
        pytest.param(b"", b"error: the server is shutting down\n", id="one who has said nothing"),
        pytest.param(b"bo", b"error: the server is shutting down\n", id="one who has not said all"),
    ],
)
def test_row_33_last_words_are_in_the_form_that_the_peer_understands(first: bytes, last: bytes) -> None:
    server = ChatServer()
    server.start()
    wire = Wire(server.port)
    wire.send(first)
    until(lambda: [one for one in server._sessions if bool(one.name) == first.endswith(b"\n")])
    stopping = gevent.spawn(server.stop)
    assert wire.rest().endswith(last)
    wire.close()
    stopping.get()


def test_row_33_what_was_said_before_the_end_is_delivered(
    server: ChatServer, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FLUSH_SECONDS", 0.05)
    people.member("ann")
    bob = people.member("bob")
    (session,) = (one for one in server._sessions if one.name == "ann")
    server._room.post(session, b"last\n")
    server.stop()
    assert bob.line() == b"ann: last"
    assert bob.record(Error) == _shutdown()


def test_row_33_stopping_does_not_wait_long_for_who_does_not_read(
    server: ChatServer, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FLUSH_SECONDS", 0.01)
    people.member("deaf")
    people.wire(b"guest\n")
    with gevent.Timeout(1):
        server.stop()
    assert not server._sessions


def test_stopping_ends_relayed_connections(server: ChatServer, people: People) -> None:
    ann, dan = people.member("ann"), people.member("dan", 5000)
    ann.tell(Get(1, "dan", "x"))
    dan.tell(Have(dan.record(Want).ticket, 1))
    one = people.wire(encode(Relay(ann.record(Take).key)))
    other = people.wire(encode(Relay(dan.record(Dial).key)))
    one.record(Go)
    other.record(Go)
    ann.close()
    dan.close()
    server.stop()
    assert one.rest() == other.rest() == b""


def test_stopping_ends_those_who_wait_at_the_relay(
    server: ChatServer, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FLUSH_SECONDS", 0.05)
    ann, dan = people.member("ann"), people.member("dan", 5000)
    ann.tell(Get(1, "dan", "x"))
    dan.tell(Have(dan.record(Want).ticket, 1))
    one = people.wire(encode(Relay(ann.record(Take).key)))
    dan.record(Dial)
    server.stop()
    assert one.record(Sorry).code in {Code.SHUTDOWN, Code.OWNER_LEFT, Code.INTERRUPTED}
    assert one.rest() == b""


def test_stopped_server_accepts_nobody(server: ChatServer) -> None:
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        Wire(server.port)


def test_stopping_twice_is_stopping(server: ChatServer) -> None:
    server.stop()
    server.stop()


def test_stopping_what_never_started_does_nothing() -> None:
    ChatServer().stop()


def test_serving_for_ever_ends_with_stopping(server: ChatServer) -> None:
    serving = gevent.spawn(server.serve_forever)
    gevent.sleep(0)
    assert not serving.ready()
    server.stop()
    serving.get()


def test_row_29_storm_of_connections_ends_in_service(server: ChatServer, people: People) -> None:
    ann, bob = people.member("ann"), people.wire(b"bob\n")
    for number in range(300):
        sock = socket.create_connection(("127.0.0.1", server.port))
        if number % 3:
            sock.sendall(b"half a na" if number % 3 == 1 else hello(f"n{number}"))
        sock.close()
    bob.send(b"hi\n")
    assert ann.line() == b"bob: hi"
    until(lambda: len(server._sessions) == 2)
