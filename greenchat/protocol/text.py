"""Text made safe to show: nothing that a peer wrote reaches a terminal, a log or a parser raw."""

import re
from typing import Final

__all__ = ["UNSAFE", "safe_block", "safe_line"]

# The direction marks and overrides of UAX #9, which can make a line read as another (CVE-2021-42574),
# and the two separators that some terminals and parsers take for line ends.
_DIRECTION: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SEPARATORS: Final = "\u2028\u2029"

UNSAFE: Final = re.compile(f"[\x00-\x08\x0a-\x1f\x7f-\x9f{_DIRECTION}{_SEPARATORS}]")
"""A character that must not be shown raw: C0 (tab excepted), DEL, C1, direction controls, separators."""

_UNSAFE_ASCII: Final = bytes(code for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n")
_UNSAFE_BEYOND: Final = re.compile(f"[\x80-\x9f{_DIRECTION}{_SEPARATORS}]")


def safe_line(text: str) -> str:
    """*text* with every unsafe character replaced by a visible one, line ends included."""
    return UNSAFE.sub(_visible, text)


def safe_block(block: bytes) -> bytes:
    """A block of whole lines as valid UTF-8 with LF line ends and nothing unsafe in it.

    Invalid bytes become U+FFFD. A block grows at most threefold (`limits.MAX_DELIVERY` counts on that).
    """
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if len(block.translate(None, _UNSAFE_ASCII)) < len(block):  # much less than a search takes
        block = _safe_ascii(block)
    if block.isascii():
        return block
    text = block.decode(errors="replace")
    return (text.translate(_VISIBLE_BEYOND) if _UNSAFE_BEYOND.search(text) else text).encode()


def _safe_ascii(block: bytes) -> bytes:
    """By as many replacements as there are kinds, because somebody may send a block of nothing else."""
    for code in set(block) & set(_UNSAFE_ASCII):
        block = block.replace(bytes([code]), _picture(code).encode())
    return block


def _visible(match: re.Match[str]) -> str:
    return _picture(ord(match[0]))


def _picture(point: int) -> str:
    """The control pictures: ESC shows as one sign that says ESC; what has none, as one that could not be read."""
    if point < 0x20:
        return chr(0x2400 + point)
    return "\u2421" if point == 0x7F else "\ufffd"


_VISIBLE_BEYOND: Final = {point: _picture(point) for point in range(0x80, 0x2070) if _UNSAFE_BEYOND.match(chr(point))}
