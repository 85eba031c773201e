"""What a user name and a file name may be."""

import re
import unicodedata
from typing import Final

from greenchat.errors import BadName, Code
from greenchat.protocol.limits import MAX_FILE_NAME, MAX_NAME_CHARACTERS
from greenchat.protocol.lookalikes import LOOKALIKES
from greenchat.protocol.text import INVISIBLE, UNSAFE

__all__ = ["file_name", "looks", "name_key", "user_name"]

# Categories that have no place in a name: controls, invisible formats, surrogates, private use,
# unassigned, and every separator but the plain space (PRECIS, RFC 8264, disallows the same).
_NOT_IN_NAMES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})

# With characters that show as nothing, two names could look the same. Block Elements imitate `MARK`.
_UNSEEN: Final = re.compile(f"[{INVISIBLE}]")
_BLOCKS: Final = re.compile("[\u2580-\u259f]")

_RESERVED: Final = frozenset({"error"})
"""A guest is told of errors by lines that start with ``error: ``; nobody may speak under that name, or one like it."""

# Names that Windows gives to devices, whatever the ending (CVE-2025-27210 and many before it).
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(?:\..*)?", re.IGNORECASE)


def user_name(text: str) -> str:
    """*text* as a user name in NFC.

    Raises `BadName` unless it has 1 to 32 characters, none of them a control, a colon, a block element or invisible,
    and neither starts nor ends with a space or starts with a combining mark.
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
    if ":" in name:
        raise BadName(Code.BAD_NAME, "a name has no colon in it: choose another")
    if name != name.strip(" ") or unicodedata.category(name[0]).startswith("M"):
        raise BadName(Code.BAD_NAME, "a name starts and ends with a visible character: choose another")
    if _UNSEEN.search(name) or any(unicodedata.category(c) in _NOT_IN_NAMES for c in name.replace(" ", "")):
        raise BadName(Code.BAD_NAME, "a name has only visible characters and plain spaces: choose another")
    if _BLOCKS.search(name):
        raise BadName(Code.BAD_NAME, "a name has no block elements such as \u258c in it: choose another")
    if looks(name)[1] in _RESERVED:
        raise BadName(Code.BAD_NAME, "that name is kept for the server's own words: choose another")
    return name


def name_key(name: str) -> str:
    """What two names share if they differ only in case or Unicode form (caseless compatibility matching, D146)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFKC", folded.casefold())


def looks(name: str) -> tuple[str, str]:
    """How *name* looks as it is written, and in small letters: two names that have one of them in common look alike.

    Each is a skeleton of UTS #39, section 4, by compatibility. One alone would not do: `Ivan` is like `lvan` only as it
    is written, and a name in Greek capitals may be like a Latin one in small letters.
    """
    return _skeleton(name), _skeleton(name_key(name))


def _skeleton(name: str) -> str:
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).translate(LOOKALIKES))


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
