import re
from collections.abc import Iterator

import pytest

from greenchat import errors
from greenchat.errors import Code, GreenchatError, known, sentence

UNKNOWN = ["", "new-code", "FAILED", "Failed", "bad name", "failed\n", "\x1b[31m"]


def below(kind: type[GreenchatError]) -> Iterator[type[GreenchatError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def drawn_tree() -> dict[str, str]:
    """Each class that the docstring's tree draws, with the one it is drawn under."""
    assert errors.__doc__
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in re.findall(r"^ {4}\S.*$|^ {4}.*[├└]── .*$", errors.__doc__, re.MULTILINE):
        name = re.search(r"\w+", line)
        assert name
        above = [(depth, other) for depth, other in above if depth < name.start()]
        parents[name[0]] = above[-1][1] if above else "Exception"
        above.append((name.start(), name[0]))
    return parents


KINDS: list[type[GreenchatError]] = [GreenchatError, *below(GreenchatError)]
PUBLIC = [kind for kind in KINDS if not kind.__name__.startswith("_")]


def test_docstring_draws_the_tree_as_it_is() -> None:
    actual = {kind.__name__: base.__name__ for kind in PUBLIC for base in kind.__bases__}
    assert drawn_tree() == actual


def test_all_public_kinds_live_here_and_are_exported() -> None:
    assert {kind.__module__ for kind in PUBLIC} == {errors.__name__}
    assert {kind.__name__ for kind in PUBLIC} <= set(errors.__all__)


def test_code_is_plain_words() -> None:
    assert {code for code in Code if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)} == set()


def test_every_code_has_a_sentence_of_its_own() -> None:
    assert set(errors._SENTENCES) == set(Code)
    assert len(set(errors._SENTENCES.values())) == len(Code)


def test_sentence_is_one_plain_lower_case_line() -> None:
    assert {text for text in map(sentence, Code) if not re.fullmatch(r"[a-z][a-z0-9 ,:'-]*[a-z0-9]", text)} == set()


def test_sentence_holds_no_path() -> None:
    assert {text for text in map(sentence, Code) if set(r"/\~%{") & set(text)} == set()


def test_known_code_stays() -> None:
    assert [known(code.value) for code in Code] == list(Code)
    assert [GreenchatError(code.value).code for code in Code] == list(Code)


@pytest.mark.parametrize("code", UNKNOWN, ids=ascii)
def test_unknown_code_becomes_failed(code: str) -> None:
    assert known(code) is Code.FAILED
    assert sentence(code) == sentence(Code.FAILED)
    assert GreenchatError(code).code is Code.FAILED


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_error_says_its_sentence_or_its_own_text(kind: type[GreenchatError]) -> None:
    assert str(kind(Code.SHUTDOWN)) == sentence(Code.SHUTDOWN)
    error = kind(Code.SHUTDOWN, "back at noon")
    assert (str(error), error.code) == ("back at noon", Code.SHUTDOWN)
