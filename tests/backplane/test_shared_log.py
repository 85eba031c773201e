import contextlib
import signal
from collections.abc import Iterator

import gevent
import pytest
from backplane.nodes import Losses, node_of
from conftest import until
from log.helpers import Audience, everything, opened, say
from redis_server import RedisServer, needs_redis

from greenchat.backplane import shared_log
from greenchat.backplane.node import Node
from greenchat.backplane.shared_log import SharedLog
from greenchat.backplane.store import Call, Store
from greenchat.errors import Code, LogError, Refused

pytestmark = needs_redis


@pytest.fixture
def here(here: Node) -> Node:
    here.leases.claim("ann", "ann", "", print)
    return here


@pytest.fixture
def there(there: Node) -> Node:
    there.leases.claim("bob", "bob", "", print)
    return there


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    """One that a test may kill."""
    with RedisServer() as running:
        yield running


def blocks(audience: Audience) -> list[bytes]:
    return [entry.block for entry in audience.placed]


def append(log: SharedLog, *numbers: int, origin: str = "ann") -> None:
    """With a session: the number is how many lines were said with it."""
    for number in numbers:
        log.append(origin, b"%s %d\n" % (origin.encode(), number), 1, number)


def test_order_is_one_on_all_nodes(here: Node, there: Node) -> None:
    ears = Audience(), Audience()
    one, two = here.logs.open("lobby", ears[0]), there.logs.open("lobby", ears[1])
    for number in range(1, 301):
        append(one, number)
        append(two, number, origin="bob")
        if number % 50 == 0:
            gevent.sleep(0.001)
    until(lambda: len(ears[0].placed) == len(ears[1].placed) == 600)
    assert ears[0].placed == ears[1].placed
    for origin in ("ann", "bob"):
        said = [entry.said for entry in ears[0].placed if entry.origin == origin]
        assert said == list(range(1, 301))
    assert everything(one) == everything(two)
    assert (one.settle("bob"), two.settle("ann")) == (300, 300)


def test_what_was_said_twice_has_one_place(here: Node) -> None:
    log = here.logs.open("lobby", heard := Audience())
    append(log, 1, 2, 2, 1, 3)
    log.append("ann", b"ann 2\nann 3\nann 4\n", 3, 4)
    log.settle("")
    assert blocks(heard) == [b"ann 1\n", b"ann 2\n", b"ann 3\n", b"ann 4\n"]
    here.logs.wait(0)


def test_who_has_lost_its_name_is_heard_no_more(here: Node, there: Node) -> None:
    here.leases.claim("cat", "cat", "", lost := Losses())
    log = here.logs.open("lobby", heard := Audience())
    append(log, 1, origin="cat")
    log.settle("")
    there.leases.claim("cat", "cat", "", print)
    append(log, 2, origin="cat")
    log.settle("")
    assert blocks(heard) == [b"cat 1\n"]
    assert set(lost) == {Code.TAKEN_OVER}
    here.logs.wait(0)


def test_who_has_no_name_is_not_heard(here: Node) -> None:
    log = here.logs.open("lobby", heard := Audience())
    append(log, 1, origin="nobody")
    log.settle("")
    assert heard.placed == []


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_while_redis_is_away_messages_wait_and_then_all_have_one_place(mortal: RedisServer, how: str) -> None:
    with node_of(mortal.url) as here:
        here.leases.claim("ann", "ann", "", print)
        here.leases.claim("guest", "~guest", "", print)
        told: list[bool] = []
        here.logs.watch(told.append)
        log = here.logs.open("lobby", heard := Audience())
        append(log, 1)
        log.append("~guest", b"guest 1\n", 1, 0)
        log.settle("")
        mortal.kill() if how == "kill" else mortal.signal(signal.SIGSTOP)
        append(log, 2, 3)
        log.append("~guest", b"guest 2\nguest 3\n", 2, 0)
        until(lambda: told == [False])
        append(log, 4)
        assert len(heard.placed) == 2
        with pytest.raises(Refused) as refused:
            opened(here.logs, "another")
        assert refused.value.code is Code.UNAVAILABLE
        mortal.start() if how == "kill" else mortal.signal(signal.SIGCONT)
        here.logs.wait(0)
        assert blocks(heard) == [
            b"ann 1\n", b"guest 1\n", b"ann 2\n", b"ann 3\n", b"guest 2\nguest 3\n", b"ann 4\n",
        ]  # fmt: skip
        assert told == [False, True]
        assert heard.restarts == 0


