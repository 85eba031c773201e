import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenchat.protocol.codec import encode
from greenchat.protocol.limits import (
    MAX_ALGORITHM_NAME,
    MAX_ALGORITHMS,
    MAX_DELIVERY,
    MAX_FILE_NAME,
    MAX_LINE,
    MAX_NAME_CHARACTERS,
    MAX_NUMBER,
)
from greenchat.protocol.names import file_name, user_name
from greenchat.protocol.records import Take, Want, Welcome
from greenchat.protocol.text import safe_block
from greenchat.protocol.wire import ClientWire, Event, Text

LONGEST_NAME = user_name("\U0001f44d" * MAX_NAME_CHARACTERS)


def delivered(line: bytes) -> bytes:
    """*line* as it goes out to a member, from the user with the longest name."""
    return LONGEST_NAME.encode() + b": " + safe_block(line + b"\n")


def events_of(delivery: bytes) -> list[Event]:
    wire = ClientWire()
    wire.receive(encode(Welcome(1, "bob")))
    return wire.receive(delivery)


@given(st.binary(min_size=1, max_size=8).map(lambda unit: unit.replace(b"\n", b"\x00")))
@example(b"\x00")
@example(b"\xff")
@example(b"\xc2\x9b")
def test_any_line_that_may_be_sent_may_be_delivered(unit: bytes) -> None:
    delivery = delivered((unit * MAX_LINE)[:MAX_LINE])
    assert len(delivery) - len(b"\n") <= MAX_DELIVERY
    assert events_of(delivery) == [Text(delivery)]


def test_bound_on_a_delivery_is_reached() -> None:
    assert len(delivered(b"\x00" * MAX_LINE)) - len(b"\n") == MAX_DELIVERY


@pytest.mark.parametrize(
    "letter", ["a", '"', "\u00e9", "\u540d", "\U0001f44d"], ids=["ASCII", "quote", "2 bytes", "3 bytes", "4 bytes"]
)
def test_record_holds_the_longest_names(letter: str) -> None:
    file = file_name(letter * (MAX_FILE_NAME // len(letter.encode())))
    assert len(encode(Want("f" * 32, user_name(letter * MAX_NAME_CHARACTERS), file))) <= MAX_LINE + len(b"\n")


def test_record_holds_whatever_algorithms_an_owner_says_it_has() -> None:
    algorithms = ("\U0001f44d" * MAX_ALGORITHM_NAME,) * MAX_ALGORITHMS
    address = ("fe80::" + ":".join(["ffff"] * 4) + "%" + "e" * 15, 65535)
    take = Take(MAX_NUMBER, "f" * 32, MAX_NUMBER, (address,), "f" * 32, algorithms)
    assert len(encode(take)) <= MAX_LINE + len(b"\n")
