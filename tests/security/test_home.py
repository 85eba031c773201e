import sys
from pathlib import Path

import pytest

from greenchat.errors import SecurityError
from greenchat.security.home import home


def test_home_is_where_the_platform_keeps_such_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("platformdirs")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert home() == tmp_path / "greenchat"
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(SecurityError, match=r"install greenchat\[secure\]"):
        home()
