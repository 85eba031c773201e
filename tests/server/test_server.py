import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from conftest import People, Wire, hello, reset, until
from gevent import socket
from programs import Server
from server.pairs import children, ended, hear, runs

from greenchat import ChatServer
from greenchat.errors import Code, ListenError
from greenchat.net import raise_descriptor_limit
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import DRAIN_SECONDS
from greenchat.protocol.records import Dial, Error, Fail, Get, Go, Have, Relay, Sorry, Take, Want, Welcome
from greenchat.server import admission, outbox, session
from greenchat.server import server as server_module
from greenchat.server.registry import Registry


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
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
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
    assert session._member
    server._rooms.find("").post(session._member, b"last\n")
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


def relayed(people: People, requester: str = "ann", owner: str = "dan") -> tuple[Wire, Wire, Wire, Wire]:
    """A requester and an owner, and the side of each in a relay."""
    ann, dan = people.member(requester), people.member(owner, 5000)
    one, other = asked(people, ann, dan)
    one.record(Go)
    other.record(Go)
    return ann, dan, one, other


def asked(people: People, ann: Wire, dan: Wire, owner: str = "dan") -> tuple[Wire, Wire]:
    """Both sides of a relay for a file of dan's that ann asks for."""
    take = granted(ann, dan, owner)
    one = people.wire(encode(Relay(take.key)))
    return one, people.wire(encode(Relay(dan.record(Dial).key)))


