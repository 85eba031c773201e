import json
import signal
import time

import pytest
from backplane.nodes import Losses, node_of
from conftest import until
from log.helpers import Audience
from redis_server import RedisServer, needs_redis

from greenchat.backplane.leases import INBOX, NAMES, NODES, OWNERS, free
from greenchat.backplane.node import Node
from greenchat.backplane.scripts import CANCEL, CLAIM
from greenchat.errors import Code, Refused
from greenchat.protocol.names import LOOKS_VERSION

pytestmark = needs_redis


def refusal(node: Node, name: str, origin: str = "other", owner: str = "") -> Code:
    with pytest.raises(Refused) as refused:
        node.leases.claim(name, origin, owner, print)
    return refused.value.code


@pytest.mark.parametrize(
    ("name", "code"),
    [("bob", Code.NAME_TAKEN), ("BOB", Code.NAME_TAKEN), ("b\u043eb", Code.NAME_ALIKE)],
)
def test_name_and_what_looks_like_it_is_one_users_on_all_nodes(here: Node, there: Node, name: str, code: Code) -> None:
    here.leases.claim("bob", "bob", "", print)
    assert refusal(there, name) is code


@pytest.mark.attack(26)
def test_owned_name_of_an_older_version_is_compared_by_the_rules_of_this_one(
    redis: RedisServer, here: Node, there: Node
) -> None:
    owned = json.dumps('key ["name:tom","written:Torn","small:torn"]')
    redis.command("HSET", OWNERS, "name:tom", owned, "written:Torn", owned, "small:torn", owned)
    assert refusal(there, "tom", owner="other") is Code.NAME_OWNED
    there.leases.release(there.leases.claim("torn", "torn", "other", print))
    here.leases.release(here.leases.claim("Tom", "tom", "key", print))
    for node in here, there:
        node.pipeline.queue.settle()
    assert refusal(there, "t\u043em", owner="other") is Code.NAME_OWNED
    assert redis.command("HLEN", OWNERS) == b":6\r\n"


@pytest.mark.attack(26)
def test_owned_names_of_an_older_version_are_guarded_before_their_owners_come(redis: RedisServer) -> None:
    for number in range(400):
        owned = json.dumps(f'key ["name:tom{number}","written:Torn{number}","small:torn{number}"]')
        fields = [f"{kind}{number}" for kind in ("name:tom", "written:Torn", "small:torn")]
        redis.command("HSET", OWNERS, *(word for field in fields for word in (field, owned)))
    with node_of(redis.url) as node:
        assert refusal(node, "T\u043em399", owner="other") is Code.NAME_OWNED
        node.leases.claim("torn399", "torn", "other", print)
        node.leases.claim("Tom399", "tom", "key", print)
    assert redis.command("HLEN", OWNERS) == b":1203\r\n"


def test_name_that_was_given_back_is_free(here: Node, there: Node) -> None:
    here.leases.release(here.leases.claim("bob", "bob", "", print))
    here.pipeline.queue.settle()
    there.leases.claim("bob", "other", "", print)


def test_name_that_was_taken_over_cannot_be_given_back_by_who_had_it(here: Node, there: Node) -> None:
    lost = Losses()
    lease = here.leases.claim("bob", "bob", "", lost)
    newer = there.leases.claim("bob", "bob", "", print)
    assert newer.value != lease.value
    until(lambda: lost == [Code.TAKEN_OVER])
    here.leases.release(lease)
    here.pipeline.queue.settle()
    assert refusal(here, "bob") is Code.NAME_TAKEN


@pytest.mark.attack(43)
def test_attempt_that_is_out_of_date_takes_nothing_over(here: Node, there: Node) -> None:
    there.leases.claim("bob", "bob", "", lost := Losses(), attempt=5)
    for attempt in (0, 4):
        with pytest.raises(Refused) as refused:
            here.leases.claim("bob", "bob", "", print, attempt=attempt)
        assert refused.value.code is Code.NAME_TAKEN
    assert lost == []
    here.leases.claim("bob", "bob", "", print, attempt=6)
    until(lambda: lost == [Code.TAKEN_OVER])


@pytest.mark.attack(43)
def test_attempt_that_is_out_of_date_takes_nothing_over_from_a_node_that_counts_as_dead(
    redis: RedisServer, here: Node, there: Node
) -> None:
    there.leases.claim("bob", "bob", "", lost := Losses(), attempt=5)
    redis.command("HDEL", NODES, there.id)
    with pytest.raises(Refused):
        here.leases.claim("bob", "bob", "", print, attempt=4)
    there._live()
    assert lost == []


