"""A client that comes back: to a server that was restarted, through a link that breaks, and to none that says no."""

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from client.street import Tap
from conftest import Stub, Wire, until

from greenchat import ChatClient, ChatServer
from greenchat.client import connection, downloads, resume, session
from greenchat.errors import Code, GreenchatError, ServerGone, TransferError
from greenchat.protocol.records import Error, Fail, Hello, Note, Ping, Refused, Take, Welcome


class Away:
    """A server, a link that can be cut, and clients that come back through it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.server = ChatServer()
        self.server.start()
        self.tap = Tap(self.server.port)
        self.lost: list[ServerGone] = []
        self.back: list[int | None] = []
        self._clients: list[ChatClient] = []

    def client(self, name: str, port: int = 0, **options: object) -> ChatClient:
        home = self._root / name
        home.mkdir(exist_ok=True)
        client = ChatClient(
            name, port or self.tap.port,
            **{
                "share": home, "into": home, "reconnect": True,
                "on_lost": self.lost.append, "on_back": self.back.append, **options,
            },  # type: ignore[arg-type]  # as each test likes
        )  # fmt: skip
        client.start()
        self._clients.append(client)
        return client

    def cut(self) -> None:
        """All that goes through the link is lost."""
        lost = len(self.lost)
        until(lambda: len(self.back) == lost)
        self.tap.cut()
        until(lambda: len(self.lost) > lost)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.tap.close()
        self.server.stop()


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    monkeypatch.setattr(connection, "RECONNECT_DELAYS", (0.01, 0.02))
    one = Away(tmp_path)
    yield one
    one.close()


def heard(client: ChatClient, number: int) -> list[str]:
    messages = client.messages()
    return [str(next(messages)) for _ in range(number)]


def test_what_was_missed_is_heard_once_and_in_order(away: Away) -> None:
    ann, bob = away.client("ann"), away.client("bob", away.server.port)
    bob.send("0")
    assert heard(ann, 1) == ["bob: 0"]
    for number in range(1, 60):
        bob.send(str(number))
        if number % 20 == 0:
            away.cut()
    assert heard(ann, 59) == [f"bob: {number}" for number in range(1, 60)]
    until(lambda: away.back == [0, 0])
    assert {gone.code for gone in away.lost} == {Code.SERVER_GONE}


def test_what_was_said_reaches_all_once_and_in_order_however_often_the_link_breaks(away: Away) -> None:
    ann, bob = away.client("ann"), away.client("bob", away.server.port)
    for number in range(300):
        ann.send(str(number))
        if number % 60 == 30:
            gevent.sleep(0.001)  # some of it has left, and some was acknowledged
            away.cut()
    assert heard(bob, 300) == [f"ann: {number}" for number in range(300)]
    until(lambda: ann.unacknowledged == 0)


def test_what_is_said_while_the_server_is_away_waits_for_it(away: Away) -> None:
    ann, bob = away.client("ann"), away.client("bob", away.server.port)
    away.tap.close_door()
    away.cut()
    ann.send("one")
    ann.send("two")
    assert ann.unacknowledged == 2
    away.tap.open_door()
    assert heard(bob, 2) == ["ann: one", "ann: two"]


def test_new_server_is_told_of_as_one_that_has_begun_anew(away: Away) -> None:
    port = away.server.port
    ann, bob = away.client("ann", port), away.client("bob", port)
    away.server.stop()
    until(lambda: len(away.lost) == 2)
    assert {gone.code for gone in away.lost} == {Code.SHUTDOWN}
    away.server = ChatServer(port)
    away.server.start()
    until(lambda: away.back == [None, None])
    ann.send("still here?")
    assert heard(bob, 1) == ["ann: still here?"]


def test_files_are_asked_for_again(away: Away, tmp_path: Path) -> None:
    ann, _bob = away.client("ann"), away.client("bob", away.server.port)
    (tmp_path / "bob" / "file").write_bytes(b"hello")
    away.tap.close_door()
    away.cut()
    fetching = gevent.spawn(ann.fetch, "bob", "file")
    away.tap.open_door()
    assert fetching.get(timeout=20).path.read_bytes() == b"hello"


@pytest.fixture
def asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)


def test_file_is_waited_for_while_its_owner_is_not_back_at_a_new_server_yet(
    away: Away, tmp_path: Path, asked_often: None
) -> None:
    ann, _bob = away.client("ann", away.server.port), away.client("bob")
    (tmp_path / "bob" / "file").write_bytes(b"hello")
    away.tap.close_door()
    away.server.stop()
    until(lambda: len(away.lost) >= 2)
    away.server = ChatServer(away.server.port)
    away.server.start()
    until(lambda: away.back)
    asked = Asked(ann)
    fetching = gevent.spawn(ann.fetch, "bob", "file")
    until(lambda: asked.answers.count(Code.UNKNOWN_OWNER) >= 2)
    away.tap.open_door()
    assert fetching.get(timeout=20).path.read_bytes() == b"hello"


def test_file_is_waited_for_while_its_owner_is_away(away: Away, tmp_path: Path, asked_often: None) -> None:
    ann, _bob = away.client("ann", away.server.port), away.client("bob")
    (tmp_path / "bob" / "file").write_bytes(b"hello")
    away.tap.close_door()
    away.cut()
    until(lambda: not away.server._context.directory.find("bob"))
    asked = Asked(ann)
    fetching = gevent.spawn(ann.fetch, "bob", "file")
    until(lambda: asked.answers.count(Code.OWNER_LEFT) >= 2)
    away.tap.open_door()
    assert fetching.get(timeout=20).path.read_bytes() == b"hello"


def test_owner_that_has_left_for_good_is_not_waited_for(away: Away, asked_often: None) -> None:
    ann, bob = away.client("ann"), away.client("bob")
    bob.close()
    with pytest.raises(TransferError) as failed:
        ann.fetch("bob", "file")
    assert failed.value.code is Code.UNKNOWN_OWNER


def test_owner_that_does_not_come_back_is_waited_for_no_longer_than_told(
    away: Away, asked_often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "AWAY_SECONDS", 0.1)
    ann, _bob = away.client("ann", away.server.port), away.client("bob")
    away.tap.close_door()
    away.cut()
    until(lambda: not away.server._context.directory.find("bob"))
    with pytest.raises(TransferError) as failed:
        ann.fetch("bob", "file")
    assert failed.value.code is Code.OWNER_LEFT


def test_request_on_a_connection_that_breaks_while_it_is_sent_is_made_again(
    away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, _bob = away.client("ann"), away.client("bob", away.server.port)
    (tmp_path / "bob" / "file").write_bytes(b"hello")
    session = ann._connection._session
    assert session
    session._sending.acquire()  # as while lines fill the connection
    fetching = gevent.spawn(ann.fetch, "bob", "file")
    until(lambda: ann._downloads._asked)
    away.tap.cut()
    until(lambda: away.lost)
    session._sending.release()
    assert fetching.get(timeout=20).path.read_bytes() == b"hello"


class Asked:
    """What a client's requests were answered."""

    def __init__(self, client: ChatClient) -> None:
        self.answers: list[str] = []
        self._answer = client._downloads.answer
        client._downloads.answer = self.answer  # type: ignore[method-assign]

    def answer(self, answer: Take | Fail) -> None:
        if isinstance(answer, Fail):
            self.answers.append(answer.code)
        self._answer(answer)


