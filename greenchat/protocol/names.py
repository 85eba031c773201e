"""What a user name and a file name may be."""

import re
import unicodedata
from typing import Final

from greenchat.errors import BadName, Code
from greenchat.protocol.joiners import JOINERS, without_joiners
from greenchat.protocol.limits import MAX_FILE_NAME, MAX_NAME_CHARACTERS
from greenchat.protocol.lookalikes import lookalikes
from greenchat.protocol.text import INVISIBLE, UNSAFE

__all__ = ["LOOKS_VERSION", "file_name", "looks", "name_key", "user_name"]

LOOKS_VERSION: Final = 1
"""Number of the rules that `looks` follows, its table among them; raise it when they change.

What was stored under other rules is then made anew.
"""

# Categories that have no place in a name: controls, invisible formats, surrogates, private use,
# unassigned, and every separator but the plain space (PRECIS, RFC 8264, disallows the same).
_NOT_IN_NAMES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})

# With characters that show as nothing, two names could look the same. Block Elements imitate `MARK`. Conjoining jamo
# that make no syllable are drawn over their neighbours, or not at all (OldHangulJamo in RFC 8264).
_UNSEEN: Final = re.compile(f"[{INVISIBLE}\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]")
_BLOCKS: Final = re.compile("[\u2580-\u259f]")

# A name ends where the colon is. These are drawn like one or hold one, though Unicode's table does not say so.
_COLONS: Final = re.compile(
    "[:\u0706-\u0709\u1361\u1365\u1366\u1804\u205d\u205e\u2237\u2239\u2254\u2255\u22ee\u2982\u2af6\ua6f4\ufe13\ufe19\ufe30"
    "\ufbbd\ufbbe\U00010af5\U00010f88\U00012471\U00012472\U0001d108\U0001da8a]"
)

_RESERVED: Final = frozenset({"error"})
"""A guest is told of errors by lines that start with ``error: ``; nobody may speak under that name, or one like it."""

# Names that Windows gives to devices, whatever the ending (CVE-2025-27210 and many before it).
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(?:\..*)?", re.IGNORECASE)


def user_name(text: str) -> str:
    """*text* as a user name in NFC.

    Raises `BadName` unless it has 1 to 32 characters, none of them a control, a colon or like one, a block element or
    invisible, and neither starts nor ends with a space or starts with a combining mark. Joiners and emoji selectors
    are let in where `greenchat.protocol.joiners` says.
    """
    if text.isascii() and text.isalnum() and len(text) <= MAX_NAME_CHARACTERS and text.lower() not in _RESERVED:
        return text  # as most are: nothing else can be wrong with it
    if len(text) > 4 * MAX_NAME_CHARACTERS:  # no name that long composes to one short enough
        raise BadName(Code.BAD_NAME, "a name has at most 32 characters: choose a shorter one")
    name = unicodedata.normalize("NFC", text)
    if not name.strip(" "):
        raise BadName(Code.BAD_NAME, "a name has at least one character: choose one")
    if len(name) > MAX_NAME_CHARACTERS:
        raise BadName(Code.BAD_NAME, "a name has at most 32 characters: choose a shorter one")
    if _COLONS.search(name) or ":" in _skeleton(name):
        raise BadName(Code.BAD_NAME, "a name has no colon in it, and nothing like one: choose another")
    if name != name.strip(" ") or unicodedata.category(name[0]).startswith("M"):
        raise BadName(Code.BAD_NAME, "a name starts and ends with a visible character: choose another")
    seen = without_joiners(name).replace(" ", "")
    if _UNSEEN.search(seen) or any(unicodedata.category(c) in _NOT_IN_NAMES for c in seen):
        raise BadName(Code.BAD_NAME, "a name has only visible characters and plain spaces: choose another")
    if _BLOCKS.search(name):
        raise BadName(Code.BAD_NAME, "a name has no block elements such as \u258c in it: choose another")
    if looks(name)[1] in _RESERVED:
        raise BadName(Code.BAD_NAME, "that name is kept for the server's own words: choose another")
    return name


def name_key(name: str) -> str:
    """Return what two names share if they differ only in case, Unicode form or joiners.

    This is the identifier caseless match of the Unicode standard (D147), for what can be in a name.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", name.translate(JOINERS)).casefold())
    return unicodedata.normalize("NFKC", folded.casefold())


def looks(name: str) -> tuple[str, str]:
    """Return how *name* looks as it is written, and in small letters; names that have one of them in common look alike.

    Each is a skeleton of UTS #39, section 4, by compatibility. One alone would not do: `Ivan` is like `lvan` only as it
    is written, and a name in Greek capitals may be like a Latin one in small letters.
    """
    return _skeleton(name), _skeleton(name_key(name))


def _skeleton(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.translate(JOINERS))
    return unicodedata.normalize("NFKD", plain.translate(lookalikes()))


def file_name(text: str) -> str:
    """*text* if it is the plain name of one file, not hidden, on any system.

    Raises `BadName` for anything that is not one path component, is hidden, names a device, a drive or a
    stream, would be altered by a file system, or could not be shown as it is.
    """
    if not text.strip(" .") or text != text.rstrip(" .") or text.startswith("."):
        raise BadName(Code.BAD_FILE_NAME)
    if any(c in text for c in "/\\:\t") or UNSAFE.search(text):
        raise BadName(Code.BAD_FILE_NAME)
    if _DEVICE.fullmatch(text) or _size(text) > MAX_FILE_NAME:
        raise BadName(Code.BAD_FILE_NAME)
    return text


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate stands for a byte that is no UTF-8
        raise BadName(Code.BAD_FILE_NAME) from None
