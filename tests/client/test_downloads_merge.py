"""A file that is asked for again while it is on its way."""

import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from client.owners import refuses, wait_for_part
from conftest import People, Stub
from peers import BYTES, Owner, chat_goes_on, code_of, fetching, gives, header, left, received, sha256, sharing

from greenchat.errors import Code, ServerGone
from greenchat.protocol.records import Record
from greenchat.transfer import channel
from greenchat.transfer.pump import receive_bytes

pytestmark = pytest.mark.usefixtures("tried_once")


@pytest.mark.parametrize("again", ["dan", "DAN"])
def test_row_05_one_file_twice_at_once_is_fetched_once(people: People, dan: Owner, again: str) -> None:
    ann = people.client("ann")
    requests = [fetching(ann, "dan"), fetching(ann, again)]
    end = dan.pulled()
    third = fetching(ann, again)
    gives(end, b"hello")
    first, *others = [received(request) for request in [*requests, third]]
    assert others == [first, first]
    assert left(people.home("ann")) == {"file": b"hello"}
    chat_goes_on(ann, dan)


def test_row_05_of_a_real_owner_there_is_one_file(people: People) -> None:
    sharing(people, "bob", file=BYTES)
    ann = people.client("ann")
    for request in [fetching(ann, "bob") for _ in range(4)]:
        assert not received(request).unchanged
    assert left(people.home("ann")) == {"file": BYTES}


def test_file_that_has_arrived_is_fetched_again_when_asked_for_again(people: People) -> None:
    sharing(people, "bob", file=b"old")
    ann = people.client("ann")
    ann.fetch("bob", "file")
    (people.home("bob") / "file").write_bytes(b"new")
    assert ann.fetch("bob", "file").backup
    assert left(people.home("ann")) == {"file": b"new", "file.~1~": b"old"}


def test_same_file_for_another_directory_is_fetched_for_it(people: People, stub: Stub, dan: Owner) -> None:
    ann, there = people.client("ann"), people.home("there")
    here, over = fetching(ann), fetching(ann, into=there)
    for _ in range(2):
        dan.grants()
        end = stub.accept()
        end.record(Record)
        gives(end, b"hello")
    assert received(here).path == people.home("ann") / "file"
    assert received(over).path == there / "file"
    assert left(there) == left(people.home("ann")) == {"file": b"hello"}


def test_another_path_to_the_same_directory_is_the_same(people: People, dan: Owner, tmp_path: Path) -> None:
    ann = people.client("ann")
    (tmp_path / "link").symlink_to(people.home("ann"))
    requests = [fetching(ann), fetching(ann, into=tmp_path / "link")]
    gives(dan.pulled(), b"hello")
    assert [received(request).size for request in requests] == [5, 5]
    chat_goes_on(ann, dan)


def test_error_reaches_all_who_wait_for_the_file(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    requests = [fetching(ann) for _ in range(3)]
    refuses(dan, Code.NOT_FOUND)
    assert [code_of(request) for request in requests] == [Code.NOT_FOUND] * 3
    chat_goes_on(ann, dan)


def test_closing_reaches_all_who_wait_for_the_file(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    requests = [fetching(ann) for _ in range(3)]
    dan.pulled()
    ann.close()
    assert [type(request.get()) for request in requests] == [ServerGone] * 3


def test_next_one_takes_over_from_who_was_killed_and_resumes(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive_and_linger(*args: Any) -> None:
        try:
            receive_bytes(*args)
        finally:
            time.sleep(0.2)  # as a thread may on a busy machine, before it lets go of the partial

    monkeypatch.setattr(channel, "receive_bytes", receive_and_linger)
    ann = people.client("ann")
    first, second, third = (fetching(ann) for _ in range(3))
    end = dan.pulled()
    end.send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    first.kill()
    end = dan.pulled()
    assert (dan.pull.offset, dan.pull.prefix) == (3, sha256(b"hel"))
    gives(end, b"hello", 3)
    assert received(second) == received(third)
    assert received(second).resumed == 3
    assert left(people.home("ann")) == {"file": b"hello"}
    chat_goes_on(ann, dan)


def test_next_one_takes_over_from_who_lost_patience(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    second: list[gevent.Greenlet[..., object]] = []
    joining = gevent.spawn(lambda: second.append(fetching(ann)))
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        ann.fetch("dan", "file")
    joining.get()
    dan.grants()  # to the first request
    gives(dan.pulled(), b"hello")
    assert received(second[0]).size == 5


def test_who_only_waited_and_is_killed_is_missed_by_nobody(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    first, second = fetching(ann), fetching(ann)
    end = dan.pulled()
    second.kill()
    gives(end, b"hello")
    assert received(first).size == 5
    chat_goes_on(ann, dan)