def test_client_may_be_closed_while_it_is_away(away: Away) -> None:
    ann = away.client("ann")
    away.tap.close_door()
    away.cut()
    ann.send("never heard")
    with gevent.Timeout(2):
        ann.close()
    assert ann.unacknowledged == 1


def test_closing_waits_for_what_was_said(away: Away) -> None:
    ann, bob = away.client("ann"), away.client("bob", away.server.port)
    for number in range(500):
        ann.send(str(number))
    ann.close()
    assert ann.unacknowledged == 0
    assert heard(bob, 500)[-1] == "ann: 499"


@pytest.mark.parametrize("code", [Code.TAKEN_OVER, Code.BANNED, Code.BAD_RECORD])
def test_there_is_no_coming_back_from_some_last_words(away: Away, stub: Stub, code: Code) -> None:
    def serve() -> None:
        wire = welcome(stub)
        wire.tell(Error(code, "go"))

    serving = gevent.spawn(serve)
    ann = away.client("ann", stub.port)
    assert gone(ann).code == code
    serving.join()
    assert away.lost == []


@pytest.mark.parametrize("code", [Code.BANNED, Code.MEMBERS_ONLY, Code.NAME_OWNED])
def test_server_that_does_not_let_it_in_any_more_is_gone(away: Away, stub: Stub, code: Code) -> None:
    def serve() -> None:
        wire = welcome(stub)
        wire.close()
        again = stub.accept()
        again.record(Hello)
        again.tell(Refused(code, "no"))

    serving = gevent.spawn(serve)
    ann = away.client("ann", stub.port)
    assert gone(ann).code == code
    serving.join()
    assert len(away.lost) == 1


