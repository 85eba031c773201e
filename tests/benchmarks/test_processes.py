"""Peers that do not start: each fake program is first on the PATH."""

from pathlib import Path

import pytest

from benchmarks import peers, processes, relay
from benchmarks.carriers import CARRIERS, Place
from benchmarks.peers import PEERS
from benchmarks.processes import running, start_failure, version
from benchmarks.relays import DIRECT, RELAYS

FAKES = {
    "fails": ("echo 'unknown directive \"stream\"' >&2; exit 1", 'ended with status 1: unknown directive "stream"'),
    "hangs": ("exec sleep 60", "nothing listens at its port after"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_SECONDS", 0.2)


@pytest.fixture(params=FAKES)
def why(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said of the fake programs."""
    script, told = FAKES[request.param]
    home = tmp_path / "fake programs"
    home.mkdir()
    for name in ("nats-server", "nginx", "haproxy", "curl"):
        (home / name).write_text(f"#!/bin/sh\n{script}\n")
        (home / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(home), prepend=":")
    return told


def test_chat_server_that_does_not_start_is_told(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", {"NATS": PEERS["NATS"]})
    assert why in peers.absent()["NATS"]


@pytest.mark.parametrize("name", ["nginx stream", "HAProxy"])
def test_relay_that_does_not_start_is_told(why: str, name: str, tmp_path: Path) -> None:
    assert why in str(relay._failure(RELAYS[name], tmp_path))


def test_carrier_that_does_not_start_is_told(why: str, tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path, tmp_path)
    assert why in str(start_failure(lambda: CARRIERS["curl from nginx"].open(place)))


def test_program_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert relay._failure(RELAYS["nginx stream"], tmp_path) == "nginx is not installed"
    assert "No such file" in str(start_failure(lambda: running(["nginx"], tmp_path)))
    assert version(["nginx", "-v"]) == "of unknown version"


def test_relay_that_starts_is_measured(tmp_path: Path) -> None:
    assert relay._failure(RELAYS[DIRECT], tmp_path) is None


def test_version_of_a_program_that_hangs_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.1)
    assert version(["sleep", "60"]) == "of unknown version"
