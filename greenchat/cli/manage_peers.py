"""``greenchat fingerprint`` and ``greenchat peers``: this user's key, and the keys that others had."""

import argparse
from collections.abc import Sequence

from greenchat.cli.arguments import Parser, user
from greenchat.cli.process import report, show, tell
from greenchat.client.peers import is_named
from greenchat.protocol.text import safe_line
from greenchat.security.home import IDENTITY, KNOWN_PEERS, home
from greenchat.security.keys import Identity
from greenchat.security.known import Known
from greenchat.security.tls import fingerprint as fingerprint_of
from greenchat.security.tls import short

__all__ = ["fingerprint", "peers"]


def fingerprint(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Show what others know this user by; the exit status."""
    Parser(prog=prog, description="Show what others see of your key, short, to compare, and whole.").parse_args(
        arguments
    )

    def command() -> int:
        mark = fingerprint_of(Identity(home() / IDENTITY).certificate)
        show(f"{short(mark)} {mark}")
        return 0

    return report(command)


def peers(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Show or forget whom this user's client knows; the exit status."""
    options = _options(arguments, prog)

    def command() -> int:
        known = Known(home() / KNOWN_PEERS)
        return _list(known) if options.action == "list" else _forget(known, options.name)

    return report(command)


def _options(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Whom your client knows by their keys.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show each one's key, as greenchat fingerprint does there, server and name")
    forget = actions.add_parser("forget", help="take the next key of a name for the right one, on every server")
    forget.add_argument("name", type=user)
    return parser.parse_args(arguments)


def _list(known: Known) -> int:
    for who, mark in known.all().items():
        show(f"{_comparable(mark)} {who}")
    return 0


def _comparable(mark: str) -> str:
    try:
        return short(mark)
    except ValueError:  # somebody has edited the file
        return safe_line(mark)


def _forget(known: Known, name: str) -> int:
    found = [who for who in known.all() if is_named(who, name)]
    for who in found:
        known.forget(who)
    if not found:
        tell(f"nobody of the name {name} is known")
    return 0 if found else 1
