import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from greenchat.errors import Code, Refused, SecurityError
from greenchat.protocol.limits import REGISTRY_LOCK_SECONDS
from greenchat.server import registry as module
from greenchat.server.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    one = Registry(tmp_path / "home" / "names.db")
    yield one
    one.close()


def refusal(registry: Registry, name: str, owner: str | None, **options: object) -> Code:
    with pytest.raises(Refused) as refused:
        registry.enter(name, owner, "192.0.2.1", **options)  # type: ignore[arg-type]  # as each test likes
    return refused.value.code


def owners(registry: Registry) -> dict[str, str]:
    return {owned.name: owned.owner for owned in registry.names()}


def test_first_key_owns_the_name(registry: Registry) -> None:
    registry.enter("ann", "KEY", "192.0.2.1")
    registry.enter("ann", "KEY", "192.0.2.2")
    assert refusal(registry, "ann", "OTHER") == Code.NAME_OWNED
    assert refusal(registry, "ann", None) == Code.NAME_OWNED
    assert owners(registry) == {"ann": "KEY"}
    assert abs(registry.names()[0].since - time.time()) < 60


@pytest.mark.parametrize("twin", ["ANN", "\uff41nn", "\u0430nn", "\u0391NN"])
def test_row_26_name_like_an_owned_one_is_refused_also_to_its_owner(registry: Registry, twin: str) -> None:
    registry.enter("ann", "KEY", "192.0.2.1")
    for owner in ("OTHER", None):
        assert refusal(registry, twin, owner) == Code.NAME_OWNED


def test_owner_may_write_its_name_in_another_case(registry: Registry) -> None:
    registry.enter("ann", "KEY", "192.0.2.1")
    registry.enter("Ann", "KEY", "192.0.2.1")
    assert owners(registry) == {"ann": "KEY"}


# --- where a backplane decides whose names are ------------------------------------------------


@pytest.mark.attack(44)
def test_record_follows_the_backplane_and_a_check_records_nothing(registry: Registry) -> None:
    registry.check("KEY", "192.0.2.1")
    assert owners(registry) == {}
    registry.record("ann", "KEY")
    registry.check("OTHER", "192.0.2.1")
    registry.record("Ann", "OTHER")
    registry.record("Ann", "OTHER")
    assert owners(registry) == {"Ann": "OTHER"}


def test_banned_are_refused_before_the_backplane_is_asked(registry: Registry) -> None:
    registry.ban("KEY")
    registry.ban("192.0.2.1")
    for owner, network in (("KEY", "192.0.2.2"), ("OTHER", "192.0.2.1"), (None, "192.0.2.1")):
        with pytest.raises(Refused) as refused:
            registry.check(owner, network)
        assert refused.value.code is Code.BANNED


def test_invite_is_used_up_only_when_the_backplane_has_given_the_name(registry: Registry) -> None:
    invite = registry.invite(60)
    for _ in range(2):
        registry.check("KEY", "192.0.2.1", invite=invite, members_only=True)
    registry.record("ann", "KEY", invite=invite, members_only=True)
    registry.check("KEY", "192.0.2.1", members_only=True)
    for owner, given, code in (("OTHER", invite, Code.BAD_INVITE), ("OTHER", "", Code.MEMBERS_ONLY)):
        with pytest.raises(Refused) as refused:
            registry.check(owner, "192.0.2.1", invite=given, members_only=True)
        assert refused.value.code is code
    with pytest.raises(Refused):
        registry.record("bob", "OTHER", invite=invite, members_only=True)
    assert owners(registry) == {"ann": "KEY"}


def test_guest_owns_nothing(registry: Registry) -> None:
    registry.enter("ann", None, "192.0.2.1")
    registry.enter("ann", "KEY", "192.0.2.1")
    assert owners(registry) == {"ann": "KEY"}


def test_what_is_owned_outlives_the_server(registry: Registry, tmp_path: Path) -> None:
    registry.enter("ann", "KEY", "192.0.2.1")
    again = Registry(tmp_path / "home" / "names.db")
    assert owners(again) == {"ann": "KEY"}
    again.close()


