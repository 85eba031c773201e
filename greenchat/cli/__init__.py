"""The command line: arguments, signals and exit statuses, and nothing else.

Status 0 is success, 1 an error told on standard error, 2 wrong usage, 128 and the signal's number if one ended it.
"""

import argparse
from collections.abc import Sequence

from greenchat.cli.arguments import Parser
from greenchat.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from greenchat.cli.manage_names import names
    from greenchat.cli.manage_peers import fingerprint, peers
    from greenchat.cli.run_client import client
    from greenchat.cli.run_server import server

__all__ = ["client", "fingerprint", "main", "names", "peers", "server"]

_COMMANDS = {
    "server": "greenchat.cli.run_server",
    "client": "greenchat.cli.run_client",
    "names": "greenchat.cli.manage_names",
    "peers": "greenchat.cli.manage_peers",
    "fingerprint": "greenchat.cli.manage_peers",
}
_load, __dir__ = lazy(__name__, _COMMANDS)
__getattr__ = _load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name, ``greenchat server ...`` for one, and return its exit status."""
    parser = Parser(prog="greenchat", description="A chat room and a file exchange for the terminal.")
    parser.add_argument("command", choices=_COMMANDS, help="what to run; each has a --help of its own")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    chosen = parser.parse_args(arguments)
    return int(_load(chosen.command)(chosen.arguments, prog=f"greenchat {chosen.command}"))
