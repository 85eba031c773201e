from collections.abc import Callable
from pathlib import Path

import pytest

from greenchat import cli
from greenchat.security.keys import Identity
from greenchat.security.known import Known
from greenchat.security.tls import fingerprint, short

pytest.importorskip("cryptography")

MARK = fingerprint(b"a certificate")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "greenchat"


@pytest.fixture
def known(home: Path) -> Known:
    """Whom the user's client knows."""
    return Known(home / "known_peers")


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(list(arguments))
        return (status, *capfd.readouterr())

    return run


def test_fingerprint_is_shown_short_and_whole_and_stays(run: Run, home: Path) -> None:
    shown = run("fingerprint")
    mark = fingerprint(Identity(home / "identity.pem").certificate)
    assert shown == run("fingerprint") == (0, f"{short(mark)} {mark}\n", "")


def test_peers_are_listed_as_their_own_clients_show_them(run: Run, known: Known) -> None:
    assert run("peers", "list") == (0, "", "")
    known.add("here:1 ann of here", MARK)
    assert run("peers", "list") == (0, f"{short(MARK)} here:1 ann of here\n", "")


def test_peer_is_forgotten_on_every_server(run: Run, known: Known) -> None:
    for who in ("here:1 ann", "there:1 ann", "here:1 bob"):
        known.add(who, MARK)
    assert run("peers", "forget", "ANN") == (0, "", "")
    assert known.all() == {"here:1 bob": MARK}
    assert run("peers", "forget", "ann") == (1, "", "nobody of the name ann is known\n")


@pytest.mark.parametrize("arguments", [("peers", "list"), ("peers", "forget", "ann"), ("fingerprint",)])
def test_home_that_cannot_be_used_is_one_line(run: Run, home: Path, arguments: tuple[str, ...]) -> None:
    home.mkdir()
    (home / "known_peers").mkdir()
    (home / "identity.pem").mkdir(mode=0o700)
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("line", ["nonsense here:1 ann", "SHA256:short here:1 ann", "SHA256:! here:1 ann"])
def test_line_that_was_edited_badly_is_one_line(run: Run, known: Known, line: str) -> None:
    known.path.parent.mkdir()
    known.path.write_text(f"{line}\n")
    status, out, err = run("peers", "list")
    assert (status, err.count("\n") + out.count("\n")) in ((0, 1), (1, 1))
