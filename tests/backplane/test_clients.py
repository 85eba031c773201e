"""Each way to a Redis that the library offers, with real servers; and what happens when another takes over."""

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backplane.nodes import node_of
from conftest import until
from credentials import Authority
from log.helpers import everything, opened, say
from redis_server import RedisServer, free_port, needs_redis, with_tls

from greenchat.backplane.clients import without_password
from greenchat.backplane.node import Node
from greenchat.errors import Code, LogError, Refused


@contextlib.contextmanager
def by_socket(home: Path) -> Iterator[str]:
    with RedisServer("--unixsocket", str(home / "socket")):
        yield f"unix://{home / 'socket'}"


@contextlib.contextmanager
def encrypted(home: Path) -> Iterator[str]:
    port, authority = free_port(), Authority(home / "authority.pem")
    authority.certify(home / "redis.pem", "127.0.0.1")
    files = ["--tls-cert-file", str(home / "redis.pem"), "--tls-key-file", str(home / "redis.pem")]
    others = ["--tls-ca-cert-file", str(authority.path), "--tls-auth-clients", "no"]
    with RedisServer("--tls-port", str(port), *files, *others, program=with_tls()):
        yield f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.path}"


def in_cluster() -> RedisServer:
    return RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000")


@contextlib.contextmanager
def cluster(_home: Path) -> Iterator[str]:
    with in_cluster() as first:
        first.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: b"cluster_state:ok" in first.command("CLUSTER", "INFO"))
        yield f"redis+cluster://127.0.0.1:{first.port}"


class Watched:
    """A Redis that a sentinel watches."""

    def __init__(self, home: Path, redis: RedisServer) -> None:
        self.port = free_port()
        settings = home / "sentinel.conf"
        settings.write_text(f"port {self.port}\nsentinel monitor chat 127.0.0.1 {redis.port} 1\nlogfile /dev/null\n")
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/chat"
        self._process = subprocess.Popen([RedisServer.program, str(settings), "--sentinel"])
        until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return RedisServer.ask(self.port, "PING").startswith(b"+PONG")
        return False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def sentinel(home: Path) -> Iterator[str]:
    with RedisServer() as redis, contextlib.closing(Watched(home, redis)) as watched:
        yield watched.url


Kind = Callable[[Path], contextlib.AbstractContextManager[str]]


@needs_redis
@pytest.mark.parametrize("kind", [by_socket, encrypted, cluster, sentinel])
def test_servers_are_one_chat_by_any_kind_of_redis(tmp_path: Path, kind: Kind) -> None:
    with kind(tmp_path) as url, node_of(url) as here, node_of(url) as there:
        here.leases.claim("ann", "ann", "", print)
        with pytest.raises(Refused) as taken:
            there.leases.claim("Ann", "eve", "", print)
        assert taken.value.code == Code.NAME_TAKEN
        one, two = opened(here.logs), opened(there.logs)
        say(one, b"ann: hi", said=1)
        until(lambda: two.position == 1)
        assert everything(one) == everything(two) == [(1, b"ann: hi")]
        assert two.settle("ann") == 1


def take_over(here: Node, move: Callable[[], object]) -> None:
    """What was said before and after has its place once."""
    here.leases.claim("ann", "ann", "", print)
    log = opened(here.logs)
    say(log, b"ann: 1", said=1)
    move()
    say(log, b"ann: 2", said=2)
    assert everything(log) == [(1, b"ann: 1"), (2, b"ann: 2")]


def followed(follower: RedisServer) -> None:
    until(lambda: b"master_link_status:up" in follower.command("INFO", "replication"))


@needs_redis
def test_another_server_of_a_cluster_takes_over(tmp_path: Path) -> None:
    with cluster(tmp_path) as url, in_cluster() as second:
        first = int(url.rpartition(":")[2])
        bus = re.search(rb"@(\d+)", RedisServer.ask(first, "CLUSTER", "NODES"))
        assert bus
        second.command("CLUSTER", "MEET", "127.0.0.1", str(first), bus[1].decode())
        until(lambda: second.command("CLUSTER", "NODES").count(b"connected") == 2)
        name = RedisServer.ask(first, "CLUSTER", "MYID").split()[1].decode()
        until(lambda: second.command("CLUSTER", "REPLICATE", name).startswith(b"+OK"))
        followed(second)
        with node_of(url) as here:
            take_over(here, lambda: second.command("CLUSTER", "FAILOVER", "TAKEOVER"))


@needs_redis
def test_sentinel_finds_the_server_that_takes_over(tmp_path: Path) -> None:
    with RedisServer() as redis, RedisServer("--replicaof", "127.0.0.1", str(redis.port)) as second:
        followed(second)
        with contextlib.closing(Watched(tmp_path, redis)) as watched, node_of(watched.url) as here:
            until(lambda: b"slaves=1" in RedisServer.ask(watched.port, "INFO", "sentinel"))

            def move() -> None:
                until(lambda: RedisServer.ask(watched.port, "SENTINEL", "FAILOVER", "chat").startswith(b"+OK"))
                until(lambda: b"role:master" in second.command("INFO", "replication"))

            take_over(here, move)


@needs_redis
def test_cluster_that_is_away_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot use the backplane"):
        Node(f"redis+cluster://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://user:secret@host:1/2?password=secret", "rediss://host:1/2"),
        ("redis://:se/cr@et@host", "redis://host"),
        ("redis://:secr?et@host", "redis://..."),
        ("redis://:secr#et@host", "redis://host"),
        ("redis:secret@host", "..."),
        ("redis://host?password=s@cret", "redis://..."),
        ("redis+sentinel://:secret@one:1,two:2/chat", "redis+sentinel://one:1,two:2/chat"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("nonsense", "..."),
    ],
)
def test_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