def test_owner_of_a_name_takes_it_over_and_nobody_else_ever_gets_it(here: Node, there: Node) -> None:
    lost = Losses()
    lease = here.leases.claim("bob", "bob", "key", lost)
    there.leases.claim("bob", "another session", "key", print)
    until(lambda: lost == [Code.TAKEN_OVER])
    here.leases.release(lease)
    assert refusal(here, "bob", owner="another key") is Code.NAME_TAKEN
    there.leases.release(there.leases.claim("bob", "another session", "key", print))
    there.pipeline.queue.settle()
    assert refusal(here, "bob", owner="another key") is Code.NAME_OWNED
    assert refusal(here, "bob") is Code.NAME_OWNED


def test_names_of_a_node_that_is_dead_are_free(redis: RedisServer, here: Node, there: Node) -> None:
    lost = Losses()
    here.leases.claim("bob", "bob", "", lost)
    redis.command("HDEL", NODES, here.id)  # as if its time had passed
    there.leases.claim("bob", "other", "", print)
    here._live()
    assert lost == [Code.UNAVAILABLE]  # it may have it again when that one has left


def test_node_that_counted_as_dead_for_a_while_keeps_what_nobody_has_taken(redis: RedisServer, here: Node) -> None:
    lost = Losses()
    here.leases.claim("bob", "bob", "", lost)
    redis.command("HDEL", NODES, here.id)
    here._live()
    assert lost == []


def test_names_are_lost_with_all_that_redis_knew(redis: RedisServer, here: Node) -> None:
    lost = Losses()
    here.leases.claim("bob", "bob", "", lost)
    redis.command("FLUSHALL")
    here._live()
    assert lost == [Code.UNAVAILABLE]


def test_nobody_gets_a_name_while_redis_is_away() -> None:
    with RedisServer() as mortal, node_of(mortal.url) as here:
        mortal.kill()
        assert refusal(here, "bob") is Code.UNAVAILABLE


def test_claim_that_nobody_waits_for_any_more_is_undone(
    here: Node, there: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenchat.backplane.pipeline.SETTLE_SECONDS", -1)
    assert refusal(here, "bob") is Code.UNAVAILABLE
    monkeypatch.undo()
    until(lambda: not here.pipeline.queue._items)
    there.leases.claim("bob", "other", "", print)


def test_inbox_is_not_kept_for_ever(redis: RedisServer, here: Node, there: Node) -> None:
    here.leases.claim("bob", "bob", "", print)
    there.leases.claim("bob", "bob", "", print)
    assert int(redis.command("TTL", f"{INBOX}{here.id}").strip(b":\r\n")) > 0


@pytest.mark.parametrize(("seconds", "code"), [(-3600, None), (3600, Code.NAME_TAKEN)])
def test_when_the_clock_of_redis_has_jumped(
    redis: RedisServer, here: Node, there: Node, seconds: int, code: Code | None
) -> None:
    """What nodes have said of being alive was by another time then; a user's own session is let in all the same."""
    here.leases.claim("bob", "bob", "", lost := Losses())
    ends = (time.time() + seconds) * 1000
    redis.command("HSET", NODES, here.id, f'"{ends:.0f} {{}}"')
    here._greenlets[0].kill()  # its next sign of life would put it right
    if code:
        assert refusal(there, "bob") is code
    there.leases.claim("bob", "bob", "", print)
    if code:
        until(lambda: lost == [Code.TAKEN_OVER])
    assert len(lost) == bool(code)


def test_lease_is_no_other_though_redis_has_lost_its_count(redis: RedisServer, here: Node, there: Node) -> None:
    """As when a replica takes over that was behind: both have the first token then."""
    old = here.leases.claim("bob", "bob", "", lost := Losses())
    redis.command("DEL", NAMES, "{greenchat}:token")
    there.leases.claim("bob", "other", "", print)
    log = here.logs.open("lobby", heard := Audience())
    log.append("bob", b"bob: hi\n", 1, 0)
    here.logs.wait(0)
    assert (heard.placed, lost) == ([], [Code.UNAVAILABLE])
    here.leases.release(old)
    here.pipeline.queue.settle()
    assert refusal(here, "bob", "third") is Code.NAME_TAKEN


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ("8 there bob - 5", Code.TAKEN_OVER),
        ("8 there bob - 3", Code.UNAVAILABLE),  # of a connection that was given up before this one
        ("8 there other key 1", Code.TAKEN_OVER),
        ("8 there other - 1", Code.UNAVAILABLE),
        ("8 there other key2 1", Code.UNAVAILABLE),
        ("6 there bob key 5", Code.UNAVAILABLE),  # an older one, that Redis has gone back to
    ],
)
def test_only_who_has_come_from_elsewhere_is_told_so(here: Node, found: str, code: Code) -> None:
    lease = here.leases.claim("bob", "bob", "key", lost := Losses())
    lease.value = "7 here bob key 4"
    here.leases.lose(lease, found)
    here.leases.lose(lease, found)
    assert lost == [code]


