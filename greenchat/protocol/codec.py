"""Records as lines: SOH, one flat JSON object whose ``t`` names the kind, LF."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from greenchat.errors import Code, ProtocolError
from greenchat.protocol.limits import MAX_ALGORITHM_NAME, MAX_ALGORITHMS, MAX_LINE, MAX_NUMBER
from greenchat.protocol.records import Addresses, Algorithms, Record
from greenchat.protocol.text import UNSAFE

__all__ = ["SOH", "decode", "encode"]

SOH: Final = b"\x01"
"""Starts a record's line; text never contains it."""


def _number(value: Any) -> int:
    if type(value) is int and 0 <= value <= MAX_NUMBER:  # a bool is no number
        return value
    raise ValueError


def _string(value: Any) -> str:
    if isinstance(value, str):
        value.encode()  # JSON can spell lone surrogates, which no UTF-8 can
        return value
    raise ValueError


def _addresses(value: Any) -> Addresses:
    if isinstance(value, list | tuple):
        return tuple((_string(host), _number(port)) for host, port in value)
    raise ValueError


def _algorithms(value: Any) -> Algorithms:
    if isinstance(value, list | tuple) and len(value) <= MAX_ALGORITHMS:
        names = tuple(map(_string, value))
        if all(len(name) <= MAX_ALGORITHM_NAME for name in names):
            return names
    raise ValueError


def _no_constant(_name: str) -> None:
    raise ValueError  # NaN and the infinities are Python's, not JSON's


_READERS: Final[dict[object, Callable[[Any], object]]] = {
    int: _number,
    str: _string,
    Addresses: _addresses,
    Algorithms: _algorithms,
}

_FIELDS: Final[dict[type[Record], dict[str, Callable[[Any], object]]]] = {
    kind: {name: _READERS[hint] for name, hint in kind.FIELDS.items()} for kind in Record.__subclasses__()
}

_KINDS: Final[dict[str, type[Record]]] = {kind.__name__.lower(): kind for kind in _FIELDS}


def encode(record: Record, limit: int = MAX_LINE) -> bytes:
    """Return *record* as one line: UTF-8, with escapes for what could harm a terminal or a parser alone.

    Raises `ProtocolError` if the line would have more than *limit* bytes, or a value in it cannot be sent.
    """
    kind = type(record)
    try:
        fields = {name: read(getattr(record, name)) for name, read in _FIELDS[kind].items()}
        fields = {name: value for name, value in fields.items() if kind.DEFAULTS.get(name) != value}
    except ValueError:  # a number out of range, or a text with a lone surrogate
        raise ProtocolError(Code.BAD_RECORD) from None
    text = json.dumps({"t": kind.__name__.lower()} | fields, separators=(",", ":"), ensure_ascii=False)
    line = SOH + UNSAFE.sub(_escaped, text).encode()
    if len(line) > limit:
        raise ProtocolError(Code.LINE_TOO_LONG)
    return line + b"\n"


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def decode(line: bytes) -> Record | None:
    """The record in *line*, given without its SOH and its line end; None if its kind is unknown.

    Unknown fields are ignored. Raises `ProtocolError` if the line is no JSON object, names no kind,
    or lacks a field or has one of the wrong type.
    """
    try:
        fields = json.loads(line.decode(), parse_constant=_no_constant)
        kind = _KINDS.get(_string(fields["t"]))
        if kind is None:
            return None
        fields = kind.DEFAULTS | fields
        return kind(**{name: read(fields[name]) for name, read in _FIELDS[kind].items()})
    # in this order: not JSON, or a wrong value; a wrong shape; a missing field; nested too deep
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ProtocolError(Code.BAD_RECORD) from None
