import errno
import itertools
import resource
from collections.abc import Callable, Iterator

import gevent
import pytest
from conftest import reset, tcp_pair, until
from gevent import socket

from greenchat import net
from greenchat.addresses import LOOPBACK, plain_host
from greenchat.errors import Code, ListenError
from greenchat.net import Listener, Reader, has_ended, listen, next_turn, raise_descriptor_limit, send_now, tune


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    both = tcp_pair()
    yield both
    for one in both:
        one.close()


# --- listening --------------------------------------------------------------------------------


def listening(hosts: tuple[str, ...], port: int = 0) -> list[tuple[str, int]]:
    """Where `listen` listens; it does so no more."""
    socks = listen(hosts, port)
    places = [sock.getsockname()[:2] for sock in socks]
    for sock in socks:
        sock.close()
    return places


def test_one_port_in_both_families() -> None:
    (one, port), (other, same) = listening(LOOPBACK)
    assert (one, other) == LOOPBACK
    assert port == same > 0


def test_all_addresses_of_both_families_on_one_socket() -> None:
    (sock,) = listen(("::",), 0)
    guest = socket.create_connection(("127.0.0.1", sock.getsockname()[1]))
    accepted, address = sock.accept()
    assert plain_host(address[0]) == "127.0.0.1"
    for one in (sock, guest, accepted):
        one.close()


def test_second_host_that_is_not_here_is_left_out() -> None:
    assert [host for host, _ in listening(("127.0.0.1", "203.0.113.1"))] == ["127.0.0.1"]


@pytest.mark.attack(49)
def test_localhost_is_both_families_on_one_port() -> None:
    (one, port), (other, same) = listening(("localhost",))
    assert (one, other) == LOOPBACK
    assert port == same > 0


def test_all_addresses_of_a_name_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(host, 0) for host in ("203.0.113.1", "127.0.0.2", "127.0.0.3")]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert [host for host, _ in listening(("example.org",))] == ["127.0.0.2", "127.0.0.3"]


def refusal(hosts: tuple[str, ...], port: int = 0) -> str:
    with pytest.raises(ListenError) as refused:
        listen(hosts, port)
    assert refused.value.code == Code.CANNOT_LISTEN
    return str(refused.value)


def test_first_host_that_is_not_here_is_an_error() -> None:
    assert refusal(("203.0.113.1",)) == "203.0.113.1 is no address of this machine: give one that is"


@pytest.mark.parametrize("taken", LOOPBACK)
def test_port_in_use_is_an_error(taken: str) -> None:
    (sock,) = listen((taken,), 0)
    port = sock.getsockname()[1]
    assert refusal(LOOPBACK, port) == f"port {port} is in use: give another, or 0 for any that is free"
    sock.close()


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, "in the system's words")

    return fail


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        pytest.param(errno.EACCES, "port 80 needs more privileges: give one from 1024 to 65535", id="privileged"),
        pytest.param(errno.ENOBUFS, "cannot listen at 127.0.0.1 port 80: no buffer space available", id="another"),
    ],
)
def test_row_36_each_listen_error_has_its_sentence(monkeypatch: pytest.MonkeyPatch, number: int, sentence: str) -> None:
    monkeypatch.setattr(net, "_prepare", failing(number))
    assert refusal(("127.0.0.1",), 80) == sentence


def test_no_descriptor_to_listen_with_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", failing(errno.EMFILE))
    assert refusal(("127.0.0.1",)) == "cannot listen at 127.0.0.1: too many open files"


def test_second_family_without_the_port_makes_it_try_another(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = net._listen

    def taken_twice(host: str, port: int) -> socket.socket:
        if host == "::1":
            tried.append(port)
            if len(tried) <= 2:
                raise ListenError(Code.CANNOT_LISTEN, "in use")
        return real(host, port)

    monkeypatch.setattr(net, "_listen", taken_twice)
    assert listening(LOOPBACK) == [("127.0.0.1", tried[-1]), ("::1", tried[-1])]
    assert len(tried) == 3


def test_no_port_free_in_both_families_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = net._listen

    def taken(host: str, port: int) -> socket.socket:
        if host == "::1":
            raise ListenError(Code.CANNOT_LISTEN, "in use")
        return real(host, port)

    monkeypatch.setattr(net, "_listen", taken)
    assert refusal(LOOPBACK) == "no port is free in both address families: give one"


def test_host_that_does_not_exist_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _no_such_host)
    assert "Unknown error" not in refusal(("no.such.host",))


