import time
from collections.abc import Iterator

import pytest
from backplane.nodes import Losses, node_of
from conftest import until
from redis_server import RedisServer, needs_redis

from greenchat.backplane.names import INBOX, NODES
from greenchat.backplane.node import Node
from greenchat.errors import Code, Refused

pytestmark = needs_redis


@pytest.fixture
def here(redis: RedisServer) -> Iterator[Node]:
    with node_of(redis.url) as node:
        yield node


@pytest.fixture
def there(redis: RedisServer) -> Iterator[Node]:
    with node_of(redis.url) as node:
        yield node


def refusal(node: Node, name: str, origin: str = "other", owner: str = "") -> Code:
    with pytest.raises(Refused) as refused:
        node.names.claim(name, origin, owner, print)
    return refused.value.code


@pytest.mark.parametrize("name", ["bob", "BOB", "bоb"])  # noqa: RUF001 - the last one is Cyrillic
def test_name_and_what_looks_like_it_is_one_users_on_all_nodes(here: Node, there: Node, name: str) -> None:
    here.names.claim("bob", "bob", "", print)
    assert refusal(there, name) is Code.NAME_TAKEN


def test_name_that_was_given_back_is_free(here: Node, there: Node) -> None:
    here.names.release(here.names.claim("bob", "bob", "", print))
    here._link.queue.settle()
    there.names.claim("bob", "other", "", print)


def test_name_that_was_taken_over_cannot_be_given_back_by_who_had_it(here: Node, there: Node) -> None:
    lost = Losses()
    lease = here.names.claim("bob", "bob", "", lost)
    newer = there.names.claim("bob", "bob", "", print)
    assert newer.token > lease.token
    until(lambda: lost == [Code.TAKEN_OVER])
    here.names.release(lease)
    here._link.queue.settle()
    assert refusal(here, "bob") is Code.NAME_TAKEN


def test_owner_of_a_name_takes_it_over_and_nobody_else_ever_gets_it(here: Node, there: Node) -> None:
    lost = Losses()
    lease = here.names.claim("bob", "bob", "key", lost)
    there.names.claim("bob", "another session", "key", print)
    until(lambda: lost == [Code.TAKEN_OVER])
    here.names.release(lease)
    assert refusal(here, "bob", owner="another key") is Code.NAME_TAKEN
    there.names.release(there.names.claim("bob", "another session", "key", print))
    there._link.queue.settle()
    assert refusal(here, "bob", owner="another key") is Code.NAME_OWNED
    assert refusal(here, "bob") is Code.NAME_OWNED


def test_names_of_a_node_that_is_dead_are_free(redis: RedisServer, here: Node, there: Node) -> None:
    lost = Losses()
    here.names.claim("bob", "bob", "", lost)
    redis.command("HDEL", NODES, here.id)  # as if its time had passed
    there.names.claim("bob", "other", "", print)
    here._beat()
    assert lost == [Code.TAKEN_OVER]


def test_node_that_counted_as_dead_for_a_while_keeps_what_nobody_has_taken(redis: RedisServer, here: Node) -> None:
    lost = Losses()
    here.names.claim("bob", "bob", "", lost)
    redis.command("HDEL", NODES, here.id)
    here._beat()
    assert lost == []


def test_names_are_lost_with_all_that_redis_knew(redis: RedisServer, here: Node) -> None:
    lost = Losses()
    here.names.claim("bob", "bob", "", lost)
    redis.command("FLUSHALL")
    here._beat()
    assert lost == [Code.UNAVAILABLE]


def test_nobody_gets_a_name_while_redis_is_away() -> None:
    with RedisServer() as mortal, node_of(mortal.url) as here:
        mortal.kill()
        assert refusal(here, "bob") is Code.UNAVAILABLE


def test_claim_that_nobody_waits_for_any_more_is_undone(
    here: Node, there: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenchat.backplane.names.SETTLE_SECONDS", -1)
    assert refusal(here, "bob") is Code.UNAVAILABLE
    monkeypatch.undo()
    until(lambda: not here._link.queue._items)
    there.names.claim("bob", "other", "", print)


def test_inbox_is_not_kept_for_ever(redis: RedisServer, here: Node, there: Node) -> None:
    here.names.claim("bob", "bob", "", print)
    there.names.claim("bob", "bob", "", print)
    assert int(redis.command("TTL", f"{INBOX}{here.id}").strip(b":\r\n")) > 0


@pytest.mark.parametrize(("seconds", "code"), [(-3600, None), (3600, Code.NAME_TAKEN)])
def test_when_the_clock_of_redis_has_jumped(
    redis: RedisServer, here: Node, there: Node, seconds: int, code: Code | None
) -> None:
    """What nodes have said of being alive was by another time then; a user's own session is let in all the same."""
    here.names.claim("bob", "bob", "", lost := Losses())
    ends = (time.time() + seconds) * 1000
    redis.command("HSET", NODES, here.id, f'"{ends:.0f} {{}}"')
    here._greenlets[0].kill()  # its next sign of life would put it right
    if code:
        assert refusal(there, "bob") is code
    there.names.claim("bob", "bob", "", print)
    if code:
        until(lambda: lost == [Code.TAKEN_OVER])
    assert len(lost) == bool(code)
