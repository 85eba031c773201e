import itertools
from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenchat.errors import Code, ProtocolError, sentence
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_DELIVERY, MAX_LINE, MAX_RECORD
from greenchat.protocol.records import (
    Ack,
    Challenge,
    Dial,
    Done,
    Error,
    Fail,
    File,
    Get,
    Go,
    Got,
    Have,
    Hello,
    List,
    Note,
    Ping,
    Pong,
    Private,
    Proof,
    Pull,
    Record,
    Refuse,
    Refused,
    Relay,
    Rooms,
    Secure,
    Sorry,
    Take,
    Undelivered,
    Wait,
    Want,
    Welcome,
)
from greenchat.protocol.text import UNSAFE, safe_block, safe_line
from greenchat.protocol.wire import (
    ClientWire,
    Event,
    Failure,
    Guest,
    LineSplitter,
    ServerWire,
    State,
    Text,
    message_line,
)

Side: TypeAlias = type[ServerWire] | type[ClientWire]

GUEST = b"bob\n"
HELLO = encode(Hello(1, "bob", 0))
RELAY = encode(Relay("k"))
WELCOME = encode(Welcome(1, "bob"))
REFUSED = encode(Refused("name-taken", "no"))

GET = Get(1, "ann", "a.txt")
WANT = Want("f0", "ann", "a.txt")
PROVING = encode(Hello(1, "bob", 0, "Y2VydA=="))
SAMPLES: list[Record] = [
    Ack(1, 2),
    Challenge("f0"),
    Dial("f0", "k"),
    Done("f0"),
    Error("shutdown", "x"),
    Fail(1, "not-found", "x"),
    File(2, 1),
    GET,
    Go(),
    Got("f0"),
    Have("f0", 1, ("sha256",)),
    Hello(1, "bob", 5000),
    List(),
    Note("waiting", "x"),
    Ping(),
    Pong(),
    Private("ann", "hi"),
    Proof("c2ln"),
    Pull("f0", "sha256", 1, "d0"),
    Refuse("f0", "not-found", "x"),
    Refused("name-taken", "x"),
    Relay("k"),
    Rooms((("lobby", 2),), 0),
    Secure("d0"),
    Sorry("not-found", "x"),
    Take(1, "f0", 1, (("::1", 5000),), "k", ("sha256",)),
    Undelivered("ann", "no-user", "x"),
    Wait(),
    WANT,
    Welcome(1, "bob"),
]
MALFORMED = b"\x01{\n"
UNKNOWN = b'\x01{"t":"new","x":1}\n'
STRANGER = Failure(Code.UNEXPECTED, "what answers there is not a greenchat server: check the host and the port")

EVERY_STATE = pytest.mark.parametrize(
    ("side", "opening", "state"),
    [
        pytest.param(ServerWire, b"", State.START, id="server-start"),
        pytest.param(ServerWire, GUEST, State.GUEST, id="server-guest"),
        pytest.param(ServerWire, HELLO, State.CLIENT, id="server-client"),
        pytest.param(ServerWire, PROVING, State.PROVING, id="server-proving"),
        pytest.param(ServerWire, PROVING + encode(Proof("c2ln")), State.CLIENT, id="server-proved"),
        pytest.param(ServerWire, RELAY, State.RELAY, id="server-relay"),
        pytest.param(ServerWire, b"\n", State.ENDED, id="server-ended"),
        pytest.param(ClientWire, b"", State.START, id="client-start"),
        pytest.param(ClientWire, WELCOME, State.CLIENT, id="client-client"),
        pytest.param(ClientWire, REFUSED, State.ENDED, id="client-ended"),
    ],
)
LINES = st.sampled_from(
    [
        b"hi\n",
        b"caf\xc3\xa9\r\n",
        b"\xff\x1b[31m\xe2\x80\n",
        b"\n",
        b"\r\n",
        b"a\rb\n",
        b"a\x01b\n",
        b"error: full\n",
        b"\x01\n",
        b"\x01[]\n",
        MALFORMED,
        UNKNOWN,
        *map(encode, SAMPLES),
    ]
)


