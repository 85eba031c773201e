from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import gevent
import pytest
from conftest import Stub, reset, tcp_pair, until
from gevent import socket
from gevent.event import Event

from greenchat import connect as module
from greenchat.addresses import Address
from greenchat.connect import Outcomes, connect, peer_host
from greenchat.errors import Code, ConnectError
from greenchat.net import listen


def refusal(host: str, port: int) -> str:
    with pytest.raises(ConnectError) as refused:
        connect(host, port)
    assert refused.value.code == Code.UNREACHABLE
    return str(refused.value)


def test_row_36_server_that_is_not_there_is_an_error(stub: Stub) -> None:
    stub.close()
    expected = f"no server answers at 127.0.0.1 port {stub.port}: connection refused"
    assert refusal("127.0.0.1", stub.port) == expected


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (socket.EAI_NONAME, "no such host"),
        (socket.EAI_AGAIN, "its name cannot be looked up at the moment: no name server answers"),
    ],
)
def test_host_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch, number: int, why: str) -> None:
    def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "in the system's words")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    assert refusal("no.such.host", 6001) == f"no server answers at no.such.host port 6001: {why}"


def test_host_that_can_be_none_is_an_error() -> None:
    refusal("a" * 64, 6001)


def test_row_36_port_that_is_none_leads_nowhere(stub: Stub) -> None:
    sock = None
    try:
        with pytest.raises(ConnectError):
            sock = connect("127.0.0.1", stub.port + 65536)
    finally:
        if sock:
            sock.close()


def test_peer_that_is_gone_again_is_an_error() -> None:
    one, other = tcp_pair()
    assert peer_host(one) == "127.0.0.1"
    reset(other)
    until(lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    with pytest.raises(ConnectError):
        peer_host(one)


# --- several addresses ------------------------------------------------------------------------


class Host:
    """The addresses of one host, which are ports of this machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = ExitStack()
        self._found: list[object] = []
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: self._found)

    def _add(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._found.append((family, socket.SOCK_STREAM, 6, "", (host, port)))

    def add_answering(self, host: str = "127.0.0.1") -> int:
        """Add an address that accepts; its port."""
        (sock,) = listen((host,), 0)
        self._open.enter_context(closing(sock))
        self._add(host, sock.getsockname()[1])
        return int(sock.getsockname()[1])

    def add_refusing(self) -> None:
        (sock,) = listen(("127.0.0.1",), 0)
        self._add("127.0.0.1", sock.getsockname()[1])
        sock.close()

    def add_silent(self) -> None:
        """Add an address from which nothing comes: the kernel drops what is past a full backlog."""
        full = self._open.enter_context(closing(socket.socket()))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        self._add(*full.getsockname())
        while True:
            one = self._open.enter_context(closing(socket.socket()))
            try:
                with gevent.Timeout(0.2, TimeoutError()):
                    one.connect(full.getsockname())
            except TimeoutError:
                break

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with closing(Host(monkeypatch)) as one:
        yield one


def reached() -> int:
    """Connect to the host; the port where it led."""
    with connect("example.org", 6001) as sock:
        return int(sock.getpeername()[1])


@pytest.mark.attack(49)
def test_address_that_is_silent_does_not_keep_from_the_next(host: Host) -> None:
    for _ in range(3):
        host.add_silent()
    port = host.add_answering()
    assert reached() == port


@pytest.mark.attack(49)
def test_after_a_refusal_the_next_is_tried_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 1000)
    for _ in range(5):
        host.add_refusing()
    port = host.add_answering()
    assert reached() == port


@pytest.mark.attack(49)
def test_one_that_answers_later_is_still_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 0.001)
    real, late = module._attempt, host.add_answering()
    host.add_silent()

    def attempt(address: Address, outcomes: Outcomes) -> None:
        if address.place[1] == late:
            gevent.sleep(0.05)
        real(address, outcomes)

    monkeypatch.setattr(module, "_attempt", attempt)
    assert reached() == late


@pytest.mark.attack(49)
def test_families_take_turns(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def attempt(address: Address, outcomes: Outcomes) -> None:
        tried.append(address.family)
        outcomes.put(OSError())

    monkeypatch.setattr(module, "_attempt", attempt)
    for place in ("::1", "::1", "::1", "127.0.0.1"):
        host.add_answering(place)
    refusal("example.org", 6001)
    assert tried == [socket.AF_INET6, socket.AF_INET, socket.AF_INET6, socket.AF_INET6]


def test_deadline_is_for_all_addresses_together(host: Host) -> None:
    for _ in range(3):
        host.add_silent()
    with pytest.raises(ConnectError, match="it did not answer in time"):
        connect("example.org", 6001, 0.05)


def test_what_an_address_answered_is_told_rather_than_that_there_is_no_way_to_another(host: Host) -> None:
    host._found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("255.255.255.255", 6001)))
    host.add_refusing()
    host._found.append(host._found[0])
    assert "connection refused" in refusal("example.org", 6001)


@pytest.mark.attack(49)
def test_connections_that_come_second_are_closed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left open fails any test."""
    monkeypatch.setattr(module, "ATTEMPT_DELAY", 0)
    for _ in range(5):
        host.add_answering()
    assert reached()


@pytest.mark.attack(49)
def test_killed_greenlet_leaves_no_attempt(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.add_silent()
    host.add_silent()
    begun = Event()
    real = module._attempt

    def attempt(address: Address, outcomes: Outcomes) -> None:
        begun.set()
        real(address, outcomes)

    monkeypatch.setattr(module, "_attempt", attempt)
    connecting = gevent.spawn(connect, "example.org", 6001)
    begun.wait()
    connecting.kill()


@pytest.mark.attack(49)
def test_host_whose_first_address_is_a_black_hole(
    network: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets to it leave, and nothing ever comes back."""
    network("ip", "link", "add", "gc0", "type", "veth", "peer", "name", "gc1")
    network("ip", "address", "add", "192.0.2.1/24", "dev", "gc0")
    network("ip", "link", "set", "gc0", "up")
    network("ip", "link", "set", "gc1", "up")
    network("ip", "neighbour", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "gc0")
    with closing(Stub()) as stub:
        places = ("192.0.2.9", 6001), ("127.0.0.1", stub.port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert reached() == stub.port
