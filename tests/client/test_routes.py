import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias, TypeVar

import gevent
import pytest
from client.owners import Alone
from conftest import People, Stub, Wire, until
from gevent import socket
from peers import BYTES, Owner, code_of, fetching, gives, left, received, sha256, sharing

from greenchat import ChatClient, Route, addresses
from greenchat.client import routes
from greenchat.client.routes import Routes
from greenchat.client.servers import Servers
from greenchat.connect import connect
from greenchat.errors import Code, ConnectError, GreenchatError, ProtocolError, TransferError
from greenchat.net import listen
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import ANSWER_SECONDS, MAX_ADDRESSES, SLOWEST_DISK
from greenchat.protocol.records import (
    Addresses,
    Dial,
    File,
    Get,
    Go,
    Got,
    Have,
    Pull,
    Record,
    Refused,
    Relay,
    Sorry,
    Take,
    Want,
)
from greenchat.transfer import channel

pytestmark = pytest.mark.usefixtures("tried_once")

R = TypeVar("R", bound=Record)

PULL = Pull("ticket", "sha256", 0, "")


# --- which way --------------------------------------------------------------------------------


class Crossing:
    """An owner's port, a server's port, and routes between them."""

    def __init__(self, route: Route, servers: Sequence[tuple[str, int]] = ()) -> None:
        self.owner, self.server = Stub(), Stub()
        self.servers = Servers([("127.0.0.1", self.server.port), *servers], None, insecure=False)
        self.routes = Routes(self.servers, route)
        self.take = Take(1, "ticket", 5, (("127.0.0.1", self.owner.port),), "key", ("sha256",))

    def reaching(self, turn: int = 0, pull: Pull = PULL) -> "gevent.Greenlet[..., object]":
        return gevent.spawn(self._reach, turn, pull)

    def _reach(self, turn: int, pull: Pull) -> object:
        try:
            with self.routes.reach(self.take, pull, turn) as (_, file):
                return file
        except (ConnectError, ProtocolError, TransferError) as error:
            return error

    def close(self) -> None:
        self.owner.close()
        self.server.close()


Cross: TypeAlias = Callable[..., Crossing]


@pytest.fixture
def cross() -> Iterator[Cross]:
    """Makes one for a route."""
    with ExitStack() as made:
        yield lambda route=Route.AUTO, servers=(): made.enter_context(closing(Crossing(route, servers)))


def failure(reaching: "gevent.Greenlet[..., object]") -> Code:
    """Why a transfer did not begin."""
    error = reaching.get()
    assert isinstance(error, TransferError)
    return error.code


def refuses(end: Wire) -> None:
    end.sock.recv(1)
    end.close()


@pytest.mark.parametrize(
    ("route", "turn", "expected"),
    [
        (Route.AUTO, 0, "direct, relay"),
        (Route.AUTO, 1, "relay, direct"),
        (Route.AUTO, 2, "direct, relay"),
        (Route.AUTO, 7, "relay, direct"),
        (Route.DIRECT, 0, "direct"),
        (Route.DIRECT, 1, "direct"),
        (Route.RELAY, 0, "relay"),
        (Route.RELAY, 1, "relay"),
    ],
)
def test_ways_are_tried_in_turn_each_once(cross: Cross, route: Route, turn: int, expected: str) -> None:
    between = cross(route)
    tried = []

    def break_off(stub: Stub, way: str) -> None:
        while True:
            refuses(stub.accept())
            tried.append(way)

    ports = [
        gevent.spawn(break_off, between.owner, "direct"),
        gevent.spawn(break_off, between.server, "relay"),
    ]
    assert failure(between.reaching(turn)) == Code.INTERRUPTED
    gevent.killall(ports)
    assert ", ".join(tried) == expected
    assert not between.routes._channels


def test_directly_the_pull_is_all_that_is_said(cross: Cross) -> None:
    between = cross()
    pull = Pull("ticket", "sha256", 3, "digest")
    reaching = between.reaching(0, pull)
    end = between.owner.accept()
    assert end.record(Pull) == pull
    end.tell(File(5, 3))
    assert reaching.get() == File(5, 3)
    assert end.rest() == b""  # it is closed when it is left