def opened(side: Side, opening: bytes) -> ServerWire | ClientWire:
    wire = side()
    wire.receive(opening)
    return wire


def failure(code: Code) -> Failure:
    return Failure(code, sentence(code))


def joined(events: list[Event]) -> list[Event]:
    """*events* with neighbouring texts made one."""
    result: list[Event] = []
    for is_text, run in itertools.groupby(events, lambda event: isinstance(event, Text)):
        if is_text:
            result.append(Text(b"".join(event.block for event in run if isinstance(event, Text))))
        else:
            result.extend(run)
    return result


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(places)]


def received(wire: ServerWire | ClientWire, parts: list[bytes]) -> list[Event]:
    return [event for part in parts for event in wire.receive(part)]


# --- lines out of a stream --------------------------------------------------------------------


def test_splitter_hands_on_whole_lines_as_one_block() -> None:
    lines = LineSplitter(10)
    assert [lines.feed(data) for data in (b"a", b"b\nc\nd", b"", b"\n\n", b"e")] == [
        b"",
        b"ab\nc\n",
        b"",
        b"d\n\n",
        b"",
    ]
    assert lines._rest == b"e"


@given(st.binary(max_size=40), st.lists(st.integers(0)))
def test_splitter_loses_nothing(stream: bytes, cuts: list[int]) -> None:
    lines = LineSplitter(len(stream))
    blocks = [lines.feed(part) for part in pieces(stream, cuts)]
    assert all(block.endswith(b"\n") for block in blocks if block)
    rest = lines._rest
    assert b"\n" not in rest
    assert b"".join(blocks) + rest == stream


@given(st.lists(st.sampled_from([b"a", b"aaa", b"\r", b"\n"])).map(b"".join), st.lists(st.integers(0)))
@example(b"aaaa\naaaaa\n", [])
@example(b"aa\naaaaa\naa\n", [])
@example(b"aaaaa", [1, 2, 3, 4])
def test_splitter_refuses_exactly_the_lines_over_its_limit(stream: bytes, cuts: list[int]) -> None:
    lines = LineSplitter(4)
    blocks = [lines.feed(part) for part in pieces(stream, cuts)]
    within = [len(line.removesuffix(b"\r")) <= 4 for line in stream.split(b"\n")]
    good = list(itertools.compress(stream.split(b"\n"), itertools.takewhile(bool, within)))
    assert lines.overlong == (not all(within))
    assert b"".join(blocks).split(b"\n")[:-1] == (good if lines.overlong else good[:-1])


# --- the first line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "line", "events", "state"),
    [
        pytest.param(ServerWire, b"bob\n", [Guest("bob")], State.GUEST, id="guest"),
        pytest.param(ServerWire, b"bob\r\n", [Guest("bob")], State.GUEST, id="guest with CR"),
        pytest.param(ServerWire, b"Jose\xcc\x81\n", [Guest("Jos\u00e9")], State.GUEST, id="guest composed"),
        pytest.param(ServerWire, b"\xffbob\n", [Guest("\ufffdbob")], State.GUEST, id="guest not UTF-8"),
        pytest.param(ServerWire, HELLO, [Hello(1, "bob", 0)], State.CLIENT, id="hello"),
        pytest.param(ServerWire, HELLO[:-1] + b"\r\n", [Hello(1, "bob", 0)], State.CLIENT, id="hello with CR"),
        pytest.param(ServerWire, RELAY, [Relay("k")], State.RELAY, id="relay"),
        pytest.param(ClientWire, WELCOME, [Welcome(1, "bob")], State.CLIENT, id="welcome"),
        pytest.param(ClientWire, REFUSED, [Refused("name-taken", "no")], State.ENDED, id="refused"),
        pytest.param(
            ClientWire, b"error: full\n", [Refused("failed", "full")], State.ENDED, id="refused in plain text"
        ),
        pytest.param(ClientWire, b"SSH-2.0-x\r\n", [STRANGER], State.ENDED, id="another protocol"),
        pytest.param(ClientWire, b"\n", [STRANGER], State.ENDED, id="empty line"),
        pytest.param(ClientWire, UNKNOWN, [STRANGER], State.ENDED, id="welcome of unknown kind"),
        pytest.param(ClientWire, MALFORMED, [failure(Code.BAD_RECORD)], State.ENDED, id="malformed welcome"),
    ],
)
def test_first_line_decides_the_state(side: Side, line: bytes, events: list[Event], state: State) -> None:
    wire = side()
    assert wire.receive(line) == events
    assert wire.state is state


