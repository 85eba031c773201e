from collections.abc import Iterator

import gevent
import pytest
from conftest import Stub

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


def test_one_elsewhere_is_not_spoken_to_without_encryption(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    monkeypatch.setattr("greenchat.client.servers.is_loopback", lambda _host: False)
    with pytest.raises(ConnectError) as error:
        local(stub).reach()
    assert error.value.code is Code.TLS_REQUIRED
    gevent.sleep(0)
