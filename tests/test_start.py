import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import greenchat
from greenchat import client, server

TOP = Path(__file__).resolve().parent.parent


def loaded(program: str, *flags: str) -> set[str]:
    """Return the modules that a process, started with *flags*, has imported after *program*."""
    program += "\nimport sys; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, *flags, "-c", program], cwd=TOP, capture_output=True, check=True, text=True
        ).stdout.split()
    )


def parts(modules: set[str]) -> set[str]:
    """Return the parts of the package that some of *modules* belong to."""
    return {name.split(".")[1] for name in modules if name.startswith("greenchat.")}


def test_package_imports_nothing_by_itself() -> None:
    assert parts(loaded("import greenchat")) == {"lazy"}


def test_package_is_imported_before_any_module_of_the_standard_library() -> None:
    before = loaded("import gc, os", "-S")  # built in, and as every Python has it when it starts
    assert loaded("import os, greenchat.launch", "-S") - before == {"greenchat", "greenchat.lazy", "greenchat.launch"}


def test_client_loads_neither_server_nor_logs_nor_backplane() -> None:
    modules = loaded("import greenchat.cli.run_client; greenchat.client.ChatClient")
    assert parts(modules).isdisjoint({"server", "log", "backplane"})


def test_client_loads_what_encrypts_and_what_moves_files_when_it_is_needed() -> None:
    modules = loaded("import greenchat.cli.run_client; greenchat.client.ChatClient('ann', 1)")
    assert modules.isdisjoint(
        {
            "greenchat.client.trust",
            "greenchat.security.keys",
            "greenchat.transfer.channel",
            "greenchat.transfer.partial",
            "greenchat.transfer.pump",
            "cryptography",
            "blake3",
            "rich",
            "sqlite3",
            "subprocess",
        }
    )


def test_server_loads_neither_client_nor_backplane() -> None:
    modules = loaded("import greenchat.cli.run_server; greenchat.server.ChatServer()")
    assert parts(modules).isdisjoint({"client", "backplane"})


def test_server_loads_what_encrypts_keeps_and_relays_when_it_is_needed() -> None:
    modules = loaded("import greenchat.cli.run_server; greenchat.server.ChatServer()")
    assert modules.isdisjoint(
        {
            "greenchat.log.durable",
            "greenchat.security.keys",
            "greenchat.server.registry",
            "greenchat.server.relay_worker",
            "greenchat.server.remote",
            "greenchat.transfer.pump",
            "cryptography",
            "redis",
            "sqlite3",
            "subprocess",
        }
    )


def test_relay_loads_no_server() -> None:
    assert loaded("import greenchat.server.relay_worker").isdisjoint({"greenchat.server.server", "greenchat.client"})


@pytest.mark.parametrize("package", [greenchat, client, server])
def test_public_names_are_all_there(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert {name for name in names if not hasattr(package, name)} == set()
    assert set(names) <= set(dir(package))


def test_public_names_are_listed_before_they_are_used() -> None:
    program = "import greenchat; assert set(greenchat.__all__) <= set(dir(greenchat))"
    assert parts(loaded(program)) == {"lazy"}


def test_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'greenchat' has no attribute 'Nothing'"):
        _ = greenchat.Nothing
    assert not hasattr(client, "Nothing")


def test_help_shows_the_public_classes() -> None:
    shown = pydoc.plain(pydoc.render_doc(greenchat))
    assert "class ChatClient" in shown
    assert "class ChatServer" in shown
