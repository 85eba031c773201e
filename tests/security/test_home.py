import os
import pwd
import sys
from pathlib import Path

import pytest

from greenchat.errors import Code, SecurityError
from greenchat.security.home import home, user_home
from greenchat.security.keys import Identity

WITHIN = "Library/Application Support/greenchat" if sys.platform == "darwin" else ".config/greenchat"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is not in the system's list, as in a container that was started as any number."""

    def missing(uid: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", missing)


def listed_home() -> Path:
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def test_xdg_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert home() == tmp_path / "config" / "greenchat"
    assert list(tmp_path.iterdir()) == []


def test_home_directory_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / WITHIN


@pytest.mark.attack(50)
@pytest.mark.parametrize("relative", ["", "~/.config", "config", "."])
def test_relative_xdg_directory_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", relative)
    assert home() == tmp_path / WITHIN


@pytest.mark.attack(50)
@pytest.mark.parametrize("wrong", [None, "", "~", "here", ".", "/dev/null", "/nowhere/at/all"])
def test_home_that_is_no_directory_is_looked_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str | None
) -> None:
    (tmp_path / "here").mkdir()
    if wrong is not None:
        monkeypatch.setenv("HOME", wrong)
    assert user_home() == listed_home()
    assert home() == listed_home() / WITHIN


@pytest.mark.attack(50)
@pytest.mark.usefixtures("unlisted")
@pytest.mark.parametrize("wrong", [None, "", "~", "here", ".", "/dev/null", "/nowhere/at/all"])
@pytest.mark.parametrize("relative", [None, "~/.config"])
def test_without_any_home_there_is_no_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str | None, relative: str | None
) -> None:
    if wrong is not None:
        monkeypatch.setenv("HOME", wrong)
    if relative is not None:
        monkeypatch.setenv("XDG_CONFIG_HOME", relative)
    assert user_home() is None
    with pytest.raises(SecurityError, match="set HOME, or XDG_CONFIG_HOME, to an absolute path") as refused:
        Identity(home() / "identity.pem")
    assert refused.value.code == Code.BAD_KEY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unlisted")
def test_unlisted_user_may_still_have_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_home() == tmp_path
