import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenchat.errors import Code, ProtocolError
from greenchat.protocol import records
from greenchat.protocol.codec import SOH, decode, encode
from greenchat.protocol.limits import MAX_ALGORITHM_NAME, MAX_ALGORITHMS, MAX_LINE, MAX_NUMBER, MAX_RECORD
from greenchat.protocol.records import (
    Addresses,
    Algorithms,
    File,
    Get,
    Go,
    Got,
    Have,
    Hello,
    Private,
    Pull,
    Record,
    Take,
    Wait,
)
from greenchat.protocol.text import UNSAFE

EXPORTED = [getattr(records, name) for name in records.__all__]
KINDS: list[type[Record]] = [
    kind for kind in EXPORTED if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]
FIELDS = [(kind, name) for kind in KINDS for name in kind.FIELDS]
REQUIRED = [(kind, name) for kind, name in FIELDS if name not in kind.DEFAULTS]
NUMBERS = st.integers(0, MAX_NUMBER)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_ALGORITHM_NAME)
VALUES: dict[object, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    str: TEXTS,
    Addresses: st.lists(st.tuples(TEXTS, NUMBERS), max_size=4).map(tuple),
    Algorithms: st.lists(NAMES, max_size=MAX_ALGORITHMS).map(tuple),
}
WRONG: dict[object, list[Any]] = {
    int: [None, True, -1, MAX_NUMBER + 1, 1.0, "1", [1], {}],
    str: [None, True, 1, ["a"], {}, "\ud800"],
    Addresses: [
        None,
        1,
        "ab",
        {},
        {"host": 1},
        [1],
        [[]],
        [["host"]],
        [["host", 1, 2]],
        [[1, "host"]],
        [["host", -1]],
        [["host", True]],
        [{"host": 1}],
        ["ab"],
        [["\ud800", 1]],
    ],
    Algorithms: [
        None,
        True,
        1,
        "sha256",
        {},
        {"sha256": 1},
        [None],
        [1],
        [["sha256"]],
        ["sha256", {}],
        ["\ud800"],
        ["a" * (MAX_ALGORITHM_NAME + 1)],
        ["a"] * (MAX_ALGORITHMS + 1),
    ],
}
NESTED = b"[" * 4000


def made(kind: type[Record]) -> st.SearchStrategy[Record]:
    return st.builds(kind, **{name: VALUES[hint] for name, hint in kind.FIELDS.items()})


def sent(kind: type[Record]) -> dict[str, Any]:
    """The JSON object of one record of *kind*, to be spoiled."""
    plain: dict[object, Any] = {int: 1, str: "a", Addresses: [["192.0.2.1", 5000]], Algorithms: ["sha256"]}
    return {"t": kind.__name__.lower()} | {name: plain[hint] for name, hint in kind.FIELDS.items()}


def label(part: type[Record] | str) -> str:
    return part if isinstance(part, str) else part.__name__


def outcome(line: bytes) -> Record | Code | None:
    try:
        return decode(line)
    except ProtocolError as error:
        return error.code


def test_every_kind_is_exported() -> None:
    assert {kind.__name__ for kind in KINDS} == {kind.__name__ for kind in Record.__subclasses__()}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (Go(), b'\x01{"t":"go"}\n'),
        (Get(7, "ann", "a.txt"), b'\x01{"t":"get","id":7,"owner":"ann","file":"a.txt"}\n'),
        (Got("caf\u00e9\n"), b'\x01{"t":"got","digest":"caf\xc3\xa9\\n"}\n'),
        (
            Take(1, "f0", 2, (("::1", 5000), ("192.0.2.1", 1)), "k", ("a",)),
            b'\x01{"t":"take","id":1,"ticket":"f0","size":2,"direct":[["::1",5000],["192.0.2.1",1]],"key":"k","algorithms":["a"]}\n',
        ),
        (Have("f0", 2, ()), b'\x01{"t":"have","ticket":"f0","size":2,"algorithms":[]}\n'),
        (
            Pull("f0", "sha256", 5, "d0"),
            b'\x01{"t":"pull","ticket":"f0","algorithm":"sha256","offset":5,"prefix":"d0"}\n',
        ),
        (Wait(), b'\x01{"t":"wait"}\n'),
        (File(13, 5), b'\x01{"t":"file","size":13,"offset":5}\n'),
    ],
    ids=["no field", "plain", "not ASCII", "lists", "empty list", "pull", "wait", "file"],
)
def test_record_is_this_line(record: Record, line: bytes) -> None:
    assert encode(record) == line
    assert decode(line[1:-1]) == record


