"""Files that were fetched lie where the programs start again, and are called like modules: none is ever imported."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent import subprocess
from programs import GOODBYE, TOP, Client, Program, Server

FETCHED = ("random", "rich", "json", "gevent", "cryptography", "blake3", "redis", "greenchat")
PROGRAMS = ("ChatClient.py", "ChatServer.py", "demo.py", "pyproject.toml", "greenchat")


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to which a client has fetched files called like modules, each of which leaves a mark when it runs."""
    root = tmp_path_factory.mktemp("fetched")
    theirs, here = root / "theirs", root / "here"
    theirs.mkdir()
    for module in FETCHED:
        (theirs / f"{module}.py").write_text(f"open({str(root / 'mark')!r}, 'a').write({module!r})\n")
    with Server() as server, Client(server.port, theirs, "--name", "owner") as owner:
        owner.wait_for_menu()
        with Client(server.port, here, "--name", "ann") as ann:
            for module in FETCHED:
                ann.type("f", "owner", f"{module}.py")
                ann.err.wait_for(f"received {module}.py")
            ann.type("x")
            assert ann.status() == 0
    return root


class Place:
    """A copy of *fetched*, to start programs in; what the files do leaves a *mark*."""

    def __init__(self, fetched: Path, here: Path) -> None:
        shutil.copytree(fetched / "here", here)
        self.here = here
        self.mark = fetched / "mark"
        self.mark.unlink(missing_ok=True)
        self._payload = (here / "random.py").read_text()

    def plant(self, *but: str) -> None:
        """Add files called like all other modules of the standard library, *but* not some of them."""
        for module in sys.stdlib_module_names.difference(but):
            (self.here / f"{module}.py").write_text(self._payload)

    def add_checkout(self) -> None:
        """Make it a checkout of its own, in which somebody has fetched the files."""
        for name in PROGRAMS:
            if (TOP / name).is_dir():
                shutil.copytree(TOP / name, self.here / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(TOP / name, self.here)

    def run(self, *arguments: str | Path, answer: str = "") -> tuple[int, str, str]:
        """Run a program to its end; its status, output and errors."""
        done = subprocess.run(
            [*map(str, arguments)],
            cwd=self.here,
            env={**os.environ, "XDG_CONFIG_HOME": str(self.here / "config")},
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def place(fetched: Path, tmp_path: Path) -> Iterator[Place]:
    place = Place(fetched, tmp_path / "here")
    yield place
    assert not place.mark.exists(), f"run as code: {place.mark.read_text()}"


def start_all(place: Place, server: Server, client_command: list[str | Path], server_command: list[str | Path]) -> None:
    """Start a client, and a server, in *place*."""
    status, shown, _ = place.run(*client_command, "-l", "0", "-p", str(server.port), "--name", "bob", answer="x\n")
    assert (status, shown.splitlines()[-1]) == (0, GOODBYE)
    assert server_command[0] == sys.executable
    with Program(*server_command[1:], "0", home=place.here) as started:
        started.err.wait_for("listening on")
        started.signal(signal.SIGTERM)
        started.status()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def test_payload_leaves_its_mark_where_it_is_imported(place: Place) -> None:
    place.run(sys.executable, "-c", "import random")
    assert place.mark.read_text() == "random"
    place.mark.unlink()


@pytest.mark.attack(38)
def test_programs_started_where_files_were_fetched(place: Place, server: Server) -> None:
    place.plant()
    start_all(place, server, [sys.executable, TOP / "ChatClient.py"], [sys.executable, TOP / "ChatServer.py"])


@pytest.mark.attack(38)
def test_programs_of_a_checkout_to_which_files_were_fetched(place: Place, server: Server) -> None:
    place.plant()
    place.add_checkout()
    here = place.here
    start_all(place, server, [sys.executable, here / "ChatClient.py"], [sys.executable, here / "ChatServer.py"])


@pytest.mark.attack(38)
def test_programs_started_from_elsewhere_in_a_checkout_to_which_files_were_fetched(
    place: Place, server: Server, tmp_path: Path
) -> None:
    place.plant()
    place.add_checkout()
    with Client(server.port, tmp_path / "elsewhere"):
        pass
    client = [sys.executable, str(place.here / "ChatClient.py"), "-l", "0", "-p", str(server.port), "--name", "bob"]
    assert subprocess.run(client, cwd=tmp_path, input=b"x\n", capture_output=True, check=False).returncode == 0


@pytest.mark.attack(38)
def test_package_run_as_a_module(place: Place, server: Server) -> None:
    """What `python -m` itself imports, before the package is, it takes from here: no program can help that."""
    (place.here / "greenchat.py").unlink()
    own = place.run(sys.executable, "-P", "-c", "import runpy, sys; print(*sys.modules)")[1].split()
    place.plant(*own)
    module: list[str | Path] = [sys.executable, "-m", "greenchat"]
    start_all(place, server, [*module, "client"], [*module, "server"])
    for arguments in (["names", "list"], ["peers", "list"], ["fingerprint"]):
        assert place.run(*module, *arguments)[0] == 0


@pytest.mark.attack(38)
def test_package_run_as_a_module_in_safe_mode(place: Place, server: Server) -> None:
    place.plant()
    start_all(
        place, server, [sys.executable, "-P", "-m", "greenchat", "client"], [sys.executable, TOP / "ChatServer.py"]
    )


@pytest.mark.attack(38)
def test_command(place: Place, server: Server) -> None:
    place.plant()
    command = Path(sys.executable).with_name("greenchat")
    if not command.exists():
        pytest.skip("greenchat is not installed")
    status, _, _ = place.run(command, "client", "-l", "0", "-p", str(server.port), "--name", "bob", answer="x\n")
    assert status == 0
    for arguments in (["names", "list"], ["peers", "list"], ["fingerprint"]):
        assert place.run(command, *arguments)[0] == 0


@pytest.mark.attack(38)
def test_demo_and_the_relay_in_a_checkout_to_which_files_were_fetched(place: Place) -> None:
    place.plant()
    place.add_checkout()
    status, shown, _ = place.run(sys.executable, "demo.py")
    assert (status, "demo passed" in shown) == (0, True)


@pytest.mark.attack(38)
def test_current_directory_on_the_user_s_path(place: Place, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}{os.curdir}")
    start_all(place, server, [sys.executable, TOP / "ChatClient.py"], [sys.executable, TOP / "ChatServer.py"])
