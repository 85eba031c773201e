import gevent
import pytest
from backplane.nodes import Losses, node_of
from conftest import until
from gevent.event import Event
from log.helpers import Audience, opened, say
from redis_server import RedisServer, needs_redis

from greenchat.backplane import node as node_module
from greenchat.backplane.leases import INBOX, NODES
from greenchat.backplane.node import Message, Node
from greenchat.errors import Code, LogError
from greenchat.protocol.limits import MAX_UNKEPT

pytestmark = needs_redis


@pytest.fixture
def heard(here: Node) -> list[Message]:
    messages = list[Message]()
    here.on_message = messages.append
    return messages


def test_nodes_tell_each_other(here: Node, there: Node, heard: list[Message]) -> None:
    for number in range(3):
        there.tell(here.id, {"t": "x", "n": number})
    until(lambda: heard == [{"t": "x", "n": number} for number in range(3)])


def test_holder_of_a_name_is_told_if_its_node_is_alive(
    redis: RedisServer, here: Node, there: Node, heard: list[Message]
) -> None:
    here.leases.claim("ann", "ann", "", print)
    there.leases.claim("bob", "bob", "", print)
    results = list[str]()
    for name in ("Ann", "nobody"):
        there.tell_holder(name, {"t": "x"}, "bob", results.append, print)
    until(lambda: results == [here.id, ""])
    until(lambda: heard == [{"t": "x"}])
    here._greenlets[0].kill()
    redis.command("HSET", NODES, here.id, '"1 {}"')
    there.tell_holder("ann", {"t": "x"}, "bob", results.append, print)
    until(lambda: results == [here.id, "", ""])


def test_who_is_told_while_redis_is_away_hears_that(redis: RedisServer) -> None:
    with RedisServer() as mortal, node_of(mortal.url) as node:
        node.leases.claim("bob", "bob", "", print)
        mortal.kill()
        results, failures = list[str](), list[Code]()
        node.tell_holder("ann", {"t": "x"}, "bob", results.append, failures.append)
        until(lambda: failures == [Code.UNAVAILABLE])
        assert results == []


def test_nobody_is_told_anything_by_a_user_whose_name_is_somebody_elses_by_now(
    here: Node, there: Node, heard: list[Message]
) -> None:
    """As by a node that was paused, and whose users have gone on at another."""
    here.leases.claim("ann", "ann", "", print)
    there.leases.claim("bob", "bob", "", lost := Losses())
    here.leases.claim("bob", "bob", "", print, attempt=1)
    results, failures = list[str](), list[Code]()
    there.tell_holder("ann", {"t": "x"}, "bob", results.append, failures.append)
    there.tell_holder("ann", {"t": "x"}, "nobody", results.append, failures.append)
    until(lambda: failures == [Code.UNAVAILABLE] * 2)
    until(lambda: lost)
    there.leases.claim("cat", "cat", "", print)
    there.tell_holder("ann", {"t": "y"}, "cat", results.append, failures.append)
    until(lambda: heard == [{"t": "y"}])


def test_error_that_repeats_is_logged_once_and_counted(here: Node, caplog: pytest.LogCaptureFixture) -> None:
    failures = iter([ZeroDivisionError()] * 4)

    def work() -> None:
        for failure in failures:
            raise failure
        done.set()

    done = Event()
    with caplog.at_level("WARNING"):
        working = gevent.spawn(here._supervise, 0, work)
        done.wait()
        gevent.sleep(0)
        working.kill()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "internal error, please report it: ZeroDivisionError()",
        "after 4 internal errors the node goes on",
    ]


@pytest.mark.parametrize(
    "garbage",
    ["m nonsense", "m []", "m {}", 'm {"t":"gone"}', 'm {"t":"fails"}', "x y"],
    ids=["not JSON", "no object", "no kind", "no lease", "what its reader makes nothing of", "no message"],
)
def test_garbage_in_the_inbox_is_passed_over(
    redis: RedisServer, here: Node, there: Node, heard: list[Message], garbage: str
) -> None:
    def take(message: Message) -> None:
        if message["t"] == "fails":
            raise KeyError
        heard.append(message)

    here.on_message = take
    field, _, value = garbage.partition(" ")
    assert redis.command("XADD", f"{INBOX}{here.id}", "*", field, f"'{value}'").startswith(b"$")
    there.tell(here.id, {"t": "x"})
    until(lambda: heard == [{"t": "x"}])


def test_what_others_tell_of_themselves(redis: RedisServer, here: Node, there: Node) -> None:
    there.about = lambda: {"rooms": [["tea", 2]]}
    there._beat()
    redis.command("HSET", NODES, "strange", "'99999999999999 garbage'", "dead", "'1 {}'", "stranger", "garbage")
    assert here.others() == [{"rooms": [["tea", 2]]}]


def test_node_is_alive_whatever_was_there_in_its_place(redis: RedisServer, here: Node) -> None:
    redis.command("HSET", NODES, here.id, "garbage")
    assert not here._beat()
    assert here._beat()


def test_it_is_logged_once_that_redis_is_away_and_once_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_module, "BEAT_SECONDS", 0.01)
    with RedisServer() as mortal, node_of(mortal.url) as node:
        mortal.kill()
        for _ in range(3):
            with pytest.raises(LogError):
                node._beat()
        until(lambda: "away" in caplog.text)
        mortal.start()
        until(lambda: "there again" in caplog.text)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.partition(":")[0] for line in told] == ["the backplane is away", "the backplane is there again"]


def test_foreign_entry_of_a_room_is_passed_over(redis: RedisServer, here: Node) -> None:
    here.leases.claim("ann", "ann", "", print)
    log = here.logs.open("lobby", heard := Audience())
    say(log, b"ann: 1", said=1)
    redis.command("XADD", log.stream, f"{log.epoch}-2", "x", "y")
    redis.command("HSET", "{greenchat}:room:lobby", "position", "2")
    until(lambda: heard.restarts == 1)
    say(log, b"ann: 2", said=2)
    assert [entry.position for entry in heard.placed] == [1, 3]


def test_loss_is_noticed_though_redis_was_back_before_anything_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer() as mortal, node_of(mortal.url) as node:
        node.leases.claim("ann", "ann", "", print)
        log = node.logs.open("lobby", heard := Audience())
        say(log, b"ann: 1", said=1)
        wait, lose = node.pipeline.store.wait, [True]

        def lose_first(after: dict[str, str]) -> object:
            if lose:
                lose.pop()
                mortal.kill()
                mortal.forget()
                mortal.start()
            return wait(after)

        monkeypatch.setattr(node.pipeline.store, "wait", lose_first)
        until(lambda: heard.restarts == 1)


def test_rooms_where_nobody_speaks_are_kept_while_somebody_is_there(redis: RedisServer, here: Node) -> None:
    here.leases.claim("ann", "ann", "", print)
    log = opened(here.logs)
    say(log, b"ann: 1", said=1)
    for key in ("room", "log"):
        redis.command("EXPIRE", f"{{greenchat}}:{key}:lobby", "5")
    here._sweep()
    for key in ("room", "log"):
        assert int(redis.command("TTL", f"{{greenchat}}:{key}:lobby").strip(b":\r\n")) > 5


def test_what_waits_for_redis_is_bounded(here: Node) -> None:
    here.wait()
    with RedisServer() as mortal, node_of(mortal.url) as node:
        mortal.kill()
        node.tell("other", {"t": "x", "text": "x" * MAX_UNKEPT})
        waiting = gevent.spawn(node.wait)
        gevent.idle()
        assert not waiting.ready()
        mortal.start()
        until(waiting.ready)