@pytest.mark.parametrize("kind", KINDS, ids=label)
@given(data=st.data())
def test_what_is_encoded_is_decoded(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(made(kind))
    line = encode(record)
    assert (line[:1], line[-1:]) == (SOH, b"\n")
    assert UNSAFE.search(line[1:-1].decode()) is None
    assert decode(line[1:-1]) == record


@pytest.mark.parametrize("kind", KINDS, ids=label)
def test_unknown_fields_are_ignored(kind: type[Record]) -> None:
    fields = sent(kind)
    record = decode(json.dumps(fields).encode())
    assert isinstance(record, kind)
    assert decode(json.dumps(fields | {"new": {"a": [1, None, 2.5]}}).encode()) == record


def test_what_cannot_be_decoded_is_not_sent() -> None:
    for record in (
        Got("\ud800"),
        Get(-1, "ann", "x"),
        Get(2**63, "ann", "x"),
        Take(1, "t", 1, (("\udfff", 5000),), "k", ()),
        Take(1, "t", 1, (), "k", ("\udfff",)),
        Have("t", 1, ("a",) * (MAX_ALGORITHMS + 1)),
        Have("t", 1, ("a" * (MAX_ALGORITHM_NAME + 1),)),
        Pull("t", "sha256", -1, ""),
        File(1, -1),
        File(2**63, 0),
    ):
        with pytest.raises(ProtocolError) as refused:
            encode(record)
        assert refused.value.code is Code.BAD_RECORD


def test_longest_record_is_one_line() -> None:
    room = MAX_LINE - len(encode(Got(""))) + len(b"\n")
    assert len(encode(Got("a" * room))) == MAX_LINE + len(b"\n")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\u0436" * 4000, id="Cyrillic"),
        pytest.param("\u540d" * 2700, id="ideographs"),
        pytest.param("\U0001f44d" * 2000, id="emoji"),
    ],
)
def test_letters_take_no_more_room_than_in_a_message(text: str) -> None:
    assert len(encode(Private("bob", text))) == len(text.encode()) + len(encode(Private("bob", ""))) <= MAX_LINE + 1


@pytest.mark.attack(25)
@pytest.mark.parametrize("character", [*"\x00\x01\n\r\x1b\x7f\x85\x9b\u2028\u2029\u202e\u200f"], ids=ascii)
def test_what_could_harm_a_parser_is_escaped(character: str) -> None:
    line = encode(Private("bob", f"a{character}b"))
    assert line[1:-1].isascii()
    assert len(line[1:-1].decode().splitlines()) == 1
    assert decode(line[1:-1]) == Private("bob", f"a{character}b")


def test_record_with_escapes_of_another_encoder_is_understood() -> None:
    assert decode(b'{"t":"private","who":"bob","text":"\\u0436\\ud83d\\udc4d"}') == Private("bob", "\u0436\U0001f44d")


def test_record_may_be_longer_where_the_peer_reads_it() -> None:
    record = Private("bob", '"' * MAX_LINE)
    assert decode(encode(record, MAX_RECORD)[1:-1]) == record
    with pytest.raises(ProtocolError):
        encode(record)


def test_row_24_record_over_the_limit_is_not_sent() -> None:
    room = MAX_LINE - len(encode(Got(""))) + len(b"\n")
    with pytest.raises(ProtocolError) as refused:
        encode(Got("a" * (room + 1)))
    assert refused.value.code is Code.LINE_TOO_LONG


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" ", id="a space"),
        pytest.param(b"hello", id="a word"),
        pytest.param(b'{"t":"go"', id="unfinished"),
        pytest.param(b'{"t":"go"}{"t":"go"}', id="two objects"),
        pytest.param(b'{"t":"go"} x', id="words after it"),
        pytest.param(b"{'t':'go'}", id="wrong quotes"),
        pytest.param(b'\xef\xbb\xbf{"t":"go"}', id="byte order mark"),
        pytest.param(b'{"t":"go","x":"\xff"}', id="invalid UTF-8"),
        pytest.param('{"t":"go"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"t":"go","x":"\x1b"}', id="raw control in a string"),
        pytest.param(b'{"t":"go","x":NaN}', id="NaN"),
        pytest.param(b'{"t":"go","x":-Infinity}', id="infinity"),
        pytest.param(NESTED, id="deep nesting"),
        pytest.param(b'{"t":"go","x":' + NESTED, id="deep nesting in a field"),
        pytest.param(b'{"a":' * 1300, id="deep nesting of objects"),
        pytest.param(b'{"t":"go","x":' + b"9" * 8000 + b"}", id="huge integer"),
    ],
)
def test_row_27_line_that_is_not_json_is_a_coded_error(line: bytes) -> None:
    assert outcome(line) is Code.BAD_RECORD