def test_through_the_relay_the_key_comes_first_and_then_the_pull(cross: Cross) -> None:
    between = cross()
    reaching = between.reaching(1)
    end = between.server.accept()
    assert end.record(Relay) == Relay("key")
    end.tell(Go())
    assert end.record(Pull) == PULL
    end.tell(File(5, 0))
    assert reaching.get() == File(5, 0)
    assert end.rest() == b""


def test_all_of_the_owners_addresses_are_tried(cross: Cross) -> None:
    between = cross(Route.DIRECT)
    (nobody,) = listen(("127.0.0.1",), 0)
    gone = nobody.getsockname()[1]
    nobody.close()
    between.take = Take(1, "ticket", 5, (("127.0.0.1", gone), *between.take.direct), "key", ())
    reaching = between.reaching()
    end = between.owner.accept()
    end.record(Pull)
    end.tell(File(5, 0))
    assert reaching.get() == File(5, 0)


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
def test_of_very_many_addresses_some_are_tried(cross: Cross, route: Route) -> None:
    many = (("127.0.0.1", 5000),) * 1000
    between = cross(route)
    assert len(list(between.routes._ways(Take(1, "ticket", 5, many, "key", (), relay=many)))) == MAX_ADDRESSES


def relayed_to(between: Crossing, relay: Addresses) -> Take:
    """What ann may take, by *relay* alone."""
    return between.take.replace(direct=(), relay=relay)


@pytest.mark.attack(18)
@pytest.mark.parametrize(
    "relay",
    [
        pytest.param(("localhost", 5000), id="a name"),
        pytest.param(("127.0.0.1", 1023), id="a port that is too low"),
        pytest.param(("127.0.0.1", 65536), id="a port that is too high"),
        pytest.param(("0.0.0.0", 5000), id="no address of a machine"),
    ],
)
def test_relay_that_is_not_the_chats_is_not_gone_to(cross: Cross, relay: tuple[str, int]) -> None:
    between = cross()
    between.take = relayed_to(between, (relay, ("127.0.0.1", between.server.port)))
    reaching = between.reaching()
    end = between.server.accept()
    assert end.record(Relay) == Relay("key")
    end.tell(Sorry(Code.NOT_FOUND, ""))
    assert failure(reaching) == Code.NOT_FOUND
    between.take = relayed_to(between, (relay,))
    assert failure(between.reaching()) == Code.UNREACHABLE


@pytest.mark.attack(18)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo", "192.168.0.1", "169.254.169.254"])
def test_server_elsewhere_sends_nobody_to_a_network_where_it_is_not(cross: Cross, host: str) -> None:
    between = cross()
    between.servers.peer = ("8.8.8.8", 6001)
    place = ((host, between.owner.port),)
    between.take = between.take.replace(direct=place, relay=place)
    assert failure(between.reaching()) == Code.UNREACHABLE


def test_relay_may_be_another_server_that_the_user_has_named(cross: Cross) -> None:
    between = cross(servers=[("localhost", 443)])
    between.take = relayed_to(between, (("LOCALHOST", 443),))
    (way,) = between.routes._ways(between.take)
    assert isinstance(way, functools.partial)
    assert way.args[:2] == ("LOCALHOST", 443)


def test_relay_is_where_the_chat_is_though_its_name_may_lead_elsewhere_now(cross: Cross) -> None:
    between = cross(Route.RELAY, servers=[("example.org", 6001)])
    between.servers.peer = ("127.0.0.1", between.server.port)
    reaching = between.reaching()
    end = between.server.accept()
    end.record(Relay)
    end.tell(Sorry(Code.NOT_FOUND, ""))
    assert failure(reaching) == Code.NOT_FOUND