@pytest.mark.parametrize(
    ("hello", "event"),
    [
        pytest.param(Hello(0, "bob", 0), failure(Code.BAD_VERSION), id="version 0"),
        pytest.param(Hello(99, "bob", 0), Hello(1, "bob", 0), id="newer version"),
        pytest.param(Hello(1, "bob", 1), failure(Code.BAD_PORT), id="port 1"),
        pytest.param(Hello(1, "bob", 1023), failure(Code.BAD_PORT), id="port 1023"),
        pytest.param(Hello(1, "bob", 1024), Hello(1, "bob", 1024), id="port 1024"),
        pytest.param(Hello(1, "bob", 65535), Hello(1, "bob", 65535), id="port 65535"),
        pytest.param(Hello(1, "bob", 65536), failure(Code.BAD_PORT), id="port 65536"),
        pytest.param(Hello(1, "Jose\u0301", 0), Hello(1, "Jos\u00e9", 0), id="name composed"),
    ],
)
def test_hello_is_checked(hello: Hello, event: Event) -> None:
    assert ServerWire().receive(encode(hello)) == [event]


@pytest.mark.attack(37)
@pytest.mark.parametrize(
    ("stream", "answer"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhi\n", b"HTTP/1.1 400 error: "),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 400 error: "),
        (b"GET /\r\n", b"error: "),
        (b"EHLO a.example\r\n", b"error: "),
        (b"SSH-2.0-x\r\n", b"error: "),
    ],
)
def test_other_protocol_ends_the_connection_and_nothing_of_it_is_read(stream: bytes, answer: bytes) -> None:
    wire = ServerWire()
    assert wire.receive(stream) == [failure(Code.OTHER_PROTOCOL)]
    assert wire.state is State.ENDED
    assert wire.receive(b"click here\n") == []
    last_words = wire.farewell(Code.OTHER_PROTOCOL)
    assert last_words.startswith(answer)
    assert last_words.count(b"\n") == 1


@pytest.mark.attack(37)
def test_tls_is_refused_at_its_first_byte() -> None:
    wire = ServerWire()
    [event] = wire.receive(b"\x16")
    assert isinstance(event, Failure)
    assert event.code is Code.OTHER_PROTOCOL
    assert wire.receive(b"\x03\x01\nbob\nhi\n") == []


