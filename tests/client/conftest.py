"""What the tests of a client share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from client.owners import Alone, Serving
from conftest import People, Stub
from peers import Owner, with_server

from greenchat.client import downloads

if TYPE_CHECKING:
    from client.street import Street


@pytest.fixture
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a failure is told at once."""
    monkeypatch.setattr(downloads, "RETRY_DELAYS", ())


@pytest.fixture
def tried_again(tried_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and more than once."""
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.0,) * 4)


@pytest.fixture
def dan(people: People, stub: Stub) -> Owner:
    return Owner(people, stub)


@pytest.fixture
def street(tmp_path: Path, tried_once: None) -> "Iterator[Street]":
    from client.street import Street  # noqa: PLC0415 - it needs a library that other tests do without

    one = Street(tmp_path)
    yield one
    one.close()


@pytest.fixture
def serving(people: People) -> Iterator[Serving]:
    serving = Serving(people)
    yield serving
    serving.close()


@pytest.fixture
def alone(stub: Stub, tmp_path: Path) -> Iterator[Alone]:
    alone = Alone(*with_server(stub, tmp_path))
    yield alone
    alone.close()
