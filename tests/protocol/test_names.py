import contextlib
import unicodedata
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenchat.errors import BadName, Code
from greenchat.protocol import names as module
from greenchat.protocol.limits import MAX_FILE_NAME, MAX_NAME_CHARACTERS
from greenchat.protocol.names import file_name, looks, name_key, user_name
from greenchat.protocol.text import safe_line

UNUSUAL = " :\t\n\x00\x1b\x7f\x9b\u00a0\u00ad\u0301\u200b\u202e\u3000\ue000\uff1a\U0001d160e"
# Ignorable and blank, though their categories do not say so.
BLANK = (
    "\ufffc\U0001107f\U00016fe4\U0001bc9d\U0001d159\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(
        map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x13440, 0x13443), *range(0x2580, 0x25A0)])
    )
)
JAMO = "".join(map(chr, [*range(0x1100, 0x1200), *range(0xA960, 0xA980), *range(0xD7B0, 0xD800)]))
COLONS = "".join(each for each in map(chr, range(0x110000)) if ":" in looks(each)[0] or module._COLONS.search(each))
VISIBLE = st.text(
    st.characters(exclude_categories=["C", "Z", "M"], exclude_characters=f"{BLANK}{COLONS}{JAMO}"),
    min_size=1,
    max_size=8,
)
ANY = st.characters(exclude_categories=[], exclude_characters=f"{BLANK}{COLONS}{JAMO}".replace(":", ""))
Form: TypeAlias = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: list[Form] = ["NFC", "NFD", "NFKC", "NFKD"]

# --- user names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("b", id="one character"),
        pytest.param("x" * 32, id="32 characters"),
        pytest.param("\U0001f44d" * 32, id="32 characters of 4 bytes"),
        pytest.param("Mary Ann", id="space inside"),
        pytest.param("Fran\u00e7ois", id="accent"),
        pytest.param("\u540d\u524d", id="ideographs"),
        pytest.param("O'Brien-2_[x]", id="punctuation"),
        pytest.param("errors", id="nearly reserved"),
    ],
)
def test_user_name_is_taken_as_it_is(name: str) -> None:
    assert user_name(name) == name


def test_user_name_is_composed() -> None:
    assert user_name("Jose\u0301") == "Jos\u00e9"


def test_length_of_a_user_name_is_that_of_its_composed_form() -> None:
    assert user_name("e\u0301" * 32) == "\u00e9" * 32


def test_longest_decomposed_user_name_is_taken() -> None:
    assert user_name("\u03b1\u0313\u0300\u0345" * 32) == "\u1f82" * 32


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("   ", id="only spaces"),
        pytest.param("\u3000", id="only a wide space"),
        pytest.param("x" * 33, id="too long"),
        pytest.param("\u0958" * 17, id="too long once composed"),
        pytest.param("e\u0301" * 33, id="too long though composed"),
        pytest.param("x" * 1_000_000, id="far too long"),
        pytest.param("a:b", id="colon"),
        pytest.param("bob ", id="trailing space"),
        pytest.param(" bob", id="leading space"),
        pytest.param("bob\u00a0", id="trailing no-break space"),
        pytest.param("a\u2003b", id="space that is not plain"),
        pytest.param("a\tb", id="tab"),
        pytest.param("a\nb", id="line feed"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("\x01bob", id="SOH"),
        pytest.param("\x1b[31mbob", id="ESC"),
        pytest.param("bob\x7f", id="DEL"),
        pytest.param("\x9b31mbob", id="C1"),
        pytest.param("\u202ebob", id="bidirectional override"),
        pytest.param("bo\u200bb", id="zero width space"),
        pytest.param("bo\u00adb", id="soft hyphen"),
        pytest.param("bob\u2028", id="line separator"),
        pytest.param("\u0301bob", id="combining mark first"),
        pytest.param("bob\ud800", id="lone surrogate"),
        pytest.param("bob\ue000", id="private use"),
        pytest.param("bob\U000e0fff", id="unassigned"),
        pytest.param("error", id="reserved"),
        pytest.param("ERROR", id="reserved, capitals"),
        pytest.param("\uff45rror", id="reserved, wide letter"),
    ],
)
def test_row_26_user_name_is_refused(name: str) -> None:
    with pytest.raises(BadName) as refused:
        user_name(name)
    assert refused.value.code is Code.BAD_NAME


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("\u3164", id="Hangul filler"),
        pytest.param("\uffa0", id="half-width Hangul filler"),
        pytest.param("\u2800", id="Braille blank"),
    ],
)
def test_row_26_user_name_that_shows_as_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        user_name(name)


@pytest.mark.attack(39)
@pytest.mark.parametrize("block", [*map(chr, range(0x2580, 0x25A0))], ids=unicodedata.name)
def test_user_name_with_a_block_element_is_refused(block: str) -> None:
    with pytest.raises(BadName, match="block elements"):
        user_name(f"a {block}b")


