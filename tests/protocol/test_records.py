import pytest

from greenchat.protocol.records import Ack, Error, Hello, Ping, Pong, Private, Refused


def test_fields_are_given_by_place_or_by_name() -> None:
    assert Private("ann", "hello") == Private("ann", text="hello") == Private(text="hello", who="ann")
    assert (Hello(1, "ann", 0, room="r").room, Hello(1, "ann", 0).room) == ("r", "")


@pytest.mark.parametrize(
    ("values", "named"),
    [((1,), {}), ((1, 2, 3), {}), ((1, 2), {"said": 3}), ((1,), {"lines": 2}), ((1,), {"more": 2}), ((), {"said": 2})],
)
def test_missing_unknown_and_surplus_fields_are_refused(values: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Ack takes lines, said"):
        Ack(*values, **named)


def test_records_of_two_kinds_are_never_equal() -> None:
    assert Refused("code", "text") != Error("code", "text")
    assert Ping() != Pong()
    assert Ping() != ()


def test_equal_records_have_one_hash() -> None:
    assert hash(Hello(1, "ann", 0, room="r")) == hash(Hello(room="r", listen=0, name="ann", v=1))
    assert len({Ping(), Ping(), Pong()}) == 2


def test_record_is_immutable() -> None:
    ack = Ack(1, 2)
    with pytest.raises(AttributeError, match="immutable"):
        ack.lines = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del ack.lines
    assert ack == Ack(1, 2)


def test_replace_changes_a_copy() -> None:
    ack = Ack(1, 2)
    assert (ack.replace(said=3), ack) == (Ack(1, 3), Ack(1, 2))


def test_record_shows_its_fields_in_their_order() -> None:
    assert repr(Private(text="hello", who="ann")) == "Private(who='ann', text='hello')"


def test_fields_of_a_record_match_by_place() -> None:
    match Private("ann", "hello"):
        case Private(who, text):
            assert (who, text) == ("ann", "hello")
