"""``greenchat client``, and ``ChatClient.py``."""

import argparse
import contextlib
import signal
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from greenchat.cli.arguments import (
    Parser,
    accept,
    directory,
    elsewhere,
    fingerprint,
    history,
    host,
    listen_port,
    parallel,
    rate,
    server,
    server_port,
    user,
)
from greenchat.cli.process import (
    divert_tracebacks,
    end_by,
    fill_standard_descriptors,
    on_job_control,
    on_signals,
    tell,
)
from greenchat.client import Accept, ChatClient, Route
from greenchat.client.console import STDERR, mark
from greenchat.client.program import Program
from greenchat.errors import SecurityError
from greenchat.net import raise_descriptor_limit
from greenchat.protocol.limits import DOWNLOADS, SHOWN_NAMES
from greenchat.security.home import user_home
from greenchat.transfer.share import shared_in

if TYPE_CHECKING:  # only a client that encrypts needs these
    from greenchat.client.trust import Trust
    from greenchat.security.keys import Identity
    from greenchat.security.known import Known

__all__ = ["client"]


def client(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run a client on standard input and output; the exit status."""
    options = _options(arguments, prog)
    fill_standard_descriptors()
    raise_descriptor_limit()
    divert_tracebacks()
    try:
        trust, identity, known_peers = _keys(options.fingerprint) if options.tls else (None, None, None)
    except SecurityError as error:
        tell(str(error), mark(STDERR))
        return 1

    def connect(name: str, program: Program) -> ChatClient:
        return ChatClient(
            name, options.port, host=options.host, others=options.server, listen=options.listen,
            share=options.share, route=Route(options.transfer), parallel=options.parallel,
            limit_rate=options.limit_rate, trust=trust, identity=identity, invite=options.invite,
            known_peers=known_peers, insecure=options.insecure, accept=options.accept,
            room=options.room or "", history=options.history, reconnect=options.reconnect,
            on_served=program.on_served, on_asked=program.on_asked, on_lost=program.on_lost, on_back=program.on_back,
            on_private=program.on_private, on_note=program.on_note,
        )  # fmt: skip

    if options.accept is not Accept.NONE and _is_home(options.share):
        tell(_exposure(shared_in(options.share)), mark(STDERR))
    program = Program(options.name, connect)
    on_signals(program.end_by, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    on_job_control(program.leave_terminal, program.take_terminal)
    status = program.run()
    if status > 128:
        end_by(status - 128)
    return status


def _options(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Chat, and exchange files.")
    parser.add_argument("-l", dest="listen", type=listen_port, required=True, metavar="PORT",
                        help="port to listen on for file requests; 0 picks a free one")  # fmt: skip
    parser.add_argument("-p", dest="port", type=server_port, required=True, metavar="PORT",
                        help="port of the chat server")  # fmt: skip
    parser.add_argument("--host", type=partial(host, port_goes="and the port with -p"), default="127.0.0.1",
                        help="host of the chat server (%(default)s)")  # fmt: skip
    for option, place in (("--port", "give the port of the server with -p"), ("--listen", "give the port with -l")):
        parser.add_argument(option, dest="elsewhere", nargs="?", const="", type=elsewhere(place),
                            help=argparse.SUPPRESS)  # fmt: skip
    parser.add_argument("--server", type=server, action="append", default=[], metavar="HOST:PORT",
                        help="another server of the same chat, for when one is gone; may be repeated")  # fmt: skip
    parser.add_argument("--tls", action="store_true",
                        help="encrypt; on first use the server's fingerprint is remembered")  # fmt: skip
    parser.add_argument("--fingerprint", type=fingerprint, metavar="SHA256:...",
                        help="encrypt, and only with the server that has this fingerprint")  # fmt: skip
    parser.add_argument("--invite", default="", metavar="CODE", help="an invitation to a server for members only")
    parser.add_argument(
        "--insecure", action="store_true", help="encrypt nothing, not even beyond this machine; no files go there then"
    )
    parser.add_argument("--name", help="your name, instead of the first line of input")
    parser.add_argument("--room", type=user, help="the room to enter (lobby)")
    parser.add_argument("--history", type=history, default=0, metavar="N",
                        help="show so many earlier messages first, up to 10000 (%(default)s)")  # fmt: skip
    parser.add_argument("--no-reconnect", dest="reconnect", action="store_false",
                        help="end when the server is gone, rather than to come back to it")  # fmt: skip
    parser.add_argument("--share", type=directory, default=".", metavar="DIR",
                        help="directory of the files that others may fetch (%(default)s)")  # fmt: skip
    parser.add_argument("--accept", type=accept, metavar="|".join(Accept),
                        help="who may fetch them (all; with --tls known)")  # fmt: skip
    parser.add_argument("--transfer", choices=[str(route) for route in Route], default="auto",
                        help="how to reach the owner of a file (%(default)s)")  # fmt: skip
    parser.add_argument("--parallel", type=parallel, default=DOWNLOADS, metavar="N",
                        help="how many files to fetch at once, 1 to 16; the rest wait (%(default)s)")  # fmt: skip
    parser.add_argument("--limit-rate", type=rate, metavar="RATE",
                        help="bytes a second to receive, and to send, at most; from 160K")  # fmt: skip
    options = parser.parse_args(arguments)
    options.tls = options.tls or options.fingerprint is not None
    if options.insecure and options.tls:
        parser.error("--insecure is the contrary of --tls")
    if options.invite and not options.tls:
        parser.error("--invite takes --tls")
    return options


def _is_home(share: str) -> bool:
    own = user_home()
    with contextlib.suppress(OSError):
        return own is not None and own.samefile(share)
    return False


def _exposure(names: Sequence[str]) -> str:
    some = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    files = "1 file" if len(names) == 1 else f"{len(names)} files"
    named = f" ({some})" if some else ""
    return f"this is your home directory: others may fetch {files} from it{named}; --share gives another"


def _keys(pinned: str | None) -> "tuple[Trust, Identity, Known]":
    """Return how the client knows its server, its own key, and the keys of others. Raises `SecurityError`."""
    from greenchat.client.trust import Trust
    from greenchat.security.home import IDENTITY, KNOWN_PEERS, KNOWN_SERVERS, home
    from greenchat.security.keys import Identity
    from greenchat.security.known import Known

    def on_new(who: str, fingerprint: str) -> None:
        tell(f"from now on {who} is known by its fingerprint {fingerprint}", mark(STDERR))

    place = home()
    trust = Trust(Known(place / KNOWN_SERVERS), pinned, on_new)
    return trust, Identity(place / IDENTITY), Known(place / KNOWN_PEERS)