@pytest.mark.attack(40)
@pytest.mark.parametrize(
    "colon",
    [
        *"\u02d0\u02f8\u0589\u05c3\u0703\u0704\u0903\u0a83\u1361\u1365\u16ec\u1803\u1804\u1809\u205a\u2236\u2237\u2254\u22ee\u2982"
        "\u29f4\u2a74\ua4fd\ua789\ufe13\ufe30\ufe55\uff1a"
    ],
    ids=ascii,
)
def test_user_name_with_something_like_a_colon_is_refused(colon: str) -> None:
    for name in (f"ann{colon} yes, I agree", f"error{colon} moved", f"a{colon}b", f"ann{colon}"):
        with pytest.raises(BadName, match="colon"):
            user_name(name)


@pytest.mark.attack(40)
@pytest.mark.parametrize("jamo", [*"\u1100\u1161\u11a8\ua960\ud7b0\ud7cb"], ids=ascii)
def test_user_name_with_a_jamo_that_makes_no_syllable_is_refused(jamo: str) -> None:
    with pytest.raises(BadName, match="visible"):
        user_name(f"ann{jamo}")


def test_user_name_of_composed_jamo_is_hangul() -> None:
    assert user_name("\u1112\u1161\u11ab") == "\ud55c"


@pytest.mark.attack(40)
@pytest.mark.parametrize(
    "character", [*"\ufffc\U0001107f\U00016fe4\U0001bc9d\U0001d159\u115f\u1160\u2800\ufffe\U000e0041\ue000"], ids=ascii
)
def test_user_name_with_a_character_without_a_glyph_is_refused(character: str) -> None:
    with pytest.raises(BadName, match="visible"):
        user_name(f"ann{character}")


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        pytest.param("bob", "BOB", id="case"),
        pytest.param("Stra\u00dfe", "STRASSE", id="sharp s"),
        pytest.param("\u03c3\u03bf\u03c6\u03cc\u03c2", "\u03a3\u039f\u03a6\u038c\u03a3", id="final sigma"),
        pytest.param("Jos\u00e9", "Jose\u0301", id="decomposed"),
        pytest.param("bob", "\uff42\uff4f\uff42", id="full width"),
        pytest.param("file", "\ufb01le", id="ligature"),
        pytest.param("\u212bngstrom", "\u00e5ngstrom", id="angstrom sign"),
        pytest.param("x2", "x\u00b2", id="superscript"),
        pytest.param("bob", "bob\ufe0f", id="variation selector"),
        pytest.param("bob", "bo\u034fb", id="grapheme joiner"),
        pytest.param("error", "error\ufe0f", id="reserved, with variation selector"),
    ],
)
def test_row_26_twin_of_a_name_has_its_key_or_is_refused(name: str, twin: str) -> None:
    with contextlib.suppress(BadName):
        assert name_key(user_name(twin)) == name_key(name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        pytest.param("bob", "rob", id="letters"),
        pytest.param("Jos\u00e9", "Jose", id="accent"),
        pytest.param("a b", "ab", id="space"),
        pytest.param("bob", "bob2", id="digit"),
    ],
)
def test_other_name_has_another_key(name: str, other: str) -> None:
    assert name_key(user_name(other)) != name_key(user_name(name))


@given(st.text(ANY | st.sampled_from(UNUSUAL), max_size=40))
@example("\u0344")
def test_user_name_is_taken_exactly_if_the_rules_allow_it(text: str) -> None:
    name = unicodedata.normalize("NFC", text)
    allowed = (
        0 < len(name) <= MAX_NAME_CHARACTERS
        and name.isprintable()
        and name == name.strip()
        and ":" not in name
        and not unicodedata.category(name[0]).startswith("M")
        and looks(name)[1] != "error"
    )
    if allowed:
        assert user_name(text) == name
    else:
        with pytest.raises(BadName):
            user_name(text)


@given(VISIBLE.filter(lambda name: looks(name)[1] != "error"))
@example("Jose\u0301")
@example("\u0958")
def test_user_name_is_idempotent(text: str) -> None:
    name = user_name(text)
    assert user_name(name) == name


@given(VISIBLE, st.sampled_from(FORMS))
@example("\u03b1\u0345\u0301", "NFC")
@example("\u3385", "NFKC")
def test_name_key_is_the_same_for_unicode_twins(name: str, form: Form) -> None:
    assert name_key(unicodedata.normalize(form, name)) == name_key(name)


@given(VISIBLE.filter(lambda name: "\u0131" not in name), st.sampled_from([str.upper, str.lower, str.swapcase]))
def test_name_key_is_the_same_for_case_twins(name: str, change: Callable[[str], str]) -> None:
    assert name_key(change(name)) == name_key(name)


@given(VISIBLE)
def test_name_key_is_idempotent(name: str) -> None:
    assert name_key(name_key(name)) == name_key(name)


