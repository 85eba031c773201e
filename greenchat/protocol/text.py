"""Text made safe to show: nothing that a peer wrote reaches a terminal, a log or a parser raw."""

import re
from typing import Final

__all__ = ["INVISIBLE", "MARK", "UNSAFE", "safe_block", "safe_line"]

MARK: Final = "\u258c"
"""The first character of the program's own lines on a terminal: "▌", left half block.

No name contains it, and no line that went through `safe_line` or `safe_block` begins with it, so a line
that does is the program's. Put it before a line that is safe already: both functions would replace it.
"""

INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u2d7f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\U0001107f\U00013440-\U00013442\U00016fe4\U0001bc9d\U0001bca0-\U0001bca3"
    "\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters without a glyph, for a class of a regular expression.

Default_Ignorable_Code_Point of UAX #44, and those whose glyph is blank though no property says so:
the blanks of Braille and of Egyptian hieroglyphs, a null notehead, fillers, joiners, object placeholders.
"""

# The direction marks and overrides of UAX #9, which can make a line read as another (CVE-2021-42574),
# and the two separators that some terminals and parsers take for line ends.
_DIRECTION: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SEPARATORS: Final = "\u2028\u2029"

UNSAFE: Final = re.compile(f"[\x00-\x08\x0a-\x1f\x7f-\x9f{_DIRECTION}{_SEPARATORS}]")
"""A character that must not be shown raw: C0 (tab excepted), DEL, C1, direction controls, separators."""

_UNSAFE_ASCII: Final = bytes(code for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n")
_UNSAFE_BEYOND: Final = re.compile(f"[\x80-\x9f{_DIRECTION}{_SEPARATORS}]")

_SPACES: Final = "\t \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_LEADING_MARK: Final = re.compile(f"^([{_SPACES}{INVISIBLE}]*){MARK}", re.MULTILINE)


def safe_line(text: str) -> str:
    """Return *text* as one line in which nothing is unsafe: what was is replaced by something visible."""
    return _without_mark(UNSAFE.sub(_visible, text))


def safe_block(block: bytes) -> bytes:
    """Return a block of whole lines as valid UTF-8 with LF line ends and nothing unsafe in it.

    Invalid bytes become U+FFFD. A block grows at most threefold (`limits.MAX_DELIVERY` counts on that).
    """
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if len(block.translate(None, _UNSAFE_ASCII)) < len(block):  # much less than a search takes
        block = _safe_ascii(block)
    if block.isascii():
        return block
    text = block.decode(errors="replace")
    return _without_mark(text.translate(_VISIBLE_BEYOND) if _UNSAFE_BEYOND.search(text) else text).encode()


def _without_mark(text: str) -> str:
    """Return *text* with `MARK` replaced where a line begins with it, after blanks or not."""
    return _LEADING_MARK.sub("\\1\ufffd", text) if MARK in text else text


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


_VISIBLE_BEYOND: Final = {
    ord(unsafe): _picture(ord(unsafe)) for unsafe in _UNSAFE_BEYOND.findall("".join(map(chr, range(0x80, 0x2070))))
}