@pytest.mark.attack(37)
def test_empty_line_before_a_request_does_not_hide_it() -> None:
    wire = ServerWire()
    [event] = wire.receive(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(event, Failure)
    assert wire.receive(b"hi\n") == []


def test_name_of_another_protocol_in_a_hello_is_a_name() -> None:
    assert ServerWire().receive(encode(Hello(1, "USER bob", 0))) == [Hello(1, "USER bob", 0)]


def test_request_is_a_message_like_any_other_after_the_first_line() -> None:
    assert ServerWire().receive(b"bob\nGET / HTTP/1.1\n") == [Guest("bob"), Text(b"GET / HTTP/1.1\n")]


def test_welcome_repeats_what_was_agreed() -> None:
    wire = ServerWire()
    [hello] = wire.receive(encode(Hello(99, "Jose\u0301", 0)))
    assert isinstance(hello, Hello)
    assert ClientWire().receive(wire.welcome(hello)) == [Welcome(1, "Jos\u00e9")]


@pytest.mark.parametrize("name", ["", " ", "x" * 33, "a:b", "\x1b[31m", "bob ", "\u202ebob", "ERROR"], ids=ascii)
def test_row_26_bad_name_ends_the_connection_with_a_code(name: str) -> None:
    for line in [f"{name}\n".encode(), encode(Hello(1, name, 0))]:
        wire = ServerWire()
        [event] = wire.receive(line)
        assert isinstance(event, Failure)
        assert event.code is Code.BAD_NAME
        assert event.text == safe_line(event.text)
        assert wire.state is State.ENDED


# --- text and records -------------------------------------------------------------------------


def test_lines_are_one_text_as_long_as_no_record_comes_between() -> None:
    stream = b"one\r\n\ntwo\n" + encode(GET) + encode(Have("f0", 1, ("sha256",))) + b"three\n"
    assert opened(ServerWire, HELLO).receive(stream) == [
        Text(b"one\n\ntwo\n"),
        GET,
        Have("f0", 1, ("sha256",)),
        Text(b"three\n"),
    ]


def test_guest_and_messages_come_in_one_piece() -> None:
    assert ServerWire().receive(b"bob\r\none\r\ntwo\nthr") == [Guest("bob"), Text(b"one\ntwo\n")]


def test_nothing_happens_before_a_line_is_whole() -> None:
    wire = ServerWire()
    assert [wire.receive(data) for data in (b"", b"bo", b"b", b"\n", b"hi", b"\r", b"\n")] == [
        [],
        [],
        [],
        [Guest("bob")],
        [],
        [],
        [Text(b"hi\n")],
    ]


def test_samples_are_of_every_kind() -> None:
    assert [type(sample).__name__ for sample in SAMPLES] == sorted({kind.__name__ for kind in Record.__subclasses__()})


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
@pytest.mark.parametrize(
    ("side", "opening", "allowed", "otherwise"),
    [
        pytest.param(ServerWire, b"", (Hello, Relay), failure(Code.UNEXPECTED), id="server-start"),
        pytest.param(
            ServerWire, HELLO, (Get, Have, List, Ping, Private, Refuse), failure(Code.UNEXPECTED), id="server-client"
        ),
        pytest.param(ServerWire, PROVING, (Proof,), failure(Code.UNEXPECTED), id="server-proving"),
        pytest.param(ClientWire, b"", (Challenge, Welcome, Refused), STRANGER, id="client-start"),
        pytest.param(
            ClientWire,
            WELCOME,
            (Ack, Want, Take, Fail, Dial, Error, Note, Pong, Private, Rooms, Undelivered),
            failure(Code.UNEXPECTED),
            id="client-client",
        ),
    ],
)
def test_row_27_record_is_taken_only_where_it_belongs(
    side: Side, opening: bytes, allowed: tuple[type[Record], ...], otherwise: Failure, record: Record
) -> None:
    expected = record if isinstance(record, allowed) else otherwise
    assert opened(side, opening).receive(encode(record)) == [expected]


@pytest.mark.parametrize("said", [b"hi\n", UNKNOWN + b"hi\n", b"\n"])
def test_nothing_is_said_before_the_client_has_proved_who_it_is(said: bytes) -> None:
    assert opened(ServerWire, PROVING).receive(said + encode(Proof("c2ln"))) == [failure(Code.UNEXPECTED)]


def test_client_may_speak_right_behind_its_proof() -> None:
    wire = opened(ServerWire, PROVING)
    assert wire.receive(UNKNOWN + encode(Proof("c2ln")) + b"hi\n") == [Proof("c2ln"), Text(b"hi\n")]


def test_client_is_let_in_after_a_challenge_however_both_come() -> None:
    assert ClientWire().receive(encode(Challenge("f0")) + encode(Welcome(1, "ann")) + b"bob: hi\n") == [
        Challenge("f0"),
        Welcome(1, "ann"),
        Text(b"bob: hi\n"),
    ]


def test_client_is_let_in_after_a_challenge() -> None:
    wire = opened(ClientWire, encode(Challenge("f0")))
    assert wire.state is State.START
    assert wire.receive(WELCOME) == [Welcome(1, "bob")]


def test_row_27_second_hello_ends_the_connection() -> None:
    assert ServerWire().receive(HELLO + HELLO + b"hi\n") == [Hello(1, "bob", 0), failure(Code.UNEXPECTED)]


def test_row_27_record_before_hello_ends_the_connection() -> None:
    wire = ServerWire()
    assert wire.receive(encode(GET) + HELLO) == [failure(Code.UNEXPECTED)]
    assert wire.receive(HELLO) == []


def test_row_27_unknown_kind_is_no_hello() -> None:
    assert ServerWire().receive(UNKNOWN + HELLO) == [failure(Code.UNEXPECTED)]


@pytest.mark.parametrize(("side", "opening"), [(ServerWire, HELLO), (ClientWire, WELCOME)], ids=["server", "client"])
def test_row_27_unknown_kind_is_ignored_later(side: Side, opening: bytes) -> None:
    assert opened(side, opening).receive(UNKNOWN + b"a\n" + UNKNOWN + b"b\n") == [Text(b"a\n"), Text(b"b\n")]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"\x01\n", id="empty"),
        pytest.param(b"\x01not JSON\n", id="not JSON"),
        pytest.param(b"\x01" + b"[" * 8000 + b"\n", id="deep nesting"),
        pytest.param(b'\x01{"t":"get","id":"1","owner":"a","file":"b"}\n', id="wrong type"),
        pytest.param(b'\x01{"t":"get","id":' + b"9" * 8000 + b',"owner":"a","file":"b"}\n', id="huge integer"),
        pytest.param(b'\x01{"t":"want","ticket":"f0"}\n', id="missing field"),
    ],
)
@pytest.mark.parametrize(("side", "opening"), [(ServerWire, HELLO), (ClientWire, WELCOME)], ids=["server", "client"])
def test_row_27_malformed_record_is_a_coded_failure(side: Side, opening: bytes, line: bytes) -> None:
    wire = opened(side, opening)
    assert wire.receive(b"before\n" + line + b"after\n") == [Text(b"before\n"), failure(Code.BAD_RECORD)]
    assert (wire.receive(b"later\n"), wire.state) == ([], State.ENDED)