def _no_such_host(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_row_36_port_that_is_none_is_an_error() -> None:
    with pytest.raises(ListenError, match="70000"):
        listening(("127.0.0.1",), 70000)


def test_host_that_can_be_none_is_an_error() -> None:
    refusal(("a" * 64,))


def test_connections_send_at_once_and_find_dead_peers(pair: tuple[socket.socket, socket.socket]) -> None:
    inherited = pair[1]
    assert inherited.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert inherited.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert inherited.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert not pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    tune(pair[0])
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_listener_serves_each_connection_in_its_own_greenlet() -> None:
    served = []

    def serve(sock: socket.socket, address: tuple[str, int]) -> None:
        served.append((gevent.getcurrent(), address[0]))
        sock.sendall(b"hi")

    listener = Listener(listen(("127.0.0.1",), 0)[0], serve)
    listener.start()
    for _ in range(2):
        guest = socket.create_connection(("127.0.0.1", listener.port))
        assert guest.recv(10) == b"hi"
        guest.close()
    listener.stop()
    assert len(dict(served)) == 2


# --- reading and writing ----------------------------------------------------------------------


def everything(sock: socket.socket, size: int) -> list[bytes]:
    """What is read from *sock* until its end, in pieces of at most *size*."""
    reader = Reader(sock)
    try:
        return list(iter(lambda: reader.read(size), b""))
    finally:
        reader.close()


def test_reader_reads_what_arrives_until_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    data = bytes(range(256)) * 100
    there.sendall(data)
    there.close()
    got = everything(here, 1000)
    assert b"".join(got) == data
    assert max(map(len, got)) <= 1000


def test_reader_takes_a_reset_for_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.sendall(b"x")
    reader = Reader(here)
    assert reader.read(10) == b"x"
    reset(there)
    assert [reader.read(10), reader.read(10)] == [b"", b""]
    reader.close()


def test_row_30_others_have_a_turn_between_two_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.sendall(b"x" * 100_000)
    there.close()
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    counting = gevent.spawn(count)
    reader, seen = Reader(here), []
    while reader.read(1000):
        seen.append(turns)
    reader.close()
    counting.kill()
    assert len(seen) >= 100
    assert all(one < other for one, other in itertools.pairwise(seen[1:]))


def test_row_30_next_turn_comes_after_that_of_everybody_for_whom_something_has_come(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    reader = Reader(here)
    for _ in range(100):
        reading = gevent.spawn(reader.read, 10)
        next_turn()
        assert not reading.ready()
        there.sendall(b"x")
        next_turn()
        assert reading.ready()
    reader.close()


def test_next_turn_comes_though_there_is_nothing_to_do() -> None:
    with gevent.Timeout(5):
        next_turn()


def test_reader_that_is_closed_leaves_the_rest(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.sendall(b"xy")
    reader = Reader(here)
    assert reader.read(1) == b"x"
    reader.close()
    reader.close()
    assert reader.read(1) == b""
    assert here.recv(10) == b"y"


def test_peer_that_stops_answering_is_found_also_while_something_is_on_its_way(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    tune(pair[0])
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 150_000


def test_send_now_takes_what_fits_and_never_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    data, sent = b"x" * 1_000_000, 0
    while took := send_now(here, data):
        sent += took
    assert send_now(here, memoryview(data)) == 0
    here.close()
    assert sum(map(len, everything(there, 65536))) == sent


def test_send_now_of_a_broken_connection_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    reset(there)
    until(lambda: _is_broken(here))


def _is_broken(sock: socket.socket) -> bool:
    try:
        send_now(sock, b"x")
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_descriptor_limit_is_raised_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("unread", [b"", b"some bytes"])
def test_peer_that_has_ended_its_side_is_noticed_whatever_is_unread(unread: bytes) -> None:
    one, other = tcp_pair()
    with one, other:
        assert not has_ended(one)
        other.sendall(unread)
        assert not has_ended(one)
        other.shutdown(socket.SHUT_WR)
        assert has_ended(one)


def test_peer_that_was_reset_has_ended() -> None:
    one, other = tcp_pair()
    with one:
        reset(other)
        until(lambda: has_ended(one))
