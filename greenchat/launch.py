"""The start of every program: make imports safe, then run a command.

Fetched files arrive in the current directory, and a checkout may be that directory. Python imports from there, or from
beside the program, before it looks anywhere else; so a file called ``random.py`` would be run by the next start. Until
`launch` has cleared `sys.path`, only modules may be imported that Python itself has imported already.
"""

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["launch"]


def launch(command: str = "main") -> int:
    """Run *command*, a function of `greenchat.cli`, and return its exit status."""
    _clear_path(os.curdir, os.path.dirname(os.path.realpath(sys.argv[0])))
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # unless whoever started it had it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command handles it, it ends without a traceback
    try:
        return _import(command)()
    except ImportError as error:
        sys.exit(_remedy(error))


def _import(command: str) -> "Callable[[], int]":
    """Import a function of `greenchat.cli`, without garbage collection, which takes a tenth of the time for nothing."""
    gc.disable()
    try:
        from greenchat import cli

        function: Callable[[], int] = getattr(cli, command)
        return function
    finally:
        gc.enable()


def _clear_path(*directories: str) -> None:
    """Remove *directories* from `sys.path`, however they are written there."""
    sys.path[:] = [entry for entry in sys.path if not any(_same(entry, directory) for directory in directories)]


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path or os.curdir, other)
    except OSError:
        return False


def _remedy(error: ImportError) -> str:
    """Return one line that says how to get the package that could not be imported; raise *error* if it is our own."""
    package = (error.name or "").partition(".")[0]
    if package == "greenchat":
        raise error
    from greenchat.install import how_to_install

    if not package:
        return f"something that greenchat needs cannot be imported ({error}): {how_to_install()}"
    if package in sys.stdlib_module_names:
        return f"this Python was built without {package}, which greenchat needs: start it with another"
    if isinstance(error, ModuleNotFoundError):
        return f"greenchat needs {package}, which is not installed: {how_to_install()}"
    return f"greenchat cannot use the {package} that is installed ({error}): {how_to_install()}"
