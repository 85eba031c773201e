"""The tests with every supported Python, and with the oldest releases that pyproject.toml allows.

`make test-matrix` runs them. A Python that is not installed is skipped, with a word.
"""

import os
from itertools import chain
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"

# pyenv keeps each Python in a directory of its own, and puts only the chosen ones on the PATH.
PYENV = Path("~/.pyenv/versions").expanduser()
os.environ["PATH"] = os.pathsep.join([*map(str, PYENV.glob("3.*/bin")), os.environ["PATH"]])


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests with the newest releases."""
    session.install("--editable", ".[dev]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest releases that are allowed, of what greenchat itself imports."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    runtime = chain(project["dependencies"], *(extras[name] for name in ("blake3", "progress", "redis", "secure")))
    session.install("--editable", ".[dev]", *(requirement.replace(">=", "==") for requirement in runtime))
    session.run("pytest", "-n", "auto", *session.posargs)