@pytest.mark.parametrize("line", [b"null", b"true", b"1", b"1.5", b'"go"', b"[]", b'["t"]', b'[["t","go"]]', b"{}"])
def test_row_27_json_that_is_no_object_with_a_kind_is_a_coded_error(line: bytes) -> None:
    assert outcome(line) is Code.BAD_RECORD


@pytest.mark.parametrize("kind", [None, True, 1, ["go"], {"go": 1}, "\ud800"], ids=ascii)
def test_row_27_kind_that_is_no_text_is_a_coded_error(kind: Any) -> None:
    assert outcome(json.dumps({"t": kind}).encode()) is Code.BAD_RECORD


@pytest.mark.parametrize("kind", ["", "new", "GO", "Go", "record", "__class__"])
def test_row_27_unknown_kind_is_ignored(kind: str) -> None:
    assert decode(json.dumps({"t": kind, "x": 1}).encode()) is None


@pytest.mark.parametrize(("kind", "name"), REQUIRED, ids=label)
def test_row_27_missing_field_is_a_coded_error(kind: type[Record], name: str) -> None:
    fields = sent(kind)
    del fields[name]
    assert outcome(json.dumps(fields).encode()) is Code.BAD_RECORD


def test_field_with_a_default_may_be_missing_and_is_not_sent() -> None:
    line = encode(Hello(1, "ann", 0))
    assert line == b'\x01{"t":"hello","v":1,"name":"ann","listen":0}\n'
    assert decode(line[1:]) == Hello(1, "ann", 0, "", "")
    assert decode(encode(Hello(1, "ann", 0, "cert", "code"))[1:]) == Hello(1, "ann", 0, "cert", "code")


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=label)
def test_row_27_wrong_value_is_a_coded_error(kind: type[Record], name: str) -> None:
    for wrong in WRONG[kind.FIELDS[name]]:
        assert outcome(json.dumps(sent(kind) | {name: wrong}).encode()) is Code.BAD_RECORD, wrong


@pytest.mark.parametrize("number", ["1e3", "1.0", "-0.0", "1e400", "9" * 4000, "9" * 8000], ids=lambda text: text[:5])
def test_row_27_number_that_is_no_small_integer_is_a_coded_error(number: str) -> None:
    assert outcome(b'{"t":"hello","v":%s,"name":"bob","listen":0}' % number.encode()) is Code.BAD_RECORD


@pytest.mark.parametrize("number", ["-1", str(2**63), str(2**64), "1e3", "5.0", "true", "null", '"5"', "9" * 4000])
@pytest.mark.parametrize(
    "record",
    [
        b'{"t":"pull","ticket":"f0","algorithm":"sha256","offset":%s,"prefix":""}',
        b'{"t":"file","size":5,"offset":%s}',
        b'{"t":"file","size":%s,"offset":0}',
    ],
    ids=["pull", "file from there", "file of that size"],
)
def test_row_22_offset_that_is_none_is_a_coded_error(record: bytes, number: str) -> None:
    assert outcome(record % number.encode()) is Code.BAD_RECORD


def test_row_22_largest_offset_is_a_number_like_any() -> None:
    assert decode(encode(Pull("f0", "sha256", MAX_NUMBER, ""))[1:-1]) == Pull("f0", "sha256", MAX_NUMBER, "")


@pytest.mark.parametrize(
    "algorithms",
    [
        (),
        ("",),
        ("a",) * MAX_ALGORITHMS,
        ("\U0001f44d" * MAX_ALGORITHM_NAME,) * MAX_ALGORITHMS,
        ("md5", "\x1b[2J", "a b"),
    ],
    ids=["none", "empty name", "the same", "most and longest", "unknown"],
)
def test_algorithms_within_their_bounds_are_taken_as_they_are(algorithms: Algorithms) -> None:
    have = Have("f0", 1, algorithms)
    assert decode(encode(have)[1:-1]) == have


def test_largest_number_is_taken() -> None:
    assert decode(b'{"t":"hello","v":%d,"name":"bob","listen":0}' % MAX_NUMBER) == Hello(MAX_NUMBER, "bob", 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(KINDS), st.data())
def test_row_27_any_values_make_a_record_or_a_coded_error(kind: type[Record], data: st.DataObject) -> None:
    fields = sent(kind) | {name: data.draw(JSON) for name in kind.FIELDS}
    result = outcome(json.dumps(fields).encode())
    assert result is Code.BAD_RECORD or isinstance(result, kind)


@given(st.binary() | st.text('{}[]:,"\\u0d8tgo1e9.-', max_size=20).map(str.encode))
def test_row_27_any_bytes_make_a_record_or_a_coded_error(line: bytes) -> None:
    result = outcome(line)
    assert result is Code.BAD_RECORD or result is None or isinstance(result, Record)