def test_without_being_told_to_it_does_not_come_back(away: Away) -> None:
    ann = away.client("ann", reconnect=False)
    away.tap.cut()
    assert gone(ann).code == Code.SERVER_GONE
    assert away.lost == []


def gone(client: ChatClient) -> GreenchatError:
    with pytest.raises(ServerGone) as end:
        client.wait()
    return end.value


def test_server_that_knows_of_no_sessions_is_not_come_back_to(away: Away, stub: Stub) -> None:
    def serve() -> None:
        wire = stub.accept()
        wire.record(Hello)
        wire.tell(Welcome(1, "ann"))
        assert wire.line() == b"hi"
        wire.close()

    serving = gevent.spawn(serve)
    ann = away.client("ann", stub.port)
    ann.send("hi")
    assert gone(ann).code == Code.SERVER_GONE
    serving.get(timeout=5)
    assert (away.lost, ann.unacknowledged) == ([], 0)


@pytest.mark.parametrize("reconnect", [False, True])
def test_nothing_can_be_said_before_the_start_or_after_the_end(away: Away, stub: Stub, *, reconnect: bool) -> None:
    with pytest.raises(ServerGone, match="start the client first"):
        ChatClient("ann", stub.port, reconnect=reconnect).send("hi")

    def serve() -> None:
        wire = welcome(stub)
        wire.tell(Error(Code.BANNED, "go"))

    serving = gevent.spawn(serve)
    ann = away.client("ann", stub.port, reconnect=reconnect)
    assert gone(ann).code == Code.BANNED
    with pytest.raises(ServerGone):
        ann.send("hi")
    serving.join()


def test_who_waits_for_room_is_told_of_the_end(away: Away, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "MAX_UNACKNOWLEDGED", 1)
    wires = list[Wire]()

    def serve() -> None:
        wires.append(stub.accept())
        wires[0].record(Hello)
        wires[0].tell(Welcome(1, "ann", "e", 0, 0))

    serving = gevent.spawn(serve)
    ann = away.client("ann", stub.port)
    serving.join()
    ann.send("1")
    waiting = gevent.spawn(ann.send, "2")
    gevent.idle()
    assert not waiting.ready()
    wires[0].tell(Error(Code.BANNED, "go"))
    with pytest.raises(ServerGone):
        waiting.get(timeout=5)


def test_server_without_sessions_is_not_come_back_to_with_what_waits(away: Away, stub: Stub) -> None:
    def serve() -> None:
        welcome(stub).close()
        other = stub.accept()
        other.record(Hello)
        other.tell(Welcome(1, "ann"))

    serving = gevent.spawn(serve)
    ann = away.client("ann", stub.port)
    until(lambda: away.lost)
    ann.send("waiting")
    assert "knows of no sessions" in str(gone(ann))
    assert ann.unacknowledged == 1
    serving.get(timeout=5)


