"""Targets of pure code: each takes any bytes, and raises only what is a mistake of ours."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from greenchat.cli import arguments
from greenchat.client.menu import MENU, run_menu
from greenchat.errors import BadName, Code, ProtocolError, SecurityError
from greenchat.protocol.codec import SOH, decode, encode
from greenchat.protocol.foreign import is_foreign
from greenchat.protocol.joiners import JOINERS
from greenchat.protocol.limits import MAX_DELIVERY, MAX_LINE, MAX_NAME_CHARACTERS
from greenchat.protocol.names import file_name, looks, name_key, user_name
from greenchat.protocol.text import MARK, UNSAFE, safe_block, safe_line
from greenchat.protocol.wire import ClientWire, Event, Failure, ServerWire, Text, message_line
from greenchat.security.keys import certificate_in, signed_by
from greenchat.security.known import Known
from greenchat.security.proof import certificate_of, is_proof

_DIRECTORY = tempfile.TemporaryDirectory()
_SCRATCH = Path(_DIRECTORY.name)


def pieces(data: bytes) -> Iterator[bytes]:
    """*data* as it may come from a socket: its own bytes say where it is cut."""
    while data:
        size = data[0] ** 2 // 8 + 1
        yield data[:size]
        data = data[size:]


def record(data: bytes) -> None:
    """What is a record is the same one after it was sent on."""
    try:
        found = decode(data)
    except ProtocolError as error:
        assert error.code is Code.BAD_RECORD
        return
    if found is not None:
        try:
            line = encode(found)
        except ProtocolError as error:
            assert error.code is Code.LINE_TOO_LONG  # escapes may take more room than what they stand for
            return
        assert line.startswith(SOH)
        assert line.endswith(b"\n")
        assert decode(line[1:-1]) == found


def server_wire(data: bytes) -> None:
    """What a server reads of a connection."""
    _wire(ServerWire, data, MAX_LINE)
    wire = ServerWire()
    wire.receive(data)
    assert UNSAFE.search(wire.farewell(Code.FAILED)[1:-1].decode()) is None
    first, end, _ = data.partition(b"\n")
    if end and len(first) < MAX_LINE and not first.startswith(SOH) and is_foreign(first.removesuffix(b"\r")):
        assert [type(event) for event in ServerWire().receive(data)] == [Failure]


def client_wire(data: bytes) -> None:
    """What a client reads of its server."""
    _wire(ClientWire, data, MAX_DELIVERY)


def _wire(kind: type[ServerWire] | type[ClientWire], data: bytes, limit: int) -> None:
    """However it is cut, the same is said, all of it is safe, and no more is kept than a line."""
    whole, cut = kind(), kind()
    at_once = whole.receive(data)
    by_pieces: list[Event] = []
    for piece in pieces(data):
        by_pieces += cut.receive(piece)
        assert len(cut._lines._rest) <= limit + len("\r")
    assert _said(at_once) == _said(by_pieces)
    assert whole.state is cut.state
    for event in at_once:
        if isinstance(event, Text):
            assert event.block.endswith(b"\n")
            assert UNSAFE.search(event.block.decode().replace("\n", "")) is None


def _said(events: list[Event]) -> list[object]:
    """Texts that follow one another are one; where a rule was broken, nothing comes after."""
    said: list[object] = []
    for event in events:
        if isinstance(event, Text) and said and isinstance(said[-1], bytes):
            said[-1] += event.block
        else:
            said.append(event.block if isinstance(event, Text) else event)
    assert not any(isinstance(event, Failure) for event in events[:-1])
    return said


def name(data: bytes) -> None:
    """Names, and the names of files."""
    text = data.decode(errors="surrogateescape")
    try:
        found = user_name(text)
    except BadName as error:
        assert error.code is Code.BAD_NAME
    else:
        assert user_name(found) == found
        assert 1 <= len(found) <= MAX_NAME_CHARACTERS
        assert UNSAFE.search(found) is None
        assert not {":", MARK} & set(found)
        assert ":" not in looks(found)[0]
        assert name_key(user_name(found.translate(JOINERS))) == name_key(found)
        assert name_key(name_key(found)) == name_key(found)
        assert looks(found) == looks(found)
    try:
        plain = file_name(text)
    except BadName as error:
        assert error.code is Code.BAD_FILE_NAME
    else:
        assert (_SCRATCH / plain).parent == _SCRATCH
        assert not plain.startswith(".")


def text(data: bytes) -> None:
    """Text that is made safe to show."""
    block = data + b"\n"
    safe = safe_block(block)
    assert UNSAFE.search(safe.decode().replace("\n", "")) is None
    assert safe.count(b"\n") == block.count(b"\n")
    assert len(safe) <= 3 * len(block)
    assert safe_block(safe) == safe
    assert not any(shown.strip().startswith(MARK) for shown in safe.decode().split("\n"))
    line = data.decode(errors="replace")
    assert UNSAFE.search(safe_line(line)) is None
    try:
        sent = message_line(line)
    except ProtocolError as error:
        assert error.code is Code.LINE_TOO_LONG
    else:
        assert sent.count(b"\n") == 1
        assert len(sent) <= MAX_LINE + 1


def key(data: bytes) -> None:
    """Certificates, signatures, and files that a user may have edited."""
    words = data.decode(errors="replace")
    path = _SCRATCH / "file"
    path.write_bytes(data)
    for who, mark in Known(path).all().items():
        assert Known(path).find(who) == mark
    try:
        certificate_in(path)
    except SecurityError as error:
        assert error.code is Code.BAD_KEY
    try:
        certificate = certificate_of(words)
    except ProtocolError as error:
        assert error.code is Code.BAD_PROOF
        certificate = data
    assert not signed_by(certificate, data[:64], b"message")
    assert not is_proof(words, certificate, "nonce", b"server", "name")


_ARGUMENTS: list[Callable[[str], object]] = [
    *(getattr(arguments, name) for name in arguments.__all__ if name.islower() and name != "host"),
    partial(arguments.host, port_goes="after it"),
]


def argument(data: bytes) -> None:
    """What stands on a command line."""
    words = data.decode(errors="surrogateescape")
    for read in _ARGUMENTS:
        try:
            read(words)
        except argparse.ArgumentTypeError as error:
            assert "\n" not in str(error)


class _User:
    """Whom a menu serves."""

    def show(self, line: str) -> None:
        assert line == MENU or line.endswith((":", "?"))

    def hint(self, line: str) -> None:
        assert "\n" not in line

    def send(self, text: str) -> None:
        assert "\n" not in text

    def request(self, owner: str, file: str) -> None:
        assert "\n" not in owner + file

    def answer(self, number: int, *, yes: bool) -> None:
        assert number >= 0
        assert yes in (True, False)

    def reject(self, line: str) -> None:
        assert "\n" not in line

    def help(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


def menu(data: bytes) -> None:
    """What a user types."""
    run_menu(iter(data.decode(errors="replace").split("\n")), _User())


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (record, server_wire, client_wire, name, text, key, argument, menu)
}
