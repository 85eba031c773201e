"""Joiners and emoji selectors in user names: characters without a glyph that some scripts and emoji need.

UAX #31 and UTS #39 let them into identifiers in contexts where they change what is seen. Anywhere else they show as
nothing and are refused. Two names that differ in them alone look alike, whatever the context.
"""

import unicodedata
from typing import Final

__all__ = ["JOINERS", "without_joiners"]

_NON_JOINER: Final = "\u200c"
_JOINER: Final = "\u200d"
_EMOJI_SELECTOR: Final = "\ufe0f"

JOINERS: Final = {ord(joiner): None for joiner in (_NON_JOINER, _JOINER, _EMOJI_SELECTOR)}
"""A table for `str.translate` that removes joiners and selectors, wherever they are."""

_VIRAMA: Final = 9
"""The combining class of signs that suppress a vowel, and join the consonants around them."""

_SKIN_TONES: Final = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_EMOJI_ELSEWHERE: Final = "\u203c\u2049\u2139\u3030"
"""Emoji that are not symbols in Unicode's categories."""


def without_joiners(name: str) -> str:
    """Return *name* without the joiners and selectors that have a place where they are."""
    return "".join(
        character
        for at, character in enumerate(name)
        if ord(character) not in JOINERS or not _has_place(character, name[:at], name[at + 1 :])
    )


def _has_place(joiner: str, before: str, after: str) -> bool:
    if joiner == _EMOJI_SELECTOR:
        return _ends_in_symbol(before) or (before[-1:] in set("0123456789#*") and after.startswith("\u20e3"))
    if before and unicodedata.combining(before[-1]) == _VIRAMA:  # A2 and B of UAX #31
        return _is_letter(after[:1])
    if joiner == _NON_JOINER:  # A1: between letters that would be joined
        return _is_arabic(before[-1:]) and _is_arabic(after[:1])
    return _ends_in_symbol(before.rstrip(_SKIN_TONES + _EMOJI_SELECTOR)) and _is_symbol(after[:1])  # UTS #51


def _ends_in_symbol(text: str) -> bool:
    return _is_symbol(text[-1:])


def _is_symbol(character: str) -> bool:
    return bool(character) and (unicodedata.category(character) in {"So", "Sm"} or character in _EMOJI_ELSEWHERE)


def _is_letter(character: str) -> bool:
    return bool(character) and unicodedata.category(character).startswith("L")


def _is_arabic(character: str) -> bool:
    return bool(character) and unicodedata.name(character, "").startswith("ARABIC LETTER ")
