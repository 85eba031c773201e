"""Makes greenchat/protocol/lookalikes.py of Unicode's table: python tools/lookalikes.py confusables.txt

The table is at https://www.unicode.org/Public/security/latest/confusables.txt; `greenchat.protocol.names` uses what
is made.
"""

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

HEAD = '''"""Characters that look like others: Unicode's confusables.txt, version {version}, by tools/lookalikes.py.

Those that NFKD takes apart are left out. The data is © {year} Unicode, Inc., used under the Unicode License
(https://www.unicode.org/license.txt).
"""

from typing import Final

__all__ = ["LOOKALIKES"]

# What characters look like, BEL, those that do, LF; and so on.
_TABLE = """\\
'''

TAIL = '''"""

LOOKALIKES: Final = {{
    ord(character): like
    for like, _, characters in (line.partition("\\a") for line in _TABLE.split("\\n"))
    for character in characters
}}
"""What is to stand for each of them, as `str.translate` takes it."""
'''


def groups(table: str) -> dict[str, list[str]]:
    """What characters look like, each with those that do."""
    found = defaultdict(list)
    for source, target in re.findall(r"^([0-9A-F]+) ;\t([0-9A-F ]+?) ;", table, re.MULTILINE):
        character = chr(int(source, 16))
        if unicodedata.normalize("NFKD", character) == character and not unicodedata.category(character).startswith(
            "C"
        ):
            found["".join(chr(int(point, 16)) for point in target.split())].append(character)
    return found


def escaped(text: str) -> list[str]:
    """The characters of *text* as they are written in a literal of ASCII."""
    return [{'"': '\\"', "\a": "\\a", "\n": "\\n"}.get(each, ascii(each)[1:-1]) for each in text]


def wrapped(pieces: list[str]) -> Iterator[str]:
    """Lines of them, none longer than 118 characters, each with a backslash before its end."""
    line = ""
    for piece in pieces:
        if len(line) + len(piece) > 118:
            yield line
            line = ""
        line += piece
    yield line


def main() -> None:
    """Print the module."""
    table = Path(sys.argv[1]).read_text("utf-8-sig")
    version = re.search(r"# Version: ([0-9.]+)", table)
    year = re.search(r"© ([0-9]{4})", table)
    assert version
    assert year
    found = "\n".join(f"{like}\a{''.join(sorted(those))}" for like, those in sorted(groups(table).items()))
    print(HEAD.format(version=version[1], year=year[1]), end="")
    print("\\\n".join(wrapped(escaped(found))), end="")
    print(TAIL.format(), end="")


if __name__ == "__main__":
    main()
