import threading

import gevent
import pytest
from conftest import until
from gevent import socket

from greenchat.addresses import (
    Reach,
    fold_host,
    is_address,
    is_loopback,
    may_name,
    network,
    plain_host,
    reach_of,
    resolve,
    with_own_zone,
)
from greenchat.net import reason

# --- hosts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "written"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::ffff:102:304", "1.2.3.4"),
    ],
)
def test_host_is_written_as_people_write_it(seen: str, written: str) -> None:
    assert plain_host(seen) == written


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%eth0", "2001:db8::1"])
def test_no_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "::1", "fe80::1%eth0"])
def test_address(host: str) -> None:
    assert is_address(host)


@pytest.mark.parametrize(
    "host", ["", "localhost", "example.org", "192.0.2", "192.0.2.256", "0x7f.1", "2130706433", "a:b"]
)
def test_no_address(host: str) -> None:
    assert not is_address(host)


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("127.0.0.1", ""),
        ("127.9.9.9", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_places_are_counted_by_network(host: str, where: str) -> None:
    assert network(host) == where


@pytest.mark.parametrize(
    ("host", "folded"),
    [
        ("Example.ORG.", "example.org"),
        ("2001:DB8::1", "2001:db8::1"),
        ("FE80::1%Eth0", "fe80::1%Eth0"),
        ("fe80::1%br0.100", "fe80::1%br0.100"),
    ],
)
def test_zone_of_an_address_keeps_its_case(host: str, folded: str) -> None:
    assert fold_host(host) == folded


# --- what a server may name -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("127.0.0.2", Reach.MACHINE),
        ("::1", Reach.MACHINE),
        ("::ffff:127.0.0.1", Reach.MACHINE),
        ("169.254.1.1", Reach.LINK),
        ("fe80::1%eth0", Reach.LINK),
        ("10.1.2.3", Reach.SITE),
        ("172.16.0.1", Reach.SITE),
        ("192.168.0.1", Reach.SITE),
        ("::ffff:192.168.0.1", Reach.SITE),
        ("100.64.0.1", Reach.SITE),
        ("fd00::1", Reach.SITE),
        ("fec0::1", Reach.SITE),
        ("8.8.8.8", Reach.WORLD),
        ("2606:4700::1", Reach.WORLD),
    ],
)
def test_reach(host: str, reach: Reach) -> None:
    assert reach_of(host) is reach


@pytest.mark.attack(18)
@pytest.mark.parametrize(
    ("server", "host"),
    [
        pytest.param("8.8.8.8", "9.9.9.9", id="anywhere, of a server anywhere"),
        pytest.param("10.0.0.1", "192.168.0.1", id="in another private network"),
        pytest.param("10.0.0.1", "9.9.9.9", id="anywhere, of a private server"),
        pytest.param("fe80::1%eth0", "fe80::2%eth7", id="on the server's link"),
        pytest.param("127.0.0.1", "::1", id="on the server's machine"),
        pytest.param("::1", "10.0.0.1", id="beyond the server's machine"),
    ],
)
def test_server_may_name_what_reaches_as_far_as_it_does(server: str, host: str) -> None:
    assert may_name(server, host, 1024)
    assert may_name(server, host, 65535)
    for port in (0, 1, 1023, 65536, 2**63 - 1):
        assert not may_name(server, host, port)


@pytest.mark.attack(18)
@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("8.8.8.8", "192.168.0.1"),
        ("2606:4700::1", "fd00::1"),
        ("8.8.8.8", "169.254.169.254"),
        ("10.0.0.1", "127.0.0.1"),
        ("10.0.0.1", "::1"),
        ("10.0.0.1", "::ffff:127.0.0.1"),
        ("10.0.0.1", "fe80::1"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "::"),
        ("127.0.0.1", "224.0.0.1"),
        ("127.0.0.1", "255.255.255.255"),
        ("127.0.0.1", "ff02::1"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "example.org"),
        ("127.0.0.1", ""),
        ("127.0.0.1", "127.1"),
    ],
)
def test_server_may_name_nothing_else(server: str, host: str) -> None:
    assert not may_name(server, host, 5000)


@pytest.mark.attack(49)
@pytest.mark.parametrize(
    ("host", "server", "here"),
    [
        ("fe80::2%eth7", "fe80::1%Wlan0", "fe80::2%Wlan0"),
        ("fe80::2", "fe80::1%Wlan0", "fe80::2%Wlan0"),
        ("fe80::2%eth7", "192.0.2.1", "fe80::2"),
        ("fe80::2%eth7", "127.0.0.1", "fe80::2%eth7"),
        ("2001:db8::2", "fe80::1%Wlan0", "2001:db8::2"),
    ],
)
def test_zone_is_that_of_this_machine(host: str, server: str, here: str) -> None:
    assert with_own_zone(host, server) == here


# --- looking up -------------------------------------------------------------------------------


def hosts(host: str) -> list[str]:
    return [address.host for address in resolve(host, 6001)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1", "fe80::1%lo"])
def test_address_is_its_own(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert hosts(host) == [host]


@pytest.mark.attack(49)
@pytest.mark.parametrize("host", ["localhost", "LocalHost."])
def test_localhost_has_both_families_whatever_the_system_knows(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert hosts(host) == ["127.0.0.1", "::1"]


def test_zone_that_is_not_here_is_no_host() -> None:
    with pytest.raises(socket.gaierror):
        resolve("fe80::1%nosuchlink", 6001)


def test_of_very_many_addresses_some_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 6001)) for number in range(200)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found + found)
    assert hosts("example.org") == [f"192.0.2.{number}" for number in range(16)]


@pytest.mark.attack(49)
def test_slow_name_server_has_a_bound_and_holds_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()

    def lookup(*_: object, **__: object) -> None:
        asked.set()
        answered.wait(60)

    monkeypatch.setattr("_socket.getaddrinfo", lookup)
    looking_up = gevent.spawn(resolve, "example.org", 6001, 0.05)
    try:
        until(asked.is_set)
        with pytest.raises(socket.gaierror) as late:
            looking_up.get()
    finally:
        answered.set()
    assert "no name server answers" in reason(late.value)