def granted(ann: Wire, dan: Wire, owner: str = "dan") -> Take:
    ann.tell(Get(1, owner, "x"))
    dan.tell(Have(dan.record(Want).ticket, 1, ("sha256",)))
    return ann.record(Take)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Last words have little time."""
    monkeypatch.setattr(server_module, "FLUSH_SECONDS", 0.05)


def draining(server: ChatServer, drain: float = 1000) -> "gevent.Greenlet[..., None]":
    """Stops the server, which waits for a relayed transfer."""
    stopping = gevent.spawn(server.stop, drain)
    until(lambda: server._office._closed)
    return stopping


@pytest.mark.parametrize("drain", [0, -1, 0.05])
def test_stopping_ends_relayed_connections(server: ChatServer, people: People, hurried: None, drain: float) -> None:
    ann, dan, one, other = relayed(people)
    with gevent.Timeout(5):
        server.stop(drain)
    assert one.rest() == other.rest() == b""
    assert ann.record(Error) == dan.record(Error) == _shutdown()


def test_row_33_stopping_lets_a_relayed_transfer_end_first(server: ChatServer, people: People, hurried: None) -> None:
    ann, dan, one, other = relayed(people)
    stopping = draining(server)
    for number in range(20):
        other.send(b"piece %d\n" % number)
        assert one.line() == b"piece %d" % number
    other.sock.shutdown(socket.SHUT_WR)
    assert one.rest() == b""
    one.send(b"got it\n")
    assert other.line() == b"got it"
    assert not stopping.ready()
    one.sock.shutdown(socket.SHUT_WR)
    assert other.rest() == b""
    assert ann.rest() == dan.rest() == encode(_shutdown())
    stopping.get()


def test_row_33_nobody_is_told_before_the_transfers_have_ended(
    server: ChatServer, people: People, hurried: None
) -> None:
    ann, dan, one, other = relayed(people)
    bob, quiet = people.wire(b"bob\n"), people.wire()
    until(lambda: len(server._sessions) == 4)
    stopping = draining(server)
    bob.send(b"what is going on?\n")
    assert ann.line() == dan.line() == b"bob: what is going on?"
    ann.send(b"nothing\n")
    assert bob.line() == b"ann: nothing"
    one.close()
    other.close()
    assert ann.record(Error) == _shutdown()
    assert dan.line() == b"ann: nothing"
    assert dan.record(Error) == _shutdown()
    assert bob.rest() == quiet.rest() == b"error: the server is shutting down\n"
    stopping.get()


def test_row_33_new_requests_are_refused_while_transfers_end(server: ChatServer, people: People, hurried: None) -> None:
    ann, dan, one, other = relayed(people)
    stopping = draining(server)
    for requester, owner in ((ann, "dan"), (dan, "ann"), (ann, "nobody")):
        requester.tell(Get(7, owner, "y"))
        assert requester.record(Fail) == Fail(7, Code.SHUTDOWN, "the server is shutting down")
    one.close()
    other.close()
    assert ann.record(Error) == dan.record(Error) == _shutdown()
    stopping.get()


def test_row_33_request_that_waits_is_answered_while_transfers_end(
    server: ChatServer, people: People, hurried: None
) -> None:
    ann, dan, one, other = relayed(people)
    ann.tell(Get(7, "dan", "y"))
    ticket = dan.record(Want).ticket
    stopping = draining(server)
    dan.tell(Have(ticket, 1, ("sha256",)))
    assert ann.record(Take).id == 7
    one.close()
    other.close()
    stopping.get()


def test_row_33_nobody_can_connect_while_transfers_end(server: ChatServer, people: People, hurried: None) -> None:
    _, _, one, other = relayed(people)
    stopping = draining(server)
    for host in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):
            Wire(server.port, host)
    one.close()
    other.close()
    stopping.get()


def test_row_33_granted_transfer_whose_sides_are_connected_already_is_waited_for_too(
    server: ChatServer, people: People, hurried: None
) -> None:
    ann, dan, one, other = relayed(people)
    key, early = granted(ann, dan).key, [people.wire(), people.wire()]
    until(lambda: len(server._sessions) == 4)
    stopping = draining(server)
    early[0].tell(Relay(key))
    early[1].tell(Relay(dan.record(Dial).key))
    early[0].record(Go)
    early[1].record(Go)
    one.close()
    other.close()
    until(lambda: server._relay.running == 1)
    early[1].send(b"still\n")
    assert early[0].line() == b"still"
    assert not stopping.ready()
    for side in early:
        side.close()
    assert ann.record(Error) == _shutdown()
    stopping.get()


def test_row_33_who_waits_at_the_relay_is_told_when_the_transfers_have_ended(
    server: ChatServer, people: People, hurried: None
) -> None:
    ann, dan, one, other = relayed(people)
    side = people.wire(encode(Relay(granted(ann, dan).key)))
    dan.record(Dial)
    stopping = draining(server)
    one.close()
    other.close()
    assert side.record(Sorry).code == Code.SHUTDOWN
    assert side.rest() == b""
    stopping.get()


@pytest.mark.parametrize("leave", ["ann", "dan"])
def test_row_33_transfer_whose_user_leaves_is_waited_for(
    server: ChatServer, people: People, hurried: None, leave: str
) -> None:
    ann, dan, one, other = relayed(people)
    stopping = draining(server)
    {"ann": ann, "dan": dan}[leave].close()
    until(lambda: len(server._sessions) == 1)
    other.send(b"more\n")
    assert one.line() == b"more"
    assert not stopping.ready()
    one.close()
    other.close()
    stopping.get()


def test_row_33_transfers_do_not_hold_up_the_end_for_ever(server: ChatServer, people: People, hurried: None) -> None:
    ann, _, one, other = relayed(people)
    sending = gevent.spawn(_send_on, other)
    with gevent.Timeout(5):
        server.stop(0.1)
    assert ann.record(Error) == _shutdown()
    sending.get()
    one.close()


def _send_on(wire: Wire) -> None:
    with contextlib.suppress(OSError):
        while True:
            wire.send(b"x" * 100_000)


@pytest.mark.parametrize(("given", "seconds"), [((), DRAIN_SECONDS), ((7.5,), 7.5)], ids=["by itself", "as told"])
def test_transfers_have_so_long_to_end(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, given: tuple[float, ...], seconds: float
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(server._relay, "drain", waited.append)
    server.stop(*given)
    assert waited == [seconds]


def test_stopping_without_transfers_waits_for_none(server: ChatServer, people: People, hurried: None) -> None:
    _, _, one, other = relayed(people)
    one.close()
    other.close()
    until(lambda: server.relaying == 0)
    with gevent.Timeout(5):
        server.stop(1000)


def test_relaying_is_how_many_transfers_go_through_the_server(
    server: ChatServer, people: People, hurried: None
) -> None:
    assert server.relaying == 0
    ann, dan, *sides = relayed(people)
    sides += asked(people, ann, dan)
    until(lambda: server.relaying == 2)
    for side in sides:
        side.close()
    until(lambda: server.relaying == 0)
    server.stop()
    assert server.relaying == 0


def test_relaying_counts_while_transfers_end_too(server: ChatServer, people: People, hurried: None) -> None:
    _, _, one, other = relayed(people)
    stopping = draining(server)
    assert server.relaying == 1
    one.close()
    other.close()
    stopping.get()
    assert server.relaying == 0


def test_row_20_relay_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with Server() as running, contextlib.closing(People(running, tmp_path)) as people:  # type: ignore[arg-type]  # a port is all that is asked
        _, _, one, other = relayed(people)
        hear(other, one)
        (process,) = children(running.process.pid)
        running.signal(signal.SIGKILL)
        assert ended(one)
        assert ended(other)
        until(lambda: not runs(process))
        assert running.process.wait() == -signal.SIGKILL
        running.err._reader.join()
        assert len(running.err.lines) == 1  # where it listens


def test_nothing_is_relayed_before_the_start() -> None:
    assert ChatServer().relaying == 0


def test_serving_for_ever_goes_on_while_transfers_end(server: ChatServer, people: People, hurried: None) -> None:
    _, _, one, other = relayed(people)
    serving = gevent.spawn(server.serve_forever)
    stopping = draining(server)
    one.send(b"x\n")
    assert other.line() == b"x"
    assert not serving.ready()
    one.close()
    other.close()
    stopping.get()
    serving.get()


def test_stopping_again_while_transfers_end_does_not_say_that_all_is_done(
    server: ChatServer, people: People, hurried: None
) -> None:
    _, _, one, other = relayed(people)
    serving = gevent.spawn(server.serve_forever)
    stopping = [draining(server), gevent.spawn(server.stop)]
    for _ in range(20):
        one.send(b"x\n")
        assert other.line() == b"x"
    assert [one.ready() for one in (*stopping, serving)] == [False] * 3
    one.close()
    other.close()
    gevent.joinall([*stopping, serving])


def test_stopping_without_a_drain_cuts_short_a_stopping_with_one(
    server: ChatServer, people: People, hurried: None
) -> None:
    _, _, one, other = relayed(people)
    stopping = draining(server)
    with gevent.Timeout(5):
        server.stop(0)
        stopping.get()
    assert one.rest() == other.rest() == b""


def test_stopping_that_is_given_up_in_the_drain_ends_everything_all_the_same(
    server: ChatServer, people: People, hurried: None
) -> None:
    ann, _, one, other = relayed(people)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        server.stop(1000)
    with gevent.Timeout(5):
        server.stop(0)
        assert one.rest() == other.rest() == b""
        assert ann.record(Error) == _shutdown()


def test_stopping_ends_those_who_wait_at_the_relay(
    server: ChatServer, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FLUSH_SECONDS", 0.05)
    ann, dan = people.member("ann"), people.member("dan", 5000)
    one = people.wire(encode(Relay(granted(ann, dan).key)))
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


HALF_OPEN = 5000


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_row_29_thousands_of_half_open_connections_keep_nobody_out(
    many_descriptors: None, server: ChatServer, people: People
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * HALF_OPEN + 500:
        pytest.skip("this system grants too few descriptors to one process")
    ann, bob = people.member("ann"), people.wire(b"bob\n")
    firsts = (b"", b"half a na", b"\x01{", encode(Relay("0"))[:-1])  # none of them a line
    for number in range(HALF_OPEN):
        people.wire(firsts[number % 4])
    until(lambda: len(server._sessions) == 2 + HALF_OPEN)
    bob.send(b"hi\n")
    assert ann.line() == b"bob: hi"
    cat = people.member("cat")
    cat.send(b"me too\n")
    assert ann.line() == bob.line() == b"cat: me too"


def test_row_29_half_open_connections_are_let_go_when_their_time_is_up(
    server: ChatServer, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = people.member("ann"), people.wire(b"bob\n")
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.1)
    strangers = [people.wire(b"half a na") for _ in range(200)]
    assert {one.rest() for one in strangers} == {b"error: no name was given in time\n"}
    for one in strangers:
        one.close()
    until(lambda: len(server._sessions) == 2)
    bob.send(b"hi\n")
    assert ann.line() == b"bob: hi"


def test_row_31_relays_without_a_ticket_are_each_refused_and_count_for_nothing(
    server: ChatServer, people: People
) -> None:
    ann, bob = people.member("ann"), people.wire(b"bob\n")
    guesses = [people.wire(encode(Relay(f"{number:032x}"))) for number in range(300)]
    assert {one.record(Sorry).code for one in guesses} == {Code.BAD_TICKET}
    assert server.relaying == 0
    bob.send(b"hi\n")
    assert ann.line() == b"bob: hi"


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
def test_row_33_sides_that_vanish_while_transfers_end_hold_up_nothing(
    server: ChatServer, people: People, hurried: None, vanish: Callable[[socket.socket], None]
) -> None:
    ann, _, one, other = relayed(people)
    stopping = draining(server)
    vanish(one.sock)
    other.close()
    assert ann.record(Error) == _shutdown()
    stopping.get()


# --- who says too much ------------------------------------------------------------------------


def test_row_30_member_that_says_too_much_is_delayed_and_loses_nothing() -> None:
    with ChatServer(member_rate=20_000) as slow:
        ann, bob, cat = Wire(slow.port), Wire(slow.port), Wire(slow.port)
        for wire, name in ((ann, "ann"), (bob, "bob"), (cat, "cat")):
            wire.send(hello(name))
            wire.record(Welcome)
        lines = [b"line %06d" % number for number in range(1500)]  # some 120,000 as they count, and 80,000 are free
        bob.send(b"".join(line + b"\n" for line in lines))
        begun = time.monotonic()
        assert [ann.line() for _ in lines] == [b"bob: " + line for line in lines]
        bob.send(b"last\n")
        assert ann.line() == b"bob: last"
        assert time.monotonic() - begun > 1
        cat.send(b"hi\n")
        assert ann.line() == b"cat: hi"
        for wire in (ann, bob, cat):
            wire.close()


def test_server_goes_beyond_this_machine_only_if_told_so() -> None:
    with pytest.raises(ListenError, match=r"at 0\.0\.0\.0 nothing would be encrypted: give --tls") as refused:
        ChatServer(host="0.0.0.0").start()
    assert refused.value.code == Code.TLS_REQUIRED
    with ChatServer(host="0.0.0.0", insecure=True):
        pass


@pytest.mark.parametrize("members_only", [False, True])
def test_names_can_belong_to_nobody_without_encryption(tmp_path: Path, members_only: bool) -> None:  # noqa: FBT001 - pytest's way
    with contextlib.closing(Registry(tmp_path / "names.db")) as registry, pytest.raises(ValueError, match="prove"):
        ChatServer(registry=registry, members_only=members_only)


def test_members_alone_takes_a_registry() -> None:
    with pytest.raises(ValueError, match="registry"):
        ChatServer(members_only=True)