# --- file names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a.txt", id="plain"),
        pytest.param("README", id="no ending"),
        pytest.param("a..b", id="dots inside"),
        pytest.param("two words.txt", id="space inside"),
        pytest.param("caf\u00e9 \u540d.txt", id="not ASCII"),
        pytest.param("null.txt", id="longer than a device"),
        pytest.param("a.nul", id="device as an ending"),
        pytest.param("com10", id="no such device"),
    ],
)
def test_file_name_is_taken_as_it_is(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../../.ssh/authorized_keys", id="climbs"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("a/b", id="slash"),
        pytest.param("a/", id="slash at the end"),
        pytest.param("a\\b", id="backslash"),
        pytest.param("..\\a", id="climbs with a backslash"),
        pytest.param("C:\\x", id="drive"),
        pytest.param("C:x", id="drive without a root"),
        pytest.param("\\\\host\\x", id="network share"),
        pytest.param("a:stream", id="stream"),
        pytest.param("a.txt::$DATA", id="default stream"),
        pytest.param("a.", id="trailing dot"),
        pytest.param("a ", id="trailing space"),
        pytest.param("a. .", id="trailing dots and spaces"),
        pytest.param(".bashrc", id="hidden"),
        pytest.param("...", id="only dots"),
    ],
)
def test_row_01_file_name_that_is_no_plain_component_is_refused(name: str) -> None:
    with pytest.raises(BadName) as refused:
        file_name(name)
    assert refused.value.code is Code.BAD_FILE_NAME


@pytest.mark.parametrize("ending", ["", ".txt", ".tar.gz"])
@pytest.mark.parametrize(
    "device", ["NUL", "nul", "CON", "PRN", "AUX", "COM1", "Lpt9", "COM\u00b9", "CONIN$", "CONOUT$"]
)
def test_row_01_file_name_of_a_device_is_refused(device: str, ending: str) -> None:
    with pytest.raises(BadName):
        file_name(device + ending)


@pytest.mark.parametrize("name", ["", ".", "..", " ", "    ", " . ", ". ."])
def test_row_02_file_name_of_nothing_but_dots_and_spaces_is_refused(name: str) -> None:
    with pytest.raises(BadName) as refused:
        file_name(name)
    assert refused.value.code is Code.BAD_FILE_NAME


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"caf\xe9.txt".decode(errors="surrogateescape"), id="invalid UTF-8"),
        pytest.param("a\x00.txt", id="NUL"),
        pytest.param("a\n.txt", id="line feed"),
        pytest.param("a\t.txt", id="tab"),
        pytest.param("\x1b[31ma", id="ESC"),
        pytest.param("a\x9b31m", id="C1"),
        pytest.param("a\u202etxt.exe", id="bidirectional override"),
        pytest.param("x" * 256, id="256 bytes"),
        pytest.param("\u540d" * 86, id="86 characters of 258 bytes"),
        pytest.param("x" * 1_000_000, id="far too long"),
    ],
)
def test_row_04_file_name_that_is_no_text_or_too_long_is_refused(name: str) -> None:
    with pytest.raises(BadName) as refused:
        file_name(name)
    assert refused.value.code is Code.BAD_FILE_NAME


@pytest.mark.parametrize("name", ["x" * 255, "\u540d" * 85], ids=["ASCII", "3 bytes a character"])
def test_row_04_file_name_of_255_bytes_is_taken(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize(
    ("name", "like"),
    [
        pytest.param("ann", "\u0430nn", id="Cyrillic"),
        pytest.param("ann", "\u0391NN", id="Greek, other case"),
        pytest.param("paypal", "p\u0430yp\u0430l", id="two letters"),
        pytest.param("Ivan", "lvan", id="capital I"),
        pytest.param("bob1", "bobl", id="digit"),
        pytest.param("bot0", "botO", id="zero"),
        pytest.param("tim", "ti\U00011700", id="Ahom"),
        pytest.param("JOHN", "\u13abOHN", id="Cherokee"),
        pytest.param("ann", "\U0001d41ann", id="mathematical"),
    ],
)
def test_row_26_names_that_look_alike_share_a_look(name: str, like: str) -> None:
    assert any(one == other for one, other in zip(looks(name), looks(like), strict=True))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ann", "anne"),
        ("ivan", "lvan"),
        ("bob1", "bob2"),
        ("Tom", "Torn"),
        ("com", "corn"),
        ("\u0436\u0430\u043d", "\u0436\u0430\u043c"),
    ],
)
def test_names_that_look_different_share_none(name: str, other: str) -> None:
    assert not any(one == other for one, other in zip(looks(name), looks(other), strict=True))


@given(st.text())
def test_twins_look_alike(name: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert looks(unicodedata.normalize(form, name))[1] == looks(name)[1]


def test_row_26_name_that_looks_like_error_is_refused() -> None:
    with pytest.raises(BadName, match="kept for the server's own words"):
        user_name("\u0435rror")


@given(
    st.text(st.characters(exclude_categories=[]), max_size=300)
    | st.text(st.sampled_from("./\\:~ \t\x00\r\nNnUuLl1\u00e9\u202e\udc80"), max_size=12)
)
def test_file_name_is_one_component_everywhere_or_is_refused(text: str) -> None:
    with contextlib.suppress(BadName):
        name = file_name(text)
        assert name == text == safe_line(text)
        assert name == PurePosixPath("share", name).name == PureWindowsPath("share", name).name
        assert PureWindowsPath("share", name).parent == PureWindowsPath("share")
        assert 0 < len(name.encode()) <= MAX_FILE_NAME
