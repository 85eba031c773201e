import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenchat.protocol.limits import MAX_DELIVERY, MAX_FILE_NAME, MAX_LINE, MAX_NAME_CHARACTERS
from greenchat.protocol.names import file_name, user_name
from greenchat.protocol.records import Want, Welcome, encode
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
