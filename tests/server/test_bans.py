"""Bans of those who are here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from conftest import until
from gevent.event import Event

from greenchat.errors import Code
from greenchat.server import bans
from greenchat.server.bans import watch_bans
from greenchat.server.registry import Registry

KEY = f"SHA256:{'a' * 43}"


class Present:
    """Somebody who is here."""

    def __init__(self, *marks: str) -> None:
        self._marks = set(marks)
        self.told: list[Code] = []

    def marks(self) -> set[str]:
        return self._marks

    def expel(self, code: Code) -> None:
        self.told.append(code)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    one = Registry(tmp_path / "names.db")
    yield one
    one.close()


@pytest.fixture
def another(registry: Registry, tmp_path: Path) -> Iterator[Registry]:
    """What another program does with the same file."""
    one = Registry(tmp_path / "names.db")
    yield one
    one.close()


@pytest.fixture
def watch(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    monkeypatch.setattr(bans, "BAN_SECONDS", 0.01)
    watching: list[gevent.Greenlet[..., None]] = []
    yield lambda *present: watching.append(gevent.spawn(watch_bans, registry, lambda: present))
    gevent.killall(watching)


@pytest.mark.parametrize("what", [KEY, "192.0.2.1"])
def test_who_is_banned_has_to_go_and_nobody_else(
    watch: Callable[..., None], registry: Registry, another: Registry, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    ann, eve = Present("192.0.2.2"), Present("192.0.2.1", KEY)
    looked, version = Event(), registry.version

    def look() -> int:
        looked.set()
        return version()

    monkeypatch.setattr(registry, "version", look)
    watch(ann, eve)
    looked.wait()
    assert eve.told == []
    another.ban(what)
    until(lambda: eve.told)
    assert eve.told[0] == Code.BANNED
    assert ann.told == []


def test_ban_that_came_between_the_server_s_start_and_the_first_look_counts(
    watch: Callable[..., None], another: Registry
) -> None:
    another.ban(KEY)
    eve = Present(KEY)
    watch(eve)
    until(lambda: eve.told)


@pytest.mark.parametrize("call", ["version", "bans"])
def test_registry_that_cannot_be_read_for_a_while_is_read_again(
    watch: Callable[..., None], registry: Registry, another: Registry, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(registry, call)

    def broken() -> object:
        monkeypatch.setattr(registry, call, real)
        return registry._on_thread(_fail)

    def _fail() -> None:
        raise OSError("no disk")

    monkeypatch.setattr(registry, call, broken)
    eve = Present(KEY)
    watch(eve)
    another.ban(KEY)
    until(lambda: eve.told)