def test_lease_that_redis_has_lost_may_be_had_again(redis: RedisServer, here: Node) -> None:
    here.leases.claim("bob", "bob", "", lost := Losses())
    redis.command("DEL", NAMES)
    log = here.logs.open("lobby", Audience())
    log.append("bob", b"bob: hi\n", 1, 0)
    here.logs.wait(0)
    assert lost == [Code.UNAVAILABLE]


def test_names_that_redis_has_lost_are_found_out_after_any_doubt(redis: RedisServer, here: Node) -> None:
    here.leases.claim("ann", "ann", "", kept := Losses())
    here.leases.claim("bob", "bob", "", lost := Losses())
    for form in ("name:bob", f"written{LOOKS_VERSION}:bob", f"small{LOOKS_VERSION}:bob"):
        redis.command("HDEL", NAMES, form)
    here._doubt()
    until(lambda: lost == [Code.UNAVAILABLE])
    assert kept == []


def test_nobody_is_forgotten_right_after_redis_was_away(
    redis: RedisServer, here: Node, there: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.leases.claim("bob", "bob", "", print)
    redis.command("DEL", NODES)
    there._greenlets[0].kill()
    here._beats = 0
    here._sweep()
    assert redis.command("HLEN", NAMES) == b":3\r\n"
    here._beats = 100
    here._sweep()
    assert redis.command("HLEN", NAMES) == b":0\r\n"


def test_claim_that_redis_runs_too_late_is_undone() -> None:
    with RedisServer() as mortal, node_of(mortal.url) as here, node_of(mortal.url) as there:
        mortal.signal(signal.SIGSTOP)
        assert refusal(here, "bob") is Code.UNAVAILABLE
        mortal.signal(signal.SIGCONT)
        here.pipeline.queue.settle()
        there.leases.claim("bob", "other", "", print)


def test_claim_that_comes_after_it_was_cancelled_is_not_run(redis: RedisServer, here: Node) -> None:
    store, cancelled = here.pipeline.store, "{greenchat}:cancelled:here:bob"
    claim = CLAIM, [NAMES, NODES, "owners", "token", INBOX, cancelled, "owned"]
    store.one((CANCEL, [NAMES, cancelled], ["here", "bob", 5, 60, "name:bob"]))
    for number, result in ((5, b"unavailable"), (6, [b"1 here bob - 1"])):
        assert store.one((*claim, ["here", "bob", "-", 1, number, 9, 60, 8, 8, "name:bob"])) == result


def test_names_of_nodes_that_are_dead_for_long_are_forgotten(
    redis: RedisServer, here: Node, there: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.leases.claim("ann", "ann", "", print)
    for name in ("bob", "cat"):
        there.leases.claim(name, name, "", print)
    assert redis.command("HLEN", NAMES) == b":9\r\n"
    redis.command("HSET", NODES, there.id, '"1 {}"')
    monkeypatch.setattr("greenchat.backplane.node.DEAD_NODE_SECONDS", 60)
    there._greenlets[0].kill()
    here._beats = 100
    here._sweep()
    assert redis.command("HLEN", NAMES) == b":3\r\n"
    assert redis.command("HKEYS", NODES).count(b"$") == 1


def test_names_of_a_node_that_ends_are_free_at_once(redis: RedisServer, here: Node) -> None:
    with node_of(redis.url) as there:
        there.leases.claim("bob", "bob", "", print)
    here.leases.claim("bob", "other", "", print)


def test_names_of_one_key_are_bounded(
    redis: RedisServer, here: Node, there: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenchat.backplane.leases.MAX_NAMES_EACH", 2)
    for number in range(2):
        here.leases.release(here.leases.claim(f"u{number}", "x", "key", print))
    assert refusal(there, "u2", owner="key") is Code.TOO_MANY_NAMES
    there.leases.claim("u1", "y", "key", print)
    assert free(here.pipeline.store, "u0")
    there.leases.claim("u2", "z", "key", print)


def test_name_can_be_let_go_by_its_owner(redis: RedisServer, here: Node) -> None:
    here.leases.release(here.leases.claim("bob", "bob", "key", print))
    here.pipeline.queue.settle()
    assert free(here.pipeline.store, "BOB")
    assert not free(here.pipeline.store, "bob")
    here.leases.claim("bob", "other", "key2", print)
