"""Programs where something is missing: one line that says what to do, and status 1."""

import ast
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from gevent import subprocess
from programs import GOODBYE, TOP, Client, Server, absent

from greenchat.install import how_to_install

CLIENT = ["ChatClient.py", "-l", "0", "-p", "1"]
SERVER = ["ChatServer.py", "0"]
COMMAND = ["-m", "greenchat"]
OLD = [
    str(path)
    for version in ("2.7", "3.6", "3.8", "3.10")
    for path in [Path(f"/usr/bin/python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    if path.exists()
]


def run(
    *arguments: str, home: Path = TOP, python: str = sys.executable, **environment: str | Path
) -> tuple[int, str, str]:
    """Run Python in *home* with nothing but *environment*; its status, output and errors."""
    done = subprocess.run(
        [python, *arguments],
        cwd=home,
        env={"PATH": os.environ["PATH"], **{name: str(value) for name, value in environment.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# --- gevent, the extras, parts of Python ------------------------------------------------------


@pytest.mark.parametrize("program", [CLIENT, SERVER, [*COMMAND, "client"], [*COMMAND, "names", "list"]])
def test_without_gevent(tmp_path: Path, program: list[str]) -> None:
    hidden = "raise ModuleNotFoundError('no gevent', name='gevent')\n"
    (tmp_path / "gevent.py").write_text(hidden)
    line = "greenchat needs gevent, which is not installed: pip install .\n"
    assert run(*program, PYTHONPATH=tmp_path) == (1, "", line)


def test_with_a_gevent_that_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "gevent.py").touch()
    status, out, err = run(*CLIENT, PYTHONPATH=tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.endswith(": pip install .\n")


def test_with_something_that_fails_to_be_imported(tmp_path: Path) -> None:
    status, out, err = run(*SERVER, PYTHONPATH=absent(tmp_path, "gevent"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.endswith(": pip install .\n")


def test_with_a_python_that_lacks_a_part(tmp_path: Path) -> None:
    (tmp_path / "_sqlite3.py").write_text("raise ModuleNotFoundError('no', name='_sqlite3')\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = ['names', 'list']"
    start = f"{program}; from greenchat.launch import launch; sys.exit(launch())"
    line = "this Python was built without _sqlite3, which greenchat needs: start it with another\n"
    assert run("-c", start, XDG_CONFIG_HOME=tmp_path) == (1, "", line)


def test_mistake_of_our_own_is_not_hidden(tmp_path: Path) -> None:
    start = "import sys; sys.modules['greenchat.net'] = None; from greenchat.launch import launch; launch('client')"
    status, _, err = run("-c", start, XDG_CONFIG_HOME=tmp_path)
    assert (status, "Traceback" in err) == (1, True)


@pytest.mark.parametrize(
    ("program", "package", "extra", "what"),
    [
        ([*SERVER, "--backplane", "redis://127.0.0.1:1"], "redis", "redis", "a backplane needs redis"),
        (
            [*COMMAND, "names", "free", "ann", "--backplane", "redis://127.0.0.1:1"],
            "redis",
            "redis",
            "a backplane needs redis",
        ),
        ([*SERVER, "--tls"], "cryptography", "secure", "keys need cryptography"),
        ([*CLIENT, "--tls"], "cryptography", "secure", "keys need cryptography"),
        ([*COMMAND, "fingerprint"], "cryptography", "secure", "keys need cryptography"),
    ],
)
def test_without_an_extra_that_was_asked_for(
    tmp_path: Path, program: list[str], package: str, extra: str, what: str
) -> None:
    status, out, err = run(*program, PYTHONPATH=absent(tmp_path, package), XDG_CONFIG_HOME=tmp_path)
    assert (status, out, err) == (1, "", f"{what}: pip install '.[{extra}]'\n")


def test_server_that_could_not_check_proofs_does_not_start(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    assert run(*COMMAND, "fingerprint", XDG_CONFIG_HOME=tmp_path)[0] == 0
    certificate = str(tmp_path / "greenchat" / "identity.pem")
    without = absent(tmp_path, "cryptography")
    status, out, err = run(*SERVER, "--tls-cert", certificate, PYTHONPATH=without, XDG_CONFIG_HOME=tmp_path)
    assert (status, out, err) == (1, "", "keys need cryptography: pip install '.[secure]'\n")


def test_without_the_extras_that_make_things_better(tmp_path: Path) -> None:
    without = absent(tmp_path, "rich", "blake3")
    with Server() as server, Client(server.port, tmp_path / "ann", "--name", "ann", without=without) as ann:
        ann.wait_for_menu()
        ann.type("x")
        assert ann.status() == 0
        assert (ann.out.lines[-1], ann.err.text) == (GOODBYE, "")


@pytest.mark.parametrize("extra", ["", "redis"])
def test_remedy_is_for_where_the_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    wanted = f"[{extra}]" if extra else ""
    assert how_to_install(extra, tmp_path) == f"pip install {shlex.quote(f'greenchat{wanted}')}"
    (tmp_path / "pyproject.toml").touch()
    assert how_to_install(extra, tmp_path) == f"pip install {shlex.quote(f'{tmp_path}{wanted}')}"
    monkeypatch.chdir(tmp_path)
    assert how_to_install(extra, tmp_path) == f"pip install {shlex.quote(f'.{wanted}')}"


# --- an older Python, and a program without its package ---------------------------------------


@pytest.mark.skipif(not OLD, reason="there is no older Python")
@pytest.mark.parametrize("python", OLD)
@pytest.mark.parametrize("program", [CLIENT, SERVER, COMMAND])
def test_with_an_older_python(python: str, program: list[str]) -> None:
    status, out, err = run(*program, python=python, PYTHONDONTWRITEBYTECODE="1")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("greenchat needs Python 3.11 or newer, and this is ")


@pytest.mark.parametrize("path", ["ChatClient.py", "ChatServer.py", "greenchat/__init__.py", "greenchat/__main__.py"])
def test_what_an_older_python_reads_first_has_no_newer_syntax(path: str) -> None:
    source = (TOP / path).read_bytes()
    tree = ast.parse(source, feature_version=(3, 7))
    assert source.isascii()
    newer = (ast.JoinedStr, ast.AnnAssign, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert [node for node in ast.walk(tree) if isinstance(node, newer)] == []


@pytest.mark.parametrize("program", ["ChatClient.py", "ChatServer.py"])
def test_program_without_its_package(tmp_path: Path, program: str) -> None:
    shutil.copy(TOP / program, tmp_path)
    status, out, err = run("-S", program, home=tmp_path)  # -S leaves out what is installed
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"{program} is alone")


# --- no home ----------------------------------------------------------------------------------


@pytest.mark.attack(50)
@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can become somebody who is not listed")
@pytest.mark.parametrize("home", [{}, {"HOME": "~"}, {"HOME": "/nowhere", "XDG_CONFIG_HOME": "~/.config"}])
@pytest.mark.parametrize(
    "command", ["client -l 0 -p 1 --tls", "server 0 --tls", "names list", "peers list", "fingerprint"]
)
def test_without_a_home_there_is_a_clear_line_and_no_key(tmp_path: Path, command: str, home: dict[str, str]) -> None:
    tmp_path.chmod(0o777)
    name, *arguments = command.split()
    program = (
        f"import os, sys, greenchat.cli as cli; run = cli.{name}; import cryptography.x509, greenchat.client.trust;"
        "import locale, greenchat.security.keys, greenchat.server.certificate, greenchat.server.registry;"
        f"os.setuid(12345); sys.exit(run({arguments!r}))"
    )
    status, out, err = run("-c", program, home=tmp_path, PYTHONPATH=TOP, **home)
    assert (status, out) == (1, "")
    assert err == "there is no home directory for keys: set HOME, or XDG_CONFIG_HOME, to an absolute path\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack(50)
def test_client_without_a_home_chats(tmp_path: Path) -> None:
    unlisted = "import pwd, sys; pwd.getpwuid = {}.__getitem__"
    program = f"{unlisted}; from greenchat.launch import launch; sys.exit(launch('client'))"
    with Server() as server:
        client = ["-c", program, "-l", "0", "-p", str(server.port), "--name", "ann"]
        status, out, err = run(*client, home=tmp_path, PYTHONPATH=TOP)
    assert (status, out.splitlines()[-1], err) == (0, GOODBYE, "")
    assert list(tmp_path.iterdir()) == []
