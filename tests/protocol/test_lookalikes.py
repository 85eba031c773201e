import hashlib
import subprocess
import sys
import unicodedata
from pathlib import Path

import greenchat
from greenchat.protocol.lookalikes import lookalikes
from greenchat.protocol.names import LOOKS_VERSION

assert greenchat.__file__
TABLE = Path(greenchat.__file__).parent / "protocol" / "lookalikes.txt"


def test_table_says_which_unicode_version_it_is_of() -> None:
    assert "Unicode 17.0" in TABLE.read_text("ascii").partition("\n20:")[0]


def test_stored_looks_have_a_number_for_each_table() -> None:
    digest = hashlib.sha256(TABLE.read_bytes()).hexdigest()
    known = {"67bee792bf92c51ffaddc3acf10e81bccf6681bc8e93988489151f5b7c374a9c": 1}
    assert known.get(digest) == LOOKS_VERSION, "raise LOOKS_VERSION, and add the digest here"


def test_table_has_single_visible_characters_that_nfkd_leaves_alone() -> None:
    assert len(lookalikes()) > 2_700
    for point in lookalikes():
        assert unicodedata.normalize("NFKD", chr(point)) == chr(point)
        assert unicodedata.category(chr(point)) not in {"Cc", "Cf", "Co", "Cs"}


def test_m_looks_like_itself() -> None:
    assert ord("m") not in lookalikes()
    assert lookalikes()[0x11700] == "m"
    assert not any("rn" in like for like in lookalikes().values())


def test_table_is_read_only_when_it_is_needed() -> None:
    code = """
from greenchat.protocol import lookalikes, names
names.user_name("ann")
assert not lookalikes.lookalikes.cache_info().currsize
names.looks("ann")
assert lookalikes.lookalikes.cache_info().currsize
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
