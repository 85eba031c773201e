import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenchat.errors import BadName
from greenchat.protocol.joiners import JOINERS
from greenchat.protocol.names import looks, name_key, user_name

IN_PLACE = [
    pytest.param("\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", id="Persian, ZWNJ between letters"),
    pytest.param("\u0dc1\u0dca\u200d\u0dbb\u0dd3", id="Sinhala, ZWJ after virama"),
    pytest.param("\u0915\u094d\u200d\u0937", id="Devanagari, ZWJ after virama"),
    pytest.param("\u0915\u094d\u200c\u0937", id="Devanagari, ZWNJ after virama"),
    pytest.param("\U0001f468\u200d\U0001f469\u200d\U0001f467", id="family"),
    pytest.param("\U0001f9d1\U0001f3fd\u200d\U0001f680", id="astronaut with a skin tone"),
    pytest.param("\u2764\ufe0f\u200d\U0001f525", id="heart on fire"),
    pytest.param("\U0001f642\u200d\u2194\ufe0f", id="shaking head"),
    pytest.param("ann \u2764\ufe0f bob", id="heart between words"),
    pytest.param("1\ufe0f\u20e3", id="keycap"),
    pytest.param("\U0001f1e9\U0001f1ea", id="flag"),
]


@pytest.mark.parametrize("name", IN_PLACE)
def test_joiner_that_changes_what_is_seen_is_let_in(name: str) -> None:
    assert user_name(name) == name


@pytest.mark.attack(40)
@pytest.mark.parametrize("name", IN_PLACE)
def test_names_that_differ_in_joiners_alone_are_the_same(name: str) -> None:
    plain = name.translate(JOINERS)
    assert name_key(name) == name_key(plain)
    assert looks(name) == looks(plain)


@pytest.mark.attack(40)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ann\u200d", id="ZWJ at the end"),
        pytest.param("\u200dann", id="ZWJ at the start"),
        pytest.param("a\u200cb", id="ZWNJ between Latin letters"),
        pytest.param("a\u200db", id="ZWJ between Latin letters"),
        pytest.param("a\ufe0f", id="emoji selector after a letter"),
        pytest.param("1\ufe0f", id="emoji selector after a digit"),
        pytest.param("\ufe0f", id="emoji selector alone"),
        pytest.param("\u2764\ufe0f\ufe0f", id="two emoji selectors"),
        pytest.param("\u2764\ufe0e", id="text selector"),
        pytest.param("\U0001f468\u200d\u200d\U0001f469", id="two ZWJ"),
        pytest.param("\U0001f468\u200d", id="ZWJ after an emoji at the end"),
        pytest.param("\U0001f468\u200da", id="ZWJ between an emoji and a letter"),
        pytest.param("\u0915\u094d\u200d", id="ZWJ after virama at the end"),
        pytest.param("\u0639\u200c", id="ZWNJ after an Arabic letter at the end"),
        pytest.param("\u0639\u200ca", id="ZWNJ between Arabic and Latin"),
        pytest.param("\U0001f3f4\U000e0067\U000e0062\U000e007f", id="tags of a flag"),
    ],
)
def test_joiner_that_shows_as_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        user_name(name)


@given(st.text(st.sampled_from("a1\u200c\u200d\ufe0f\u20e3\u2764\U0001f468\U0001f3fd\u0639\u0915\u094d"), max_size=8))
def test_name_with_joiners_stays_a_name_without_them(text: str) -> None:
    try:
        name = user_name(text)
    except BadName:
        return
    plain = name.translate(JOINERS)
    assert name_key(user_name(plain)) == name_key(name)
