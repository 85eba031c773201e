"""Real owners behind a wire that is cut: only what is missing is sent."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import People
from peers import BYTES, Proxy, code_of, fetching, left, sharing

from greenchat import ChatClient, ChatServer, Route
from greenchat.client.uploads import Uploads
from greenchat.errors import Code

pytestmark = pytest.mark.usefixtures("tried_once")


LARGE = BYTES * 4


@pytest.fixture
def before_owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Proxy]]:
    """Makes the port that the next client tells of a proxy's."""
    proxies = []
    listen = Uploads.listen

    def make(*cuts: int | None) -> Proxy:
        proxy = Proxy(0, *cuts)
        proxies.append(proxy)

        def listen_behind(self: Uploads, hosts: tuple[str, ...], port: int) -> int:
            monkeypatch.setattr(Uploads, "listen", listen)
            proxy.target = listen(self, hosts, port)
            return proxy.port

        monkeypatch.setattr(Uploads, "listen", listen_behind)
        return proxy

    yield make
    for proxy in proxies:
        proxy.close()


TALK = 1000
"""More than all records of a transfer together."""


@pytest.mark.usefixtures("tried_again")
def test_only_what_is_missing_is_sent_directly(people: People, before_owner: Callable[..., Proxy]) -> None:
    proxy = before_owner(1_000_000, 2_000_000)
    sharing(people, "bob", file=LARGE)
    got = people.client("ann", route=Route.DIRECT).fetch("bob", "file")
    assert left(people.home("ann")) == {"file": LARGE}
    assert 3_000_000 - TALK < got.resumed < 3_000_000
    assert proxy.carried[:2] == [1_000_000, 2_000_000]
    assert len(LARGE) <= sum(proxy.carried) < len(LARGE) + TALK


@pytest.mark.usefixtures("tried_again")
def test_only_what_is_missing_is_sent_through_the_relay(server: ChatServer, people: People, tmp_path: Path) -> None:
    sharing(people, "bob", file=LARGE)
    proxy = Proxy(server.port, 1_500_000, 1000, only=b'"relay"')
    ann = ChatClient("ann", proxy.port, share=tmp_path, into=people.home("ann"), route=Route.RELAY)
    try:
        with ann:
            got = ann.fetch("bob", "file")
        assert left(people.home("ann")) == {"file": LARGE}
        assert 1_500_000 - TALK < got.resumed < 1_500_000 + TALK
        assert len(LARGE) <= sum(proxy.carried) < len(LARGE) + TALK
    finally:
        proxy.close()


@pytest.mark.usefixtures("tried_again")
def test_owner_that_can_be_reached_no_longer_is_reached_through_the_relay(
    people: People, before_owner: Callable[..., Proxy]
) -> None:
    proxy = before_owner(1_000_000, 0)
    sharing(people, "bob", file=LARGE)
    ann = people.client("ann")
    got = ann.fetch("bob", "file")
    assert left(people.home("ann")) == {"file": LARGE}
    assert 1_000_000 - TALK < got.resumed < 1_000_000
    assert proxy.carried == [1_000_000]  # the relay was tried first the second time


def test_another_run_of_the_client_resumes(people: People, before_owner: Callable[..., Proxy]) -> None:
    before_owner(3_000_000)
    sharing(people, "bob", file=LARGE)
    ann = people.client("ann", route=Route.DIRECT)
    assert code_of(fetching(ann, "bob")) == Code.INTERRUPTED
    ann.close()
    (size,) = [len(content) for content in left(people.home("ann")).values()]
    again = people.client("ann again", into=people.home("ann"))
    assert again.fetch("BOB", "file").resumed == size > 3_000_000 - TALK
    assert left(people.home("ann")) == {"file": LARGE}


def test_part_of_one_owners_file_is_not_anothers(people: People, before_owner: Callable[..., Proxy]) -> None:
    before_owner(3_000_000)
    sharing(people, "bob", file=LARGE)
    sharing(people, "cat", file=LARGE)
    ann = people.client("ann", route=Route.DIRECT)
    assert code_of(fetching(ann, "bob")) == Code.INTERRUPTED
    assert ann.fetch("cat", "file").resumed == 0
    assert ann.fetch("bob", "file").resumed > 3_000_000 - TALK


def test_file_that_was_changed_meanwhile_is_fetched_anew(people: People, before_owner: Callable[..., Proxy]) -> None:
    before_owner(3_000_000)
    sharing(people, "bob", file=LARGE)
    ann = people.client("ann", route=Route.DIRECT)
    assert code_of(fetching(ann, "bob")) == Code.INTERRUPTED
    with (people.home("bob") / "file").open("r+b") as file:
        file.write(b"X")
    assert ann.fetch("bob", "file").resumed == 0
    assert left(people.home("ann")) == {"file": b"X" + LARGE[1:]}