def test_nothing_comes_after_the_servers_last_words() -> None:
    wire = opened(ClientWire, WELCOME)
    assert wire.receive(b"hi\n" + encode(Error("shutdown", "x")) + b"more\n") == [Text(b"hi\n"), Error("shutdown", "x")]
    assert (wire.receive(b"more\n"), wire.state) == ([], State.ENDED)


def test_what_a_data_connection_says_before_go_is_dropped() -> None:
    wire = ServerWire()
    assert wire.receive(RELAY + b"hi\n" + MALFORMED) == [Relay("k")]
    assert (wire.receive(HELLO), wire.state) == ([], State.RELAY)


@pytest.mark.parametrize("opening", [GUEST, HELLO, WELCOME], ids=["guest", "client", "member"])
def test_row_25_text_is_made_harmless(opening: bytes) -> None:
    wire = opened(ClientWire if opening is WELCOME else ServerWire, opening)
    raw = b"\xff \x00 \x1b[2J \xc2\x9b \xe2\x80\xae a\rb \x01{} \x7f\r\n"
    shown = "\ufffd \u2400 \u241b[2J \ufffd \ufffd a\u240db \u2401{} \u2421\n"
    assert wire.receive(raw) == [Text(shown.encode())]


def test_row_25_soh_in_a_guests_line_is_text() -> None:
    assert ServerWire().receive(b"bob\n" + HELLO) == [Guest("bob"), Text(b"\xe2\x90\x81" + HELLO[1:])]