def test_file_is_for_its_user_alone(registry: Registry, tmp_path: Path) -> None:
    assert (tmp_path / "home" / "names.db").stat().st_mode & 0o777 == 0o600


def test_freed_name_is_anybody_s(registry: Registry) -> None:
    registry.enter("Ann", "KEY", "192.0.2.1")
    assert registry.free("ann")
    assert not registry.free("ann")
    registry.enter("ann", "OTHER", "192.0.2.1")
    assert owners(registry) == {"ann": "OTHER"}


@pytest.mark.parametrize("what", ["KEY", "192.0.2.1"])
def test_who_is_banned_is_not_let_in(registry: Registry, what: str) -> None:
    registry.enter("ann", "KEY", "192.0.2.1")
    registry.ban(what)
    registry.ban(what)
    assert registry.bans() == [what]
    assert refusal(registry, "ann", "KEY") == Code.BANNED
    registry.enter("bob", "OTHER", "192.0.2.2")
    assert registry.unban(what)
    assert not registry.unban(what)
    registry.enter("ann", "KEY", "192.0.2.1")


def test_members_let_nobody_in_but_members(registry: Registry) -> None:
    registry.enter("ann", "KEY", "192.0.2.1")
    registry.enter("ann", "KEY", "192.0.2.1", members_only=True)
    registry.enter("anne", "KEY", "192.0.2.1", members_only=True)
    assert refusal(registry, "bob", "OTHER", members_only=True) == Code.MEMBERS_ONLY
    assert refusal(registry, "bob", None, members_only=True) == Code.MEMBERS_ONLY


def test_invitation_lets_one_new_key_in(registry: Registry) -> None:
    code = registry.invite(60)
    assert refusal(registry, "bob", None, invite=code, members_only=True) == Code.BAD_INVITE
    registry.enter("bob", "OTHER", "192.0.2.1", invite=code, members_only=True)
    registry.enter("bob", "OTHER", "192.0.2.1", invite=code, members_only=True)
    assert refusal(registry, "cat", "THIRD", invite=code, members_only=True) == Code.BAD_INVITE


def test_invitation_of_who_is_refused_is_not_used_up(registry: Registry) -> None:
    registry.enter("ann", "KEY", "192.0.2.1")
    code = registry.invite(60)
    assert refusal(registry, "ann", "OTHER", invite=code, members_only=True) == Code.NAME_OWNED
    registry.enter("bob", "OTHER", "192.0.2.1", invite=code, members_only=True)


def test_invitation_expires(registry: Registry) -> None:
    code = registry.invite(-10)
    assert refusal(registry, "bob", "OTHER", invite=code, members_only=True) == Code.BAD_INVITE


@pytest.mark.parametrize("code", ["x", "0" * 32, "' OR 1=1 --"])
def test_invitation_that_never_was_is_refused(registry: Registry, code: str) -> None:
    registry.invite(60)
    assert refusal(registry, "bob", "OTHER", invite=code, members_only=True) == Code.BAD_INVITE


def test_invitation_is_not_in_the_file(registry: Registry, tmp_path: Path) -> None:
    code = registry.invite(60)
    assert code.encode() not in (tmp_path / "home" / "names.db").read_bytes()


