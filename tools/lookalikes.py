"""Rewrite greenchat/protocol/lookalikes.txt, Unicode's table of characters that look like others.

    pip install icukit-pyicu && python tools/lookalikes.py

The table (confusables.txt of UTS #39) is read from the ICU library that PyICU is linked to, because ICU carries
the table of its own Unicode version. icukit-pyicu is a wheel with an ICU of its own: 78.3.1 has Unicode 17.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import icu  # type: ignore[import-not-found]  # on purpose no dependency of the project

TABLE: Final = Path(__file__).resolve().parent.parent / "greenchat" / "protocol" / "lookalikes.txt"

HEADER: Final = """\
# Characters that look like others (UTS #39): what they look like, then each of them, as code points.
# Made by tools/lookalikes.py from the table of Unicode {version}, (c) Unicode, Inc., used under the Unicode License
# (https://www.unicode.org/license.txt). Left out is what NFKD decomposes; and m does not look like rn.
"""


def prototypes() -> Iterator[tuple[str, str]]:
    """Yield each visible character that looks like another, and what it looks like.

    In the font of a terminal, m and rn differ, and names such as Tom and Torn are ordinary. What looks like m has rn
    as its prototype in the table.
    """
    checker, nfkd = icu.SpoofChecker(), icu.Normalizer2.getNFKDInstance()
    for point in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(point)
        prototype = checker.getSkeleton(0, character).replace("rn", "m")
        is_visible = prototype and icu.Char.charType(character) not in _INVISIBLE_TYPES
        if is_visible and prototype != character and nfkd.normalize(character) == character:
            yield character, prototype


_INVISIBLE_TYPES: Final = (
    icu.UCharCategory.UNASSIGNED,
    icu.UCharCategory.CONTROL_CHAR,
    icu.UCharCategory.FORMAT_CHAR,
    icu.UCharCategory.PRIVATE_USE_CHAR,
    icu.UCharCategory.SURROGATE,
)


def points(text: str) -> str:
    """Return *text* as code points in hexadecimal."""
    return " ".join(f"{ord(character):X}" for character in text)


def main() -> None:
    """Write the table."""
    alike: dict[str, list[str]] = defaultdict(list)
    for character, prototype in prototypes():
        alike[prototype].append(character)
    lines = (f"{points(prototype)}: {points(''.join(found))}\n" for prototype, found in sorted(alike.items()))
    TABLE.write_text(HEADER.format(version=icu.UNICODE_VERSION) + "".join(lines), "ascii")


if __name__ == "__main__":
    main()