def test_row_25_soh_inside_a_clients_text_starts_no_record() -> None:
    assert opened(ServerWire, HELLO).receive(b"a" + encode(GET)) == [Text(b"a\xe2\x90\x81" + encode(GET)[1:])]


def test_row_25_plain_refusal_is_made_harmless() -> None:
    assert ClientWire().receive(b"error: \x1b[2J\xff\x01\n") == [Refused("failed", "\u241b[2J\ufffd\u2401")]


# --- too much of it ---------------------------------------------------------------------------

LIMITS = pytest.mark.parametrize(
    ("side", "opening", "limit"),
    [
        pytest.param(ServerWire, GUEST, MAX_LINE, id="guest"),
        pytest.param(ServerWire, HELLO, MAX_LINE, id="client"),
        pytest.param(ClientWire, WELCOME, MAX_DELIVERY, id="member"),
    ],
)


@pytest.mark.parametrize("start", [b"", b"\x01"], ids=["text", "record"])
@LIMITS
def test_row_24_line_without_end_is_refused_and_memory_is_bounded(
    side: Side, opening: bytes, limit: int, start: bytes
) -> None:
    wire = opened(side, opening)
    assert received(wire, [start, *[b"x" * 1000] * 1000]) == [failure(Code.LINE_TOO_LONG)]
    assert len(wire._lines._rest) <= limit


@pytest.mark.parametrize("side", [ServerWire, ClientWire])
def test_row_24_first_line_without_end_is_refused(side: Side) -> None:
    assert received(side(), [b"x" * 1000] * 1000) == [failure(Code.LINE_TOO_LONG)]


@LIMITS
def test_row_24_line_at_the_limit_comes_whole(side: Side, opening: bytes, limit: int) -> None:
    line = b"x" * limit + b"\n"
    assert opened(side, opening).receive(line) == [Text(line)]
    assert received(opened(side, opening), [line[:-1], line[-1:]]) == [Text(line)]


@LIMITS
def test_row_24_line_end_does_not_count(side: Side, opening: bytes, limit: int) -> None:
    assert opened(side, opening).receive(b"x" * limit + b"\r\n") == [Text(b"x" * limit + b"\n")]


@LIMITS
def test_row_24_line_over_the_limit_is_refused_not_truncated(side: Side, opening: bytes, limit: int) -> None:
    line = b"x" * (limit + 1) + b"\n"
    assert opened(side, opening).receive(line + b"hi\n") == [failure(Code.LINE_TOO_LONG)]
    assert received(opened(side, opening), [line[:10], line[10:], b"hi\n"]) == [failure(Code.LINE_TOO_LONG)]


@pytest.mark.parametrize(("side", "opening"), [(ServerWire, HELLO), (ClientWire, WELCOME)], ids=["server", "client"])
def test_row_24_record_over_the_limit_is_refused(side: Side, opening: bytes) -> None:
    line = b'\x01{"t":"go","x":"%s"}\n' % (b"x" * MAX_RECORD)
    assert opened(side, opening).receive(line) == [failure(Code.LINE_TOO_LONG)]


def agreed(*, record: int) -> ServerWire:
    """Return the wire of a client that was welcomed and reads records of so many bytes."""
    wire = ServerWire()
    wire.welcome(Hello(1, "bob", 0, record=record))
    wire.receive(HELLO)
    return wire


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("cuts", [[], [5, 9_000, 20_000]])
def test_longest_record_comes_whole_among_lines(end: bytes, cuts: list[int]) -> None:
    frame = len(encode(Private("ann", ""))) - 1
    record = Private("ann", "x" * (MAX_RECORD - frame))
    stream = b"one\n" * 3_000 + encode(record, MAX_RECORD)[:-1] + end + b"two\n"
    events = joined(received(agreed(record=MAX_RECORD), pieces(stream, cuts)))
    assert events == [Text(b"one\n" * 3_000), record, Text(b"two\n")]


