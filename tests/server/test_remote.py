"""Two servers that are one chat."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import gevent
import pytest
from conftest import Wire, hello, until
from redis_server import RedisServer, needs_redis

from greenchat import ChatClient, ChatServer
from greenchat.backplane import node as node_module
from greenchat.backplane.node import Node
from greenchat.backplane.pipeline import Command
from greenchat.client import Route, connection
from greenchat.client.client import Message
from greenchat.errors import Code, GreenchatError, ListenError, Refused, TransferError
from greenchat.log import queue
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Get, Hello, Note, Welcome
from greenchat.protocol.records import Refused as RefusedRecord
from greenchat.server import remote as remote_module
from greenchat.server.member import Member, holder_of

pytestmark = needs_redis


class TwoServers:
    """Two servers, each of them a node, and their clients."""

    def __init__(self, redis: RedisServer, root: Path) -> None:
        self._root = root
        self._nodes = [Node(redis.url) for _ in range(2)]
        self.notes: list[Code] = []
        self.servers = [ChatServer(node=node) for node in self._nodes]
        for server in self.servers:
            server.start()
        self._clients: list[ChatClient] = []

    def client(self, name: str, at: int, **options: object) -> ChatClient:
        home = self._root / name
        home.mkdir(exist_ok=True)
        given = {"share": home, "into": home, "reconnect": True, "on_note": self.notes.append, **options}
        client = ChatClient(name, self.servers[at].port, **given)  # type: ignore[arg-type]  # as each test likes
        client.start()
        self._clients.append(client)
        return client

    def member(self, name: str, at: int) -> Member:
        found = holder_of(self.servers[at]._context, name)
        assert found
        return found

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for server, node in zip(self.servers, self._nodes, strict=True):
            server.stop()
            node.close()


@pytest.fixture
def two(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoServers]:
    monkeypatch.setattr(queue, "LOG_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(node_module, "LOG_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(node_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(connection, "RECONNECT_DELAYS", (0.01, 0.02))
    one = TwoServers(redis, tmp_path)
    yield one
    one.close()


def heard(client: ChatClient, number: int) -> list[str]:
    messages = client.messages()
    return [str(next(messages)) for _ in range(number)]


def test_room_is_one_and_so_is_its_order(two: TwoServers) -> None:
    ann, bob, cat = two.client("ann", 0), two.client("bob", 1), two.client("cat", 1)
    dan = two.client("dan", 0)
    for number in range(100):
        ann.send(f"{number}", wait=True)
        bob.send(f"{number}", wait=True)
    told = heard(cat, 200)
    assert heard(dan, 200) == told
    assert [line for line in told if line.startswith("ann")] == [f"ann: {number}" for number in range(100)]
    until(lambda: ann.unacknowledged == bob.unacknowledged == 0)


def test_name_is_one_users(two: TwoServers) -> None:
    two.client("ann", 0)
    with pytest.raises(Refused) as refused:
        two.client("Ann", 1, reconnect=False)
    assert refused.value.code is Code.NAME_TAKEN


def test_user_that_comes_to_another_server_is_itself(two: TwoServers) -> None:
    first = Wire(two.servers[0].port)
    first.tell(Hello(1, "ann", 0, session="s"))
    epoch = first.record(Welcome).epoch
    first.send(b"one\ntwo\n")
    bob = two.client("bob", 1)
    second = Wire(two.servers[1].port)
    second.tell(Hello(1, "ann", 0, session="s", epoch=epoch, position=0, said=0))
    welcome = second.record(Welcome)
    assert (welcome.position, welcome.said) == (0, 2)
    assert b"taken-over" in first.rest()
    second.send(b"three\n")
    assert heard(bob, 1)[-1] in ("ann: one", "ann: three")
    first.close()
    second.close()


@pytest.mark.attack(43)
def test_attempt_that_another_server_finds_late_is_refused(two: TwoServers) -> None:
    live, stale = Wire(two.servers[1].port), Wire(two.servers[0].port)
    live.tell(Hello(1, "ann", 0, session="s", attempt=3))
    live.record(Welcome)
    stale.tell(Hello(1, "ann", 0, session="s", attempt=2))
    assert b"name-taken" in stale.rest()
    bob = two.client("bob", 0)
    bob.send("hi")
    assert live.line() == b"bob: hi"
    live.close()
    stale.close()


def test_guest_elsewhere_is_refused_a_name_that_is_taken(two: TwoServers) -> None:
    two.client("ann", 0)
    guest = Wire(two.servers[1].port)
    guest.send(b"ann\n")
    assert guest.rest() == b"error: that name is in use: choose another\n"
    guest.close()


def test_last_words_of_a_guest_are_heard_and_its_name_is_free(two: TwoServers) -> None:
    bob = two.client("bob", 1)
    for number in range(5):
        guest = Wire(two.servers[number % 2].port)
        guest.send(b"guest\n%d\n" % number)
        guest.sock.shutdown(1)
        assert guest.rest() == b""
        guest.close()
        assert heard(bob, 1) == [f"guest: {number}"]


def test_private_messages_find_their_way(two: TwoServers) -> None:
    told = list[Message]()
    failed = list[GreenchatError]()
    ann = two.client("ann", 0, on_undelivered=failed.append)
    two.client("bob", 1, on_private=told.append)
    ann.send_private("bob", "psst")
    until(lambda: told == [Message("ann", "psst")])
    ann.send_private("nobody", "psst")
    until(lambda: [error.code for error in failed] == [Code.UNKNOWN_USER])
    guest = Wire(two.servers[1].port)
    guest.send(b"guest\n")
    until(lambda: two.servers[1]._context.directory.find("guest"))
    ann.send_private("guest", "psst")
    until(lambda: [error.code for error in failed] == [Code.UNKNOWN_USER] * 2)
    guest.close()


@pytest.mark.parametrize("route", list(Route))
def test_files_come_from_users_of_other_servers(two: TwoServers, tmp_path: Path, route: Route) -> None:
    two.client("ann", 0)
    bob = two.client("bob", 1, route=route)
    (tmp_path / "ann" / "picture").write_bytes(b"x" * 1_000_000)
    assert bob.fetch("ann", "picture").path.read_bytes() == b"x" * 1_000_000


def test_files_that_cannot_be_had(two: TwoServers) -> None:
    two.client("ann", 0)
    bob = two.client("bob", 1)
    for owner, code in (("ann", Code.NOT_FOUND), ("nobody", Code.UNKNOWN_OWNER)):
        with pytest.raises(TransferError) as error:
            bob.fetch(owner, "picture")
        assert error.value.code is code


def test_request_of_one_who_leaves_is_forgotten_elsewhere(two: TwoServers) -> None:
    owner = Wire(two.servers[0].port)
    owner.send(hello("owner", 5000))
    owner.record(Welcome)
    bob = two.client("bob", 1)
    asking = gevent.spawn(bob.fetch, "owner", "picture")
    until(lambda: two.servers[0]._office._by_ticket)
    bob.close()
    until(lambda: not two.servers[0]._office._by_ticket)
    with pytest.raises(GreenchatError):
        asking.get()
    owner.close()


def test_rooms_are_counted_over_all_servers_however_they_are_written(two: TwoServers) -> None:
    ann = two.client("ann", 0)
    two.client("bob", 1)
    two.client("cat", 1, room="tea")
    two.client("dan", 0, room="Tea")
    until(lambda: ann.rooms() == [("Tea", 2), ("lobby", 2)])


def test_rooms_of_this_server_are_told_while_redis_is_away(tmp_path: Path) -> None:
    with RedisServer() as mortal:
        two = TwoServers(mortal, tmp_path)
        ann = two.client("ann", 0)
        mortal.kill()
        assert ann.rooms() == [("lobby", 1)]
        two.close()


def test_history_of_a_room_that_was_trimmed_is_what_is_kept(redis: RedisServer, two: TwoServers) -> None:
    ann = two.client("ann", 0)
    for number in range(1, 501):
        ann.send(str(number))
        if number % 50 == 0:
            until(lambda: ann.unacknowledged == 0)
    stream, log = "{greenchat}:log:lobby", two.servers[0]._rooms.find("").log
    redis.command("XTRIM", stream, "MINID", f"{log.epoch}-401")
    kept = redis.command("XRANGE", stream, "-", "+").count(b"ann: ")
    assert 0 < kept < 500
    bob = two.client("bob", 1, reconnect=False, history=1000)
    assert heard(bob, kept) == [f"ann: {number}" for number in range(501 - kept, 501)]


def test_what_is_for_one_who_has_left_is_not_told_to_the_next_of_that_name(two: TwoServers) -> None:
    first = two.client("ann", 0)
    origin = two.member("ann", 0).origin
    first.close()
    second = two.client("ann", 0)
    two._nodes[1].tell(
        two._nodes[0].id,
        {"t": "record", "to": "ann", "origin": origin, "record": encode(Note(Code.WAITING, "x")).decode()},
    )
    two._nodes[1].tell(two._nodes[0].id, {"t": "record", "to": "ann", "origin": origin, "record": '{"t":"new"}'})
    two.client("bob", 1).send("next")
    assert heard(second, 1) == ["bob: next"]
    assert two.notes == []


def test_nothing_is_kept_of_one_who_left_before_its_request_was_passed_on(two: TwoServers) -> None:
    ann, bob = two.client("ann", 0), two.client("bob", 1)
    member, pipeline = two.member("bob", 1), two._nodes[1].pipeline
    held = list[tuple[Command, int]]()
    pipeline.submit = lambda command, size=1: held.append((command, size))  # type: ignore[method-assign]
    two.servers[1]._context.remote.ask(member, Get(1, "ann", "file"))  # type: ignore[union-attr]  # it is there
    del pipeline.submit
    bob.close()
    until(lambda: not member.here)
    pipeline.submit(*held[0])
    here, there = (server._context.remote for server in two.servers)
    assert here
    assert there
    until(lambda: pipeline.queue._added == pipeline.queue._written)
    until(lambda: not here._requesters)
    assert not there._asked
    ann.close()


def test_others_who_ask_are_bounded(two: TwoServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "MAX_REMOTE_REQUESTERS", 2)
    two.client("ann", 0)
    here = two.servers[0]._context.remote
    assert here
    for number in range(4):
        here._requester(asker(number))
    assert [origin for _, origin in here._requesters] == ["o2", "o3"]
    monkeypatch.setattr(remote_module, "REMOTE_REQUESTER_SECONDS", -1)
    here._requester(asker(5))
    assert not here._requesters


def asker(number: int) -> dict[str, str]:
    return {"node": "x", "origin": f"o{number}", "name": "n", "host": "127.0.0.1", "certificate": ""}


@pytest.mark.parametrize(
    ("here", "host", "seen"),
    [
        ("192.0.2.1", "127.0.0.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("chat.example.org", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_user_of_a_server_s_own_machine_is_seen_where_that_is(two: TwoServers, here: str, host: str, seen: str) -> None:
    two.client("ann", 0)
    remote, ann = two.servers[0]._context.remote, two.member("ann", 0)
    assert remote
    remote.addresses, ann.host = ((here, 1),), host
    assert remote._host(ann) == seen


@pytest.mark.attack(18)
def test_clients_of_others_are_told_in_numbers_where_a_name_leads(redis: RedisServer) -> None:
    node = Node(redis.url)
    advertised = ("localhost", 7001), ("no.such.host.invalid", 7002), ("192.0.2.1", 7003)
    with closing(node), ChatServer(node=node, advertise=advertised) as server:
        remote = server._context.remote
        assert remote
        assert remote.addresses == (*advertised, ("127.0.0.1", 7001), ("::1", 7001))


def test_server_that_others_cannot_reach_says_so(redis: RedisServer) -> None:
    node = Node(redis.url)
    with pytest.raises(ListenError, match="give --advertise"):
        ChatServer(host="0.0.0.0", insecure=True, node=node).start()
    node.close()


def test_client_of_a_server_that_is_gone_goes_on_at_another(two: TwoServers) -> None:
    back: list[int | None] = []
    ann = two.client("ann", 0, others=[("127.0.0.1", two.servers[1].port)], on_back=back.append)
    bob = two.client("bob", 1)
    ann.send("one")
    assert heard(bob, 1) == ["ann: one"]
    bob.send("two")
    two.servers[0].stop()
    bob.send("three")
    ann.send("four")
    assert heard(ann, 2) == ["bob: two", "bob: three"]
    assert heard(bob, 1) == ["ann: four"]
    assert back == [0]


def test_server_is_not_entered_while_redis_is_away(tmp_path: Path) -> None:
    with RedisServer() as mortal:
        two = TwoServers(mortal, tmp_path)
        notes = list[Code]()
        failed = list[GreenchatError]()
        ann = two.client("ann", 0, on_note=notes.append, on_undelivered=failed.append)
        bob = two.client("bob", 0)
        mortal.kill()
        ann.send("waiting")
        until(lambda: notes == [Code.WAITING])
        stranger = Wire(two.servers[0].port)
        stranger.send(hello("cat"))
        assert stranger.record(RefusedRecord).code == Code.UNAVAILABLE
        stranger.close()
        ann.send_private("bob", "still here")
        ann.send_private("dan", "are you?")
        until(lambda: [error.code for error in failed] == [Code.UNAVAILABLE])
        mortal.start()
        assert heard(bob, 1) == ["ann: waiting"]
        until(lambda: notes == [Code.WAITING, Code.KEPT_AGAIN])
        two.close()
