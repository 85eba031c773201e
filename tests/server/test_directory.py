from dataclasses import dataclass

import pytest

from greenchat.errors import Code, Refused
from greenchat.server.directory import Directory


@dataclass(eq=False)
class User:
    name: str


@pytest.fixture
def directory() -> Directory[User]:
    return Directory()


@pytest.mark.attack(26)
@pytest.mark.parametrize(
    ("name", "other"), [("Tom", "Torn"), ("com", "corn"), ("user1", "user2"), ("bob", "b0b"), ("al", "AI")]
)
def test_ordinary_names_that_a_terminal_tells_apart_are_let_in_together(
    directory: Directory[User], name: str, other: str
) -> None:
    directory.claim(User(name))
    directory.claim(User(other))


@pytest.mark.attack(26)
@pytest.mark.parametrize(
    ("name", "other"), [("user1", "userl"), ("bot0", "botO"), ("Ivan", "lvan"), ("\u0391nn", "Ann")]
)
def test_name_that_looks_like_another_is_refused_with_the_truth(
    directory: Directory[User], name: str, other: str
) -> None:
    directory.claim(User(name))
    with pytest.raises(Refused, match="looks like a name in use") as refusal:
        directory.claim(User(other))
    assert refusal.value.code == Code.NAME_ALIKE


def test_who_claims_a_name_is_found_by_it(directory: Directory[User]) -> None:
    ann = User("ann")
    directory.claim(ann)
    assert directory.find("ann") is ann


def test_nobody_is_found_by_a_free_name(directory: Directory[User]) -> None:
    assert directory.find("ann") is None


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param("José", id="the same"),
        pytest.param("JOSÉ", id="case"),
        pytest.param("Jose\u0301", id="Unicode form"),
        pytest.param("\uff2a\uff2f\uff33\uff25\u0301", id="width"),
    ],
)
def test_row_26_twin_of_a_name_in_use_is_refused(directory: Directory[User], twin: str) -> None:
    holder = User("José")
    directory.claim(holder)
    with pytest.raises(Refused) as refusal:
        directory.claim(User(twin))
    assert refusal.value.code == Code.NAME_TAKEN
    assert directory.find(twin) is holder


@pytest.mark.parametrize("like", ["\u0430nn", "\u0410NN", "\u0391nn"])
def test_row_26_name_that_looks_like_one_in_use_is_refused_and_is_not_that_name(
    directory: Directory[User], like: str
) -> None:
    directory.claim(holder := User("ann"))
    with pytest.raises(Refused) as refusal:
        directory.claim(User(like))
    assert refusal.value.code == Code.NAME_ALIKE
    assert directory.find(like) is None
    directory.release(holder)
    directory.claim(late := User(like))
    assert directory.find(like) is late


def test_released_name_is_free_at_once(directory: Directory[User]) -> None:
    directory.claim(first := User("ann"))
    directory.release(first)
    assert directory.find("ann") is None
    directory.claim(second := User("ANN"))
    assert directory.find("ann") is second


def test_nobody_releases_another_users_name(directory: Directory[User]) -> None:
    directory.claim(holder := User("ann"))
    directory.release(User("ann"))
    assert directory.find("ann") is holder


def test_releasing_what_was_never_claimed_does_nothing(directory: Directory[User]) -> None:
    directory.release(User("ann"))
    assert directory.find("ann") is None