@pytest.mark.parametrize("cuts", [[], [5, 9_000, 20_000]])
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"\x01" + b"x" * MAX_RECORD, id="record over the limit of records"),
        pytest.param(b"x" * (MAX_LINE + 1), id="text over the limit of text"),
        pytest.param(b"x\x01" + b"x" * MAX_LINE, id="text with SOH in it"),
    ],
)
def test_row_24_line_over_the_limit_of_its_kind_is_refused(line: bytes, cuts: list[int]) -> None:
    stream = b"one\n" + encode(GET) + line + b"\ntwo\n"
    events = received(agreed(record=MAX_RECORD), pieces(stream, cuts))
    assert events == [Text(b"one\n"), GET, failure(Code.LINE_TOO_LONG)]


@pytest.mark.parametrize(
    ("read", "sent"), [(0, MAX_LINE), (1, MAX_LINE), (20_000, 20_000), (MAX_RECORD, MAX_RECORD), (2**40, MAX_RECORD)]
)
def test_client_is_sent_no_longer_records_than_it_reads(read: int, sent: int) -> None:
    assert agreed(record=read).longest == sent


def test_server_says_the_longest_record_that_it_reads_to_who_said_its_own() -> None:
    hello = Hello(1, "bob", 0, record=20_000)
    assert ClientWire().receive(ServerWire().welcome(hello)) == [Welcome(1, "bob", record=MAX_RECORD)]
    assert ServerWire().welcome(Hello(1, "bob", 0)) == WELCOME


def test_client_that_said_nothing_of_records_sends_none_over_a_line() -> None:
    assert agreed(record=0).receive(b"\x01" + b"x" * MAX_LINE) == [failure(Code.LINE_TOO_LONG)]


def test_row_24_lines_before_a_line_over_the_limit_are_kept() -> None:
    stream = b"bob\nhi\n" + b"x" * (MAX_LINE + 1)
    assert ServerWire().receive(stream) == [Guest("bob"), Text(b"hi\n"), failure(Code.LINE_TOO_LONG)]


# --- any bytes at all -------------------------------------------------------------------------


@EVERY_STATE
def test_every_state_is_reached(side: Side, opening: bytes, state: State) -> None:
    assert opened(side, opening).state is state


@EVERY_STATE
@given(parts=st.lists(LINES | st.binary() | st.just(b"x" * 30_000) | st.just(b"\x01" + b"[" * 8000 + b"\n")))
def test_row_27_any_bytes_make_events(side: Side, opening: bytes, state: State, parts: list[bytes]) -> None:
    wire = opened(side, opening)
    for part in parts:
        ended = wire.state is State.ENDED
        events = wire.receive(part)
        assert all(isinstance(event, Guest | Text | Failure | Record) for event in events)
        assert not (ended and events)
        assert not any(isinstance(event, Failure) for event in events[:-1])
        assert (wire.state is State.ENDED) or not any(isinstance(event, Failure) for event in events)


@EVERY_STATE
@given(parts=st.lists(LINES | st.binary()))
def test_row_25_any_text_is_whole_lines_and_safe(side: Side, opening: bytes, state: State, parts: list[bytes]) -> None:
    for event in received(opened(side, opening), parts):
        if isinstance(event, Text):
            *lines, end = event.block.decode().split("\n")
            assert lines
            assert end == ""
            assert not any(map(UNSAFE.search, lines))


@pytest.mark.parametrize(
    ("side", "opening"),
    [
        pytest.param(ServerWire, b"", id="server"),
        pytest.param(ServerWire, GUEST, id="guest"),
        pytest.param(ServerWire, HELLO, id="client"),
        pytest.param(ServerWire, RELAY, id="relay"),
        pytest.param(ClientWire, WELCOME, id="member"),
        pytest.param(
            ClientWire,
            REFUSED,
            id="refused",
        ),
        pytest.param(
            ClientWire,
            b"error: full\n",
            id="refused in plain text",
        ),
    ],
)
@given(lines=st.lists(LINES), cuts=st.lists(st.integers(0)))
@example(lines=[b"hi\n"], cuts=[])
def test_where_the_stream_is_cut_makes_no_difference(
    side: Side, opening: bytes, lines: list[bytes], cuts: list[int]
) -> None:
    stream = opening + b"".join(lines)
    by_line = received(side(), [opening, *lines])
    assert joined(received(side(), pieces(stream, cuts))) == joined(by_line)
    assert joined(received(side(), [stream])) == joined(by_line)