def test_no_way_at_all_is_an_error(cross: Cross) -> None:
    between = cross(Route.DIRECT)
    between.take = Take(1, "ticket", 5, (), "key", ())
    assert failure(between.reaching(3)) == Code.UNREACHABLE


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.TOO_MANY, Code.CHANGED, Code.BAD_VERSION])
def test_answer_of_the_owner_itself_is_final(cross: Cross, code: Code) -> None:
    between = cross()
    reaching = between.reaching()
    end = between.owner.accept()
    end.tell(Sorry(code, ""))
    assert failure(reaching) == code


@pytest.mark.parametrize("code", [Code.INTERRUPTED, Code.STALLED, Code.BAD_TICKET])
def test_what_somebody_else_may_have_answered_is_not(cross: Cross, code: Code) -> None:
    between = cross()
    reaching = between.reaching()
    between.owner.accept().tell(Sorry(code, ""))
    end = between.server.accept()
    end.record(Relay)
    end.tell(Go())
    end.tell(File(5, 0))
    assert reaching.get() == File(5, 0)


def test_owner_has_time_to_read_again_what_the_requester_has(cross: Cross, monkeypatch: pytest.MonkeyPatch) -> None:
    granted = []

    def expect(self: channel.Channel, kind: type[R], seconds: float = 0, more: float = 0.0) -> R:
        granted.append((kind, seconds, more))
        raise TransferError(Code.NOT_FOUND)

    monkeypatch.setattr(channel.Channel, "expect", expect)
    between = cross(Route.DIRECT)
    between.reaching(0, Pull("ticket", "sha256", 10 * SLOWEST_DISK, "digest")).get()
    assert granted == [(File, ANSWER_SECONDS, 10.0)]


# --- the end ----------------------------------------------------------------------------------


def test_closing_ends_what_is_open_and_lets_nothing_be_opened(cross: Cross) -> None:
    between = cross(Route.DIRECT)
    reaching = between.reaching()
    end = between.owner.accept()
    end.record(Pull)
    between.routes.close()
    assert end.rest() == b""
    for one in (reaching, between.reaching()):
        assert failure(one) == Code.INTERRUPTED
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        between.owner.accept()


def test_closing_while_the_connection_is_made_opens_nothing(cross: Cross, monkeypatch: pytest.MonkeyPatch) -> None:
    between = cross(Route.DIRECT)

    def slow(host: str, port: int, seconds: float) -> socket.socket:
        sock = connect(host, port, seconds)
        between.routes.close()
        return sock

    monkeypatch.setattr(routes, "connect", slow)
    assert failure(between.reaching()) == Code.INTERRUPTED
    assert between.owner.accept().rest() == b""


@pytest.mark.parametrize("turn", [0, 1], ids=["direct", "relay"])
def test_killed_greenlet_leaves_no_connection(cross: Cross, turn: int) -> None:
    between = cross()
    reaching = between.reaching(turn)
    end = (between.server if turn else between.owner).accept()
    end.line()
    reaching.kill()
    assert end.rest() == b""
    assert not between.routes._channels


def test_error_inside_closes_the_connection(cross: Cross) -> None:
    between = cross(Route.DIRECT)

    def fail() -> None:
        with between.routes.reach(between.take, PULL, 0):
            raise RuntimeError("inside")

    failing = gevent.spawn(fail)
    end = between.owner.accept()
    end.tell(File(5, 0))
    end.record(Pull)
    assert end.rest() == b""
    with pytest.raises(RuntimeError, match="inside"):
        failing.get()


# --- with clients and servers -----------------------------------------------------------------


@pytest.mark.parametrize(("route", "direct"), [(Route.DIRECT, True), (Route.AUTO, True), (Route.RELAY, False)])
def test_route_is_as_told(people: People, dan: Owner, route: Route, *, direct: bool) -> None:
    request = fetching(people.client("ann", route=route))
    if direct:
        end = dan.pulled()
    else:
        dan.grants()
        end = dan.dialled()
    gives(end, b"hello")
    assert end.record(Got).digest == sha256(b"hello")
    received(request)


def without_listener(people: People) -> ChatClient:
    """An owner whose port for file requests is closed."""
    bob = sharing(people, "bob", file=BYTES)
    for listener in bob._uploads._listeners:
        listener.stop()
    return bob