def test_key_owns_a_few_names(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES_EACH", 2)
    for name in ("ann", "bob"):
        registry.enter(name, "KEY", "192.0.2.1")
    assert refusal(registry, "cat", "KEY") == Code.TOO_MANY_NAMES
    registry.enter("cat", "OTHER", "192.0.2.1")


def test_all_own_a_limited_number(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 1)
    registry.enter("ann", "KEY", "192.0.2.1")
    assert refusal(registry, "bob", "OTHER") == Code.TOO_MANY_NAMES


def test_two_that_want_one_name_at_once_do_not_both_get_it(registry: Registry, tmp_path: Path) -> None:
    other = Registry(tmp_path / "home" / "names.db")
    asking = [gevent.spawn(_outcome, one, f"KEY{number}") for number in range(20) for one in (registry, other)]
    outcomes = [each.get() for each in asking]
    assert outcomes.count(None) == 2  # the same key through both
    assert set(outcomes) == {None, Code.NAME_OWNED}
    other.close()


def _outcome(registry: Registry, owner: str) -> Code | None:
    try:
        registry.enter("ann", owner, "192.0.2.1")
    except Refused as refused:
        return refused.code
    return None


def test_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "names.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(SecurityError, match=f"cannot use {path}: file is not a database"):
        Registry(path)


def test_database_that_another_holds_is_an_error_in_the_end(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry._on_thread(registry._db.execute, "PRAGMA busy_timeout = 50")
    holder = sqlite3.connect(tmp_path / "home" / "names.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SecurityError, match="database is locked"):
        registry.enter("ann", "KEY", "192.0.2.1")
    holder.close()
    registry.enter("ann", "KEY", "192.0.2.1")


# --- a file of an older version ----------------------------------------------------------------

OLD = """
CREATE TABLE names (
    key TEXT PRIMARY KEY, written TEXT NOT NULL UNIQUE, small TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL, owner TEXT NOT NULL, since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX owners ON names (owner);
CREATE TABLE bans (what TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE invites (digest TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO names VALUES ('tom', 'Torn', 'torn', 'Tom', 'TOM', 1);
INSERT INTO names VALUES ('\u0184', '\u0184', '\u0185', '\u0184', 'TONE', 2);
INSERT INTO names VALUES ('one', 'one', 'one', 'one', 'ONE', 3);
INSERT INTO names VALUES ('\u03ed', '\u03ed', '\u03ed', '\u03ed', 'SHIMA', 4);
INSERT INTO names VALUES ('o', 'o', 'o', 'o', 'O', 5);
INSERT INTO bans VALUES ('192.0.2.9');
"""
"""In its table m looked like rn, and U+03ED not like o."""


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Registry]:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as old:
        old.executescript(OLD)
    old.close()
    one = Registry(path)
    yield one
    one.close()


@pytest.mark.attack(26)
def test_names_of_an_older_version_are_compared_by_the_rules_of_this_one(older: Registry) -> None:
    older.enter("Tom", "TOM", "192.0.2.1")
    assert refusal(older, "T\u043em", "OTHER") == Code.NAME_OWNED
    older.enter("Torn", "OTHER", "192.0.2.1")
    assert older.names()[-1].since > 1
    assert older.bans() == ["192.0.2.9"]


def test_names_that_have_become_alike_stay_with_their_owners(older: Registry) -> None:
    older.enter("\u03ed", "SHIMA", "192.0.2.1")
    older.enter("o", "O", "192.0.2.1")
    assert refusal(older, "\u03ed", "O") == Code.NAME_OWNED
    assert refusal(older, "\u043e", "O") == Code.NAME_OWNED


def test_file_is_renewed_once(older: Registry, tmp_path: Path) -> None:
    older.enter("ann", "KEY", "192.0.2.1")
    version = older.version()
    again = Registry(tmp_path / "old.db")
    assert owners(again) == owners(older)
    assert len(owners(again)) == 6
    assert older.version() == version
    again.close()


# --- another program that has the file --------------------------------------------------------


@pytest.fixture
def busy(registry: Registry, tmp_path: Path) -> Iterator[None]:
    """Somebody is writing, and does not stop."""
    registry.enter("ann", "KEY", "192.0.2.1")
    other = sqlite3.connect(registry._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


@pytest.mark.usefixtures("busy")
def test_who_changes_nothing_need_not_wait(registry: Registry) -> None:
    with gevent.Timeout(REGISTRY_LOCK_SECONDS / 2):
        registry.enter("ann", "KEY", "192.0.2.1")
        registry.enter("guest", None, "192.0.2.1")
        assert refusal(registry, "ann", "OTHER") == Code.NAME_OWNED


@pytest.mark.usefixtures("busy")
def test_who_is_new_waits_but_not_long(registry: Registry) -> None:
    with gevent.Timeout(5 * REGISTRY_LOCK_SECONDS), pytest.raises(SecurityError, match="locked"):
        registry.enter("eve", "OTHER", "192.0.2.1")


def test_who_has_waited_too_long_gets_nothing_any_more(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REGISTRY_SECONDS", -1.0)
    assert refusal(registry, "ann", "KEY") == Code.FAILED
    assert registry.names() == []