# --- last words and messages ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        pytest.param(b"", b"error: x\n", id="nothing said"),
        pytest.param(b"x" * (MAX_LINE + 1), b"error: x\n", id="line too long"),
        pytest.param(GUEST, b"error: x\n", id="guest"),
        pytest.param(b"a:b\n", b"error: x\n", id="guest with a bad name"),
        pytest.param(HELLO, encode(Refused("shutdown", "x")), id="client not welcomed"),
        pytest.param(MALFORMED, encode(Refused("shutdown", "x")), id="client with a bad hello"),
        pytest.param(RELAY, encode(Sorry("shutdown", "x")), id="data connection"),
    ],
)
def test_last_words_are_in_the_form_the_peer_understands(opening: bytes, words: bytes) -> None:
    wire = ServerWire()
    wire.receive(opening)
    assert wire.farewell(Code.SHUTDOWN, "x") == words


def test_last_words_to_a_welcomed_client_are_an_error() -> None:
    wire = ServerWire()
    wire.welcome(Hello(1, "bob", 0))
    assert wire.farewell(Code.SHUTDOWN) == encode(Error("shutdown", sentence(Code.SHUTDOWN)))


@pytest.mark.parametrize("code", Code)
def test_last_words_to_whoever_said_nothing_are_understood_by_a_client(code: Code) -> None:
    assert ClientWire().receive(ServerWire().farewell(code)) == [Refused("failed", sentence(code))]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("hi", b"hi\n", id="plain"),
        pytest.param("", b"\n", id="empty"),
        pytest.param("caf\u00e9", b"caf\xc3\xa9\n", id="not ASCII"),
        pytest.param("a\nb\r", "a\u240ab\u240d\n".encode(), id="line ends"),
        pytest.param("\x01{}", "\u2401{}\n".encode(), id="SOH"),
        pytest.param("caf\udce9", b"caf?\n", id="lone surrogate"),
        pytest.param("x" * MAX_LINE, b"x" * MAX_LINE + b"\n", id="longest"),
    ],
)
def test_message_is_one_line(text: str, line: bytes) -> None:
    assert message_line(text) == line


@pytest.mark.parametrize("text", ["x" * (MAX_LINE + 1), "\u00e9" * (MAX_LINE // 2 + 1)], ids=["ASCII", "not ASCII"])
def test_row_24_message_over_the_limit_is_not_sent(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"8192 bytes: send it in parts") as refused:
        message_line(text)
    assert refused.value.code is Code.LINE_TOO_LONG


@given(st.text(st.characters(exclude_categories=[])))
@example("\x01{}")
def test_message_arrives_as_it_was_sent(text: str) -> None:
    line = message_line(text)
    assert safe_block(line) == line
    assert opened(ServerWire, HELLO).receive(line) == [Text(line)]


def test_last_line_of_a_guest_may_lack_its_end() -> None:
    wire = ServerWire()
    wire.receive(b"ann\nhi\nthe last")
    assert wire.end() == [Text(b"the last\n")]
    assert wire.end() == []


def test_last_line_of_a_client_needs_its_end() -> None:
    wire = ServerWire()
    wire.receive(encode(Hello(1, "ann", 0)) + b"the last")
    assert wire.end() == []


def test_byte_order_mark_is_no_part_of_a_guests_name() -> None:
    assert ServerWire().receive(b"\xef\xbb\xbfann\n") == [Guest("ann")]