def test_relay_if_the_owners_listener_is_gone(people: People) -> None:
    without_listener(people)
    assert people.client("ann").fetch("bob", "file").size == len(BYTES)


def test_relay_if_the_owner_has_no_listener(people: People) -> None:
    bob = people.member("bob")
    request = fetching(people.client("ann"), "bob")
    bob.tell(Have(bob.record(Want).ticket, 1, ("sha256",)))
    end = people.wire(encode(Relay(bob.record(Dial).key)))
    end.record(Go)
    end.record(Pull)
    gives(end, b"x")
    end.record(Got)
    received(request)


ANOTHER_PROGRAM = [
    pytest.param(b"", id="closes"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
    pytest.param(encode(Refused(Code.UNEXPECTED, "")), id="a chat server"),
    pytest.param(b"\x01{", id="half a record"),
    pytest.param(b"\x01{}\n", id="malformed record"),
    pytest.param(encode(Sorry(Code.BAD_TICKET, "")), id="another client"),
    pytest.param(b"\x00" * 100_000, id="no line"),
]


@pytest.mark.parametrize("answer", ANOTHER_PROGRAM)
def test_relay_if_another_program_answers_on_the_owners_port(people: People, answer: bytes) -> None:
    bob = without_listener(people)
    program = Stub(bob.listen)
    answering = gevent.spawn(_answer, program, answer)
    try:
        assert people.client("ann").fetch("bob", "file").size == len(BYTES)
    finally:
        answering.get()
        program.close()


def _answer(program: Stub, answer: bytes) -> None:
    end = program.accept()
    end.record(Pull)
    end.send(answer)
    end.close()


def test_relay_if_the_owners_port_is_silent(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ANSWER_SECONDS", 1)  # which a relay that has to be begun first needs in part
    bob = without_listener(people)
    with closing(Stub(bob.listen)):
        assert people.client("ann").fetch("bob", "file").size == len(BYTES)


def test_direct_route_alone_has_no_relay_to_fall_back_on(people: People) -> None:
    without_listener(people)
    request = fetching(people.client("ann", route=Route.DIRECT), "bob")
    assert code_of(request) == Code.UNREACHABLE


def test_direct_route_to_an_owner_without_listener_is_an_error(people: People) -> None:
    bob = people.member("bob")
    request = fetching(people.client("ann", route=Route.DIRECT), "bob")
    bob.tell(Have(bob.record(Want).ticket, 1, ("sha256",)))
    assert code_of(request) == Code.UNREACHABLE


@pytest.mark.parametrize(
    ("host", "beyond"),
    [
        pytest.param("localhost", 0, id="a name"),
        pytest.param("", 0, id="no host"),
        pytest.param("a" * 64, 0, id="a name that can be none"),
        pytest.param("127.0.0.1", 0, id="a port that is too low"),
        pytest.param("127.0.0.1", 65536, id="a port that is too high"),
    ],
)
def test_row_18_client_goes_to_no_privileged_port_and_looks_no_name_up(
    alone: Alone, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, beyond: int
) -> None:
    request = fetching(alone.client)
    if host == "127.0.0.1":  # as if the stub's were one of the privileged ports
        monkeypatch.setattr(addresses, "MIN_PORT", stub.port + 1)
    alone.server.tell(Take(alone.server.record(Get).id, "ticket", 1, ((host, stub.port + beyond),), "k", ("sha256",)))
    assert stub.accept().record(Relay).key == "k"  # the direct way was passed over
    stub.close()
    alone.server.close()
    assert isinstance(request.get(), GreenchatError)
    alone.client.close()
    assert left(tmp_path) == {}


def test_row_20_owner_that_never_comes_to_the_relay(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MEET_SECONDS", 0.01)
    ann = people.client("ann", route=Route.RELAY)
    request = fetching(ann)
    dan.grants()
    dan.wire.record(Dial)
    assert code_of(request) == Code.STALLED
    until(lambda: not ann._downloads._routes._channels)