def test_answer_that_was_lost_does_not_double_what_was_said(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    log = here.logs.open("lobby", heard := Audience())
    run, lost = Store.run, [True, True]

    def run_and_lose_the_answer(store: Store, calls: object) -> object:
        results = run(store, calls)  # type: ignore[arg-type]  # as they came
        if lost:
            lost.pop()
            raise LogError(Code.UNAVAILABLE, "the cable was cut")
        return results

    monkeypatch.setattr(Store, "run", run_and_lose_the_answer)
    here.leases.of("ann")
    append(log, 1, 2, 3)
    here.logs.wait(0)
    assert blocks(heard) == [b"ann 1\n", b"ann 2\n", b"ann 3\n"]


def test_log_that_redis_has_lost_begins_anew(mortal: RedisServer) -> None:
    with node_of(mortal.url) as here:
        here.leases.claim("ann", "ann", "", lost := Losses())
        log = here.logs.open("lobby", heard := Audience())
        append(log, 1, 2)
        log.settle("")
        epoch = log.epoch
        mortal.kill()
        mortal.forget()
        mortal.start()
        until(lambda: heard.restarts == 1)
        assert log.epoch != epoch
        assert (log.position, everything(log)) == (0, [])
        until(lambda: lost)
        here.leases.claim("ann", "ann", "", print)
        append(log, 1)
        log.settle("")
        assert blocks(heard)[2:] == [b"ann 1\n"]


def test_log_of_which_redis_has_lost_the_end_begins_anew_though_others_have_gone_on(
    redis: RedisServer, here: Node, there: Node
) -> None:
    log = here.logs.open("lobby", heard := Audience())
    append(log, 1)
    log.settle("")
    redis.command("COPY", log.stream, "kept")
    append(log, 2)
    log.settle("")
    redis.command("RENAME", "kept", log.stream)  # XSETID does not go back behind a deleted entry in newer servers
    redis.command("HSET", "{greenchat}:room:lobby", "position", "1")
    other = there.logs.open("lobby", Audience())
    append(other, 1, origin="bob")
    other.settle("")
    here.logs.check()
    assert heard.restarts == 1
    other.settle("")
    assert other.epoch == log.epoch


def test_line_that_follows_one_lost_with_its_epoch_is_refused(redis: RedisServer, here: Node, there: Node) -> None:
    """Taking it would tell the speaker, once back, that the lost one is kept, too."""
    here.leases.claim("ann", "ann", "", lost := Losses())
    log = here.logs.open("lobby", heard := Audience())
    append(log, 1)
    log.settle("")
    other = there.logs.open("lobby", Audience())
    append(other, 1, 2, origin="bob")
    other.settle("")
    log.settle("")
    redis.command("XTRIM", log.stream, "MAXLEN", "0")
    redis.command("XSETID", log.stream, f"{log.epoch}-1")
    redis.command("HSET", "{greenchat}:room:lobby", "position", "1")
    append(log, 2)  # takes the place of a line of bob's, behind what this node has read
    here.pipeline.queue.settle()
    here.logs.check()
    assert heard.restarts == 1
    append(log, 3)
    until(lambda: lost)
    assert (set(lost), log.settle("ann")) == ({Code.UNAVAILABLE}, None)
    here.leases.claim("ann", "ann", "", print)
    append(log, 2, 3)
    log.settle("")
    assert blocks(heard)[-2:] == [b"ann 2\n", b"ann 3\n"]


def test_line_that_was_waiting_when_the_epoch_ended_has_its_place_in_the_next(redis: RedisServer, here: Node) -> None:
    log = here.logs.open("lobby", heard := Audience())
    append(log, 1)
    log.settle("")
    redis.command("DEL", "{greenchat}:room:lobby", log.stream)
    append(log, 2, 3)
    here.logs.wait(0)
    assert blocks(heard)[1:] == [b"ann 2\n", b"ann 3\n"]


def test_room_that_has_begun_anew_elsewhere_is_heard_here(redis: RedisServer, here: Node, there: Node) -> None:
    """Nobody here says anything who would be told."""
    one, two = here.logs.open("lobby", Audience()), there.logs.open("lobby", ears := Audience())
    append(one, 1)
    one.settle("")
    redis.command("DEL", "{greenchat}:room:lobby", one.stream)
    append(one, 2)
    until(lambda: ears.restarts == 1)
    until(lambda: blocks(ears)[-1:] == [b"ann 2\n"])
    assert one.epoch == two.epoch


def test_log_that_has_gone_back_behind_where_it_was_opened_begins_anew(redis: RedisServer, here: Node) -> None:
    first = here.logs.open("lobby", Audience())
    append(first, 1, 2, 3)
    first.settle("")
    log = here.logs.open("lobby", heard := Audience())
    redis.command("HSET", "{greenchat}:room:lobby", "position", "2")
    here.logs.check()
    assert (heard.restarts, log.position) == (1, 0)


def test_epoch_never_goes_back(redis: RedisServer, here: Node) -> None:
    log = here.logs.open("lobby", Audience())
    redis.command("HSET", "{greenchat}:room:lobby", "epoch", "1")
    epoch = log.epoch
    here.logs.check()
    assert int(log.epoch) > int(epoch)


def test_entries_of_an_epoch_that_is_over_are_not_placed(here: Node) -> None:
    log = here.logs.open("lobby", heard := Audience())
    fields = {b"b": b"bob 1\n", b"l": b"1", b"o": b"bob", b"s": b"1"}
    log.place_all([(f"{int(log.epoch) - 1}-1", fields)])
    assert (heard.placed, log.position) == ([], 0)


def test_what_is_gone_before_it_was_read_is_told(redis: RedisServer, here: Node) -> None:
    log = here.logs.open("lobby", heard := Audience())
    redis.command("XADD", log.stream, f"{log.epoch}-7", "b", "x", "l", "1", "o", "bob", "s", "0")
    until(lambda: heard.restarts == 1)
    assert [entry.position for entry in heard.placed] == [7]
    assert log.begin == 6


def test_what_was_said_first_is_placed_first_though_it_was_refused_at_first(here: Node) -> None:
    """As for want of memory, of which there was some for the next."""
    log = here.logs.open("lobby", heard := Audience())
    lease = here.leases.of("ann")
    assert lease
    calls = list[Call]()
    here.pipeline.submit = lambda command, size=1: calls.append(command.build())  # type: ignore[method-assign]
    append(log, 1, 2)
    run = here.pipeline.store.one
    assert [run(calls[at]) for at in (1, 0, 1, 1)] == [b"gap", 1, 2, b"known"]
    until(lambda: blocks(heard) == [b"ann 1\n", b"ann 2\n"])


def test_who_was_silent_for_long_goes_on_where_it_was(redis: RedisServer, here: Node) -> None:
    """Though nobody knows any more how much it has said."""
    here.leases.claim("guest", "~guest", "", lost := Losses())
    told: list[bool] = []
    here.logs.watch(told.append)
    log = here.logs.open("lobby", heard := Audience())
    for block in (b"guest: 1\n", b"guest: 2\n"):
        log.append("~guest", block, 1, 0)
        log.settle("")
        redis.command("HDEL", "{greenchat}:speakers", "~guest")
    log.append("~guest", b"guest: 3\n", 1, 0)
    log.settle("")
    assert (len(heard.placed), lost, told) == (3, [], [])


def test_who_does_not_catch_up_at_all_holds_up_the_others_for_a_while_only(
    here: Node, there: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_log, "AHEAD_SECONDS", -1)
    slow = Audience()
    slow.has_much = True
    slow.caught_up.clear()
    logs = here.logs.open("lobby", slow), there.logs.open("lobby", Audience())
    append(logs[1], 1, 2, origin="bob")
    until(lambda: len(slow.placed) == 2)


def test_log_knows_which_lines_were_just_said_on_other_nodes(redis: RedisServer, here: Node, there: Node) -> None:
    other = there.logs.open("lobby", Audience())
    append(other, 1, 2, origin="bob")
    other.settle("")
    redis.command("XADD", other.stream, f"{other.epoch}-3", "b", "old", "l", "1", "o", "cat", "s", "0", "t", "5")
    redis.command("HSET", "{greenchat}:room:lobby", "position", "3")
    append(other, 3, 4, origin="bob")
    other.settle("")
    log = opened(here.logs)
    assert [log.recent(seconds, 1000) for seconds in (60, 0)] == [3, 5]
    assert log.recent(60, 7) == 4  # bytes, for one line of two


def test_log_that_has_only_garbage_has_nothing_recent(redis: RedisServer, here: Node) -> None:
    log = here.logs.open("lobby", Audience())
    redis.command("XADD", log.stream, f"{log.epoch}-7", "what", "is this")
    assert log.recent(60, 1000) == log.position
    redis.command("DEL", log.stream)
    redis.command("SET", log.stream, "garbage")
    assert log.recent(60, 1000) == log.position


@pytest.mark.attack(46)
def test_rooms_and_speakers_are_bounded_oldest_first(
    redis: RedisServer, here: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_log, "MAX_SPEAKERS", 4)
    monkeypatch.setattr(shared_log, "KEPT_ROOMS", 3)
    kept = []
    for number in range(8):
        here.leases.claim(f"u{number}", f"u{number}", "", print)
        log = here.logs.open(f"r{number}", Audience())
        append(log, 1, origin=f"u{number}")
        log.settle("")
        kept.append(log)
    assert sorted(redis.keys()) == sorted(
        [f"{kind}:r{number}" for kind in ("room", "log") for number in (5, 6, 7)]
        + ["rooms", "speakers", "forgotten", "names", "nodes", "token", f"inbox:{here.id}"]
    )
    assert [kept[number].settle(f"u{number}") for number in (7, 6, 5)] == [1, 1, 1]
    assert redis.command("HLEN", "{greenchat}:speakers") == b":4\r\n"
    assert redis.command("ZCARD", "{greenchat}:forgotten") == b":4\r\n"


@pytest.mark.attack(46)
def test_bytes_of_all_logs_are_bounded_the_longest_are_trimmed(redis: RedisServer) -> None:
    with contextlib.closing(Node(redis.url, kept_size=1_000_000)) as node:
        node.start()
        node.leases.claim("ann", "ann", "", print)
        long, short = node.logs.open("long", Audience()), node.logs.open("short", heard := Audience())
        for _number in range(1, 201):
            long.append("ann", b"x" * 20_000 + b"\n", 1, 0)
        short.append("ann", b"hi\n", 1, 0)
        node.logs.wait(0)
        node.logs.trim()
        used = int(redis.command("MEMORY", "USAGE", "{greenchat}:log:long").strip(b":\r\n"))
        assert 250_000 < used < 550_000
        long.settle("")
        assert (long.begin > 150, long.position) == (True, 200)
        assert [entry.block for entry in short.read(0)] == [b"hi\n"]
        assert heard.restarts == 0


KEYS = {
    "room:lobby": "hash", "log:lobby": "stream", "rooms": "zset", "speakers": "hash", "forgotten": "zset",
    "names": "hash", "owners": "hash", "owned": "hash", "token": "number", "nodes": "hash",
}  # fmt: skip


@pytest.mark.attack(41)
@pytest.mark.parametrize("key", [*KEYS, "inbox"])
@pytest.mark.parametrize(
    "garbage", [("SET", "x"), ("HSET", "x", "y"), ("RPUSH", "x"), ("ZADD", "1", "x"), ("XADD", "*", "x", "y")],
    ids=lambda garbage: garbage[0],
)  # fmt: skip
def test_key_of_another_type_stops_nobody(
    redis: RedisServer, here: Node, there: Node, key: str, garbage: tuple[str, ...]
) -> None:
    full = "{greenchat}:" + (f"inbox:{here.id}" if key == "inbox" else key)
    here.leases.claim("eve", "eve", "", print)
    tea, ear = here.logs.open("tea", Audience()), there.logs.open("tea", heard := Audience())
    lobby = here.logs.open("lobby", Audience())
    append(lobby, 1)
    append(tea, 1, origin="eve")
    ear.settle("")
    redis.command("DEL", full)
    redis.command(garbage[0], full, *garbage[1:])
    eventually(here, "new")
    append(lobby, 2)
    append(tea, 2, origin="eve")
    there.tell(here.id, {"t": "x"})
    if key not in ("names", "nodes"):  # with which users lose their names, and have to come again
        until(lambda: b"eve 2\n" in blocks(heard))
    here.pipeline.queue.settle()
    there.pipeline.queue.settle()
    eventually(there, "newer")


def eventually(node: Node, name: str) -> None:
    """Claim a name, as a client does that is told to come again in a moment."""
    while True:
        with contextlib.suppress(Refused):
            node.leases.claim(name, name, "key", print)
            return
        gevent.sleep(0.01)


@pytest.mark.attack(41)
@pytest.mark.parametrize(
    "garbage",
    [
        ("HSET", "{greenchat}:names", "name:new", "x"), ("HSET", "{greenchat}:owners", "name:new", "x"),
        ("HSET", "{greenchat}:owners", "name:new", '"x [[]"'), ("HSET", "{greenchat}:nodes", "x", "y"),
        ("HSET", "{greenchat}:speakers", "ann", "x"), ("HSET", "{greenchat}:room:lobby", "position", "x"),
        ("HSET", "{greenchat}:room:lobby", "epoch", "x"), ("XADD", "{greenchat}:log:lobby", "*", "x", "y"),
        ("HSET", "{greenchat}:owned", "key", "x"), ("ZADD", "{greenchat}:rooms", "0", "x"),
    ],
    ids=lambda garbage: " ".join(garbage[1:]),
)  # fmt: skip
def test_garbage_in_a_key_stops_nobody(redis: RedisServer, here: Node, there: Node, garbage: tuple[str, ...]) -> None:
    here.leases.claim("eve", "eve", "", print)
    tea, _ear = here.logs.open("tea", Audience()), there.logs.open("tea", heard := Audience())
    lobby = here.logs.open("lobby", Audience())
    append(lobby, 1)
    lobby.settle("")
    redis.command(*garbage)
    append(lobby, 2)
    append(tea, 1, origin="eve")
    until(lambda: blocks(heard))
    eventually(here, "new")
    here.logs.check()
    lobby.settle("")
    here._sweep()


def test_many_lines_are_trimmed(redis: RedisServer) -> None:
    node = Node(redis.url, kept=100)
    node.start()
    node.leases.claim("ann", "ann", "", print)
    log = opened(node.logs)
    for number in range(1, 1001):
        say(log, b"%d" % number, said=number)
    log.settle("")
    assert 800 <= log.begin <= 900  # Redis trims whole parts of a stream
    assert [line for _, line in everything(log, log.begin)][-1] == b"1000"
    node.close()


def test_what_is_in_redis_and_not_placed_here_yet_is_not_read(here: Node, there: Node) -> None:
    """Or who comes back in that moment would hear it twice."""
    other = there.logs.open("lobby", Audience())
    append(other, 1, origin="bob")
    other.settle("")
    log = here.logs.open("lobby", Audience())
    here.logs.streams = dict  # type: ignore[method-assign]  # nothing is read from now on
    here._wake()
    gevent.sleep(0.05)
    append(other, 2, origin="bob")
    other.settle("")
    assert [entry.block for entry in log.read(0)] == [b"bob 1\n"]
