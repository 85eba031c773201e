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

_UNSAFE_IN_BLOCK: Final = re.compile(UNSAFE.pattern.replace("\x0a-", "\x0b-"))
_UNSAFE_ASCII: Final = bytes(code for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n")


def safe_line(text: str) -> str:
    """*text* with every unsafe character replaced by a visible one, line ends included."""
    return UNSAFE.sub(_visible, text)


def safe_block(block: bytes) -> bytes:
    """A block of whole lines as valid UTF-8 with LF line ends and nothing unsafe in it.

    Invalid bytes become U+FFFD. A block grows at most threefold (`limits.MAX_DELIVERY` counts on that).
    """
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if block.isascii() and len(block.translate(None, _UNSAFE_ASCII)) == len(block):  # much less than a search takes
        return block
    return _UNSAFE_IN_BLOCK.sub(_visible, block.decode(errors="replace")).encode()


def _visible(match: re.Match[str]) -> str:
    point = ord(match[0])
    if point < 0x20:
        return chr(0x2400 + point)  # the control pictures: ESC shows as one sign that says ESC
    return "\u2421" if point == 0x7F else "\ufffd"