def test_it_is_told_why_it_is_not_back_yet(away: Away, stub: Stub) -> None:
    def serve() -> None:
        welcome(stub).close()
        for code in (Code.NAME_TAKEN, Code.NAME_TAKEN, Code.NAME_ALIKE, Code.SERVER_FULL):
            wire = stub.accept()
            wire.record(Hello)
            wire.tell(Refused(code, "no"))
            wire.close()
        welcome(stub)

    serving = gevent.spawn(serve)
    away.client("ann", stub.port)
    serving.get(timeout=5)
    until(lambda: away.back)
    assert [each.code for each in away.lost] == [
        Code.SERVER_GONE,
        Code.NAME_TAKEN,
        Code.NAME_ALIKE,
        Code.SERVER_FULL,
    ]
    assert str(away.lost[1]) == "not back yet: no"


def test_server_that_hangs_is_left(away: Away, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(session, "PONG_SECONDS", 0.05)
    serving = gevent.spawn(welcome, stub)
    ann = away.client("ann", stub.port, others=[("127.0.0.1", away.server.port)])
    bob = away.client("bob", away.server.port)
    serving.get(timeout=5).record(Ping)
    ann.send("here I am")
    assert heard(bob, 1) == ["ann: here I am"]
    assert "does not answer" in str(away.lost[0])


def test_note_that_is_repeated_as_a_sign_of_life_is_told_once(
    away: Away, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = list[Code]()
    serving = gevent.spawn(welcome, stub)
    away.client("ann", stub.port, on_note=notes.append)
    wire = serving.get(timeout=5)
    for code in (Code.WAITING, Code.WAITING, Code.KEPT_AGAIN, Code.WAITING):
        wire.tell(Note(code, "x"))
    until(lambda: notes == [Code.WAITING, Code.KEPT_AGAIN, Code.WAITING])


@pytest.mark.parametrize("answer", [None, Refused(Code.UNAVAILABLE, "no"), Refused(Code.SERVER_FULL, "no")])
def test_server_that_does_not_let_it_in_is_not_the_only_one(
    away: Away, stub: Stub, monkeypatch: pytest.MonkeyPatch, answer: Refused | None
) -> None:
    def serve() -> None:
        wire = stub.accept()
        wire.record(Hello)
        if answer:
            wire.tell(answer)

    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.2)
    serving = gevent.spawn(serve)
    ann = away.client("ann", stub.port, others=[("127.0.0.1", away.server.port)])
    assert ann.server == ("127.0.0.1", away.server.port)
    serving.get(timeout=5)


def test_name_that_is_taken_is_not_asked_for_at_other_servers(away: Away, stub: Stub) -> None:
    def serve() -> None:
        wire = stub.accept()
        wire.record(Hello)
        wire.tell(Refused(Code.NAME_TAKEN, "no"))

    serving = gevent.spawn(serve)
    with pytest.raises(GreenchatError) as taken:
        away.client("ann", stub.port, others=[("127.0.0.1", 1)])
    assert taken.value.code == Code.NAME_TAKEN
    serving.get(timeout=5)


def welcome(stub: Stub) -> Wire:
    wire = stub.accept()
    wire.record(Hello)
    wire.tell(Welcome(1, "ann", "e", 0, 0))
    return wire


def test_client_goes_to_another_server_of_the_chat(away: Away) -> None:
    """Here they are links to one server; how several are one chat is their own matter."""
    second = Tap(away.server.port)
    ann = away.client("ann", others=[("127.0.0.1", second.port)])
    bob = away.client("bob", away.server.port)
    away.tap.close_door()
    away.cut()
    ann.send("here I am")
    assert heard(bob, 1) == ["ann: here I am"]
    second.close()
