from collections.abc import Callable, Iterator

import gevent
import pytest
from conftest import Stub

from greenchat import ChatClient, ChatServer
from greenchat.client.servers import Servers
from greenchat.errors import Code, ConnectError


@pytest.fixture
def other() -> Iterator[Stub]:
    one = Stub()
    yield one
    one.close()


def local(*stubs: Stub) -> Servers:
    return Servers([("127.0.0.1", one.port) for one in stubs], None, insecure=False)


def reached(servers: Servers) -> int:
    """The port of which server."""
    servers.reach().close()
    return servers.address[1]


def test_servers_are_tried_in_turn(stub: Stub, other: Stub) -> None:
    servers = local(stub, other)
    assert [reached(servers) for _ in range(4)] == [stub.port, other.port] * 2
    assert servers.first == ("127.0.0.1", stub.port)


def test_one_that_does_not_answer_is_passed_over(stub: Stub, other: Stub) -> None:
    servers = local(stub, other)
    stub.close()
    assert [reached(servers) for _ in range(2)] == [other.port] * 2


def test_none_answers(stub: Stub, other: Stub) -> None:
    servers = local(stub, other)
    stub.close()
    other.close()
    with pytest.raises(ConnectError, match="no server answers") as error:
        servers.reach()
    assert error.value.code is Code.UNREACHABLE


def test_name_of_a_server_is_one_however_it_is_written() -> None:
    assert Servers([("Example.ORG.", 1)], None, insecure=False).first == ("example.org", 1)


def test_address_of_the_server_that_was_reached_is_known_in_numbers(stub: Stub) -> None:
    servers = Servers([("localhost", stub.port)], None, insecure=False)
    servers.reach().close()
    assert servers.address == ("localhost", stub.port)
    assert servers.peer == ("127.0.0.1", stub.port)


@pytest.mark.attack(49)
@pytest.mark.parametrize("upper", [False, True])
def test_link_local_zone_keeps_its_case_on_both_sides(network: Callable[..., None], *, upper: bool) -> None:
    network("ip", "link", "add", "Gc0", "type", "veth", "peer", "name", "Gc1")
    for name in ("Gc0", "Gc1"):
        network("ip", "link", "set", name, "up")
    network("ip", "address", "add", "fe80::9/64", "dev", "Gc0", "nodad")
    host = "FE80::9%Gc0" if upper else "fe80::9%Gc0"
    with (
        ChatServer(host=host, insecure=True) as server,
        ChatClient("ann", server.port, host=host, insecure=True) as ann,
    ):
        assert server.hosts == ("fe80::9%Gc0",)
        with ChatClient("bob", server.port, host=host, insecure=True) as bob:
            ann.send("hi")
            assert str(next(bob.messages())) == "ann: hi"


def test_one_elsewhere_is_not_spoken_to_without_encryption(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    monkeypatch.setattr("greenchat.client.servers.is_loopback", lambda _host: False)
    with pytest.raises(ConnectError) as error:
        local(stub).reach()
    assert error.value.code is Code.TLS_REQUIRED
    gevent.sleep(0)
