import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import greenchat

assert greenchat.__file__
HOME = Path(greenchat.__file__).parent

PURE = {
    "abc",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "json",
    "pkgutil",  # for the package's own data
    "re",
    "string",
    "struct",
    "typing",
    "unicodedata",
}
STRANGERS = {
    "server": ["client", "cli"],
    "client": ["server", "cli"],
    "backplane": ["server", "client", "transfer", "security", "cli"],
    "log": ["backplane", "server", "client", "transfer", "security", "cli"],
    "transfer": ["server", "client", "cli"],
    "security": ["server", "client", "transfer", "cli", "net"],
    "protocol": ["server", "client", "transfer", "security", "cli"],
}
OPTIONAL = {
    "blake3": "transfer/digest.py",
    "cryptography": "security/keys.py",
    "redis": "backplane/store.py",
    "rich": "client/bars.py",
}
"""Packages that make something better where they are installed, each with the only place that may know it."""
IMPURE_BUILTINS = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The dotted name of everything that *tree*, a module of *package*, imports, at the top or further in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join(filter(None, [*parts, node.module]))
            yield from (f"{source}.{alias.name}" for alias in node.names)


def unguarded(tree: ast.AST, package: str) -> Iterator[str]:
    """What *tree* imports where a failure would be an error."""
    inside = {id(node) for guard in ast.walk(tree) for block in _forgiven(guard) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inside:
            yield from imports(node, package)


def _forgiven(node: ast.AST) -> list[ast.stmt]:
    """The statements in *node* that may fail to import something."""
    if isinstance(node, ast.Try):
        catches = [handler.type for handler in node.handlers if handler.type]
    elif isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        catches = [argument for call in calls for argument in call.args]
    else:
        return []
    names = {ast.unparse(name) for each in catches for name in getattr(each, "elts", [each])}
    return node.body if names & {"ImportError", "ModuleNotFoundError"} else []


def within(name: str, *packages: str) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(HOME.parent).parent.parts)


def trees(*places: str) -> dict[Path, ast.AST]:
    """The parsed modules at *places* inside the package, files or folders; places yet to come hold none."""
    found = [path for place in places for path in [HOME / place, *(HOME / place).rglob("*.py")] if path.is_file()]
    return {path: ast.parse(path.read_bytes()) for path in found}


def imported(*places: str) -> set[tuple[str, str]]:
    """Each module at *places*, with each name that it imports."""
    return {
        (str(path.relative_to(HOME)), name)
        for path, tree in trees(*places).items()
        for name in imports(tree, package_of(path))
    }


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import os.path, re as r", ["os.path", "re"]),
        ("from os import path, sep as s", ["os.path", "os.sep"]),
        ("from greenchat import server", ["greenchat.server"]),
        ("def f():\n    import os", ["os"]),
        ("from . import room", ["greenchat.server.room"]),
        ("from .room import Room", ["greenchat.server.room.Room"]),
        ("from .. import client", ["greenchat.client"]),
        ("from ..client.menu import Menu", ["greenchat.client.menu.Menu"]),
    ],
)
def test_imports_are_found(source: str, names: list[str]) -> None:
    assert list(imports(ast.parse(source), "greenchat.server")) == names


def test_modules_are_found() -> None:
    assert {path.relative_to(HOME).as_posix() for path in trees("protocol", "errors.py")} >= {
        "protocol/__init__.py",
        "protocol/wire.py",
        "errors.py",
    }
    assert ("protocol/names.py", "greenchat.errors.Code") in imported("")


def test_protocol_imports_nothing_but_itself_and_pure_modules() -> None:
    allowed = (*PURE, "greenchat.errors", "greenchat.protocol")
    assert {found for found in imported("protocol") if not within(found[1], *allowed)} == set()


def test_errors_import_pure_modules_only() -> None:
    assert {found for found in imported("errors.py") if not within(found[1], *PURE)} == set()


def test_protocol_calls_no_builtin_that_reaches_outside() -> None:
    used = {node.id for tree in trees("protocol").values() for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used & IMPURE_BUILTINS == set()


def test_package_needs_gevent_and_nothing_else() -> None:
    allowed = (*sys.stdlib_module_names, "gevent", "greenchat")
    strangers = {found for found in imported("") if not within(found[1], *allowed)}
    assert {found for found in strangers if not _is_optional(*found)} == set()


def _is_optional(module: str, name: str) -> bool:
    return any(within(name, extra) and Path(module).is_relative_to(place) for extra, place in OPTIONAL.items())


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("import blake3", False),
        ("from blake3 import blake3", False),
        ("def f():\n    import blake3", False),
        ("with contextlib.suppress(OSError):\n    import blake3", False),
        ("try:\n    import blake3\nfinally:\n    pass", False),
        ("try:\n    import blake3\nexcept OSError:\n    pass", False),
        ("try:\n    pass\nexcept ImportError:\n    import blake3", False),
        ("with contextlib.suppress(ImportError):\n    import os", True),
        ("with contextlib.suppress(ImportError):\n    from blake3 import blake3", True),
        ("try:\n    import blake3\nexcept ImportError:\n    pass", True),
        ("try:\n    from blake3 import blake3\nexcept (ImportError, OSError):\n    pass", True),
        ("try:\n    import blake3\nexcept ModuleNotFoundError:\n    pass", True),
    ],
)
def test_guards_are_found(source: str, guarded: bool) -> None:  # noqa: FBT001 - what it is to be
    assert ({*unguarded(ast.parse(source), "greenchat")} & {"blake3", "blake3.blake3"} == set()) is guarded


def test_optional_packages_are_imported_only_where_their_absence_is_no_error() -> None:
    naked = {
        (str(path.relative_to(HOME)), name)
        for path, tree in trees("").items()
        for name in unguarded(tree, package_of(path))
        if within(name, *OPTIONAL)
    }
    assert naked == set()


@pytest.mark.parametrize("extra", OPTIONAL)
def test_package_is_imported_without_its_optional_packages(extra: str, tmp_path: Path) -> None:
    (tmp_path / f"{extra}.py").write_text("raise ImportError")
    modules = [".".join(path.relative_to(HOME.parent).with_suffix("").parts) for path in trees("")]
    source = "".join(f"import {module}\n" for module in modules if not module.endswith("__main__"))
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(HOME.parent)])}
    subprocess.run([sys.executable, "-W", "error", "-c", source], env=environment, check=True)


@pytest.mark.parametrize("place", STRANGERS)
def test_part_knows_nothing_of_its_strangers(place: str) -> None:
    forbidden = [f"greenchat.{stranger}" for stranger in STRANGERS[place]]
    assert {found for found in imported(place, f"{place}.py") if within(found[1], *forbidden)} == set()


def test_package_never_patches_the_standard_library() -> None:
    assert {found for found in imported("") if within(found[1], "gevent.monkey")} == set()
    reached = {node.attr for tree in trees("").values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in reached if name == "monkey" or name.startswith("patch_")} == set()
