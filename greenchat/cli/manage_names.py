"""``greenchat names``: who owns which name on this machine's servers, who is invited, and who is not let in."""

import argparse
import contextlib
import time
from collections.abc import Sequence

from greenchat.backplane import leases
from greenchat.backplane.store import Store
from greenchat.cli.arguments import Parser, backplane, banned, hours, user
from greenchat.cli.process import report, show, tell
from greenchat.protocol.limits import INVITE_HOURS
from greenchat.security.home import NAMES, home
from greenchat.server.registry import Registry

__all__ = ["names"]


def names(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Show or change what servers remember; the exit status."""
    options = _options(arguments, prog)

    def command() -> int:
        with contextlib.closing(Registry(home() / NAMES)) as registry:
            return _do(registry, options)

    return report(command)


def _options(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Who owns which name on this machine's servers.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show each name, the fingerprint of its owner's key, and since when")
    free = actions.add_parser("free", help="let somebody else have a name")
    free.add_argument("name", type=user)
    free.add_argument("--backplane", type=backplane, metavar="URL", help="on the servers that have this Redis, too")
    actions.add_parser("bans", help="show who is not let in")
    for action, text in (("ban", "do not let in a key, or an address"), ("unban", "let it in again")):
        actions.add_parser(action, help=text).add_argument(
            "what", type=banned, help="the fingerprint of a key, or an address"
        )
    invite = actions.add_parser("invite", help="make an invitation, good once, for a server with --members-only")
    invite.add_argument("--hours", type=hours, default=INVITE_HOURS, help="how long it is good for (%(default)s)")
    return parser.parse_args(arguments)


def _do(registry: Registry, options: argparse.Namespace) -> int:
    match options.action:
        case "list":
            for name, owner, since in registry.names():
                show(f"{owner} {time.strftime('%Y-%m-%d', time.localtime(since))} {name}")
        case "bans":
            for what in registry.bans():
                show(what)
        case "free":
            return _done(_free(registry, options.name, options.backplane), f"nobody owns {options.name}")
        case "ban":
            registry.ban(options.what)
        case "unban":
            return _done(registry.unban(options.what), f"{options.what} is not banned")
        case "invite":
            show(registry.invite(3600 * options.hours))
    return 0


def _free(registry: Registry, name: str, url: str | None) -> bool:
    """Whether somebody owned it. Raises `LogError` if it can't be freed on the backplane."""
    owned = False
    if url:
        with contextlib.closing(Store(url)) as store:
            owned = leases.free(store, name)
    return registry.free(name) or owned


def _done(done: bool, otherwise: str) -> int:  # noqa: FBT001 - what a change says of itself
    if not done:
        tell(otherwise)
    return 0 if done else 1
