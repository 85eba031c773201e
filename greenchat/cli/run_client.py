"""``greenchat client``, and ``ChatClient.py``."""

import argparse
import signal
from collections.abc import Callable, Sequence

from greenchat.cli.arguments import Parser, directory, fingerprint, listen_port, parallel, port, rate
from greenchat.cli.process import fill_standard_descriptors, on_signals, on_suspend, tell
from greenchat.client import ChatClient, Route, Served
from greenchat.client.program import Program
from greenchat.client.trust import Trust
from greenchat.errors import SecurityError
from greenchat.net import raise_descriptor_limit
from greenchat.protocol.limits import DOWNLOADS
from greenchat.security.home import home
from greenchat.security.keys import Identity
from greenchat.security.known import Known

__all__ = ["client"]


def client(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run a client on standard input and output; the exit status."""
    options = _options(arguments, prog)
    fill_standard_descriptors()
    raise_descriptor_limit()
    try:
        trust = _trust(options)
        identity = Identity(home() / "identity.pem") if trust else None
    except SecurityError as error:
        tell(str(error))
        return 1

    def connect(name: str, on_served: Callable[[Served], None]) -> ChatClient:
        return ChatClient(
            name, options.port, host=options.host, listen=options.listen,
            share=options.share, route=Route(options.transfer), parallel=options.parallel,
            limit_rate=options.limit_rate, trust=trust, identity=identity, invite=options.invite,
            insecure=options.insecure, on_served=on_served,
        )  # fmt: skip

    program = Program(options.name, connect)
    on_signals(lambda number: program.end(128 + number), signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    on_suspend(program.leave_terminal, program.take_terminal)
    return program.run()


def _options(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Chat, and exchange files.")
    parser.add_argument("-l", dest="listen", type=listen_port, required=True, metavar="PORT",
                        help="port to listen on for file requests; 0 picks a free one")  # fmt: skip
    parser.add_argument("-p", dest="port", type=port, required=True, metavar="PORT", help="port of the chat server")
    parser.add_argument("--host", default="127.0.0.1", help="host of the chat server (%(default)s)")
    parser.add_argument("--tls", action="store_true",
                        help="encrypt; on first use the server's fingerprint is remembered")  # fmt: skip
    parser.add_argument("--fingerprint", type=fingerprint, metavar="SHA256:...",
                        help="encrypt, and only with the server that has this fingerprint")  # fmt: skip
    parser.add_argument("--invite", default="", metavar="CODE", help="an invitation to a server for members only")
    parser.add_argument("--insecure", action="store_true", help="encrypt nothing, not even beyond this machine")
    parser.add_argument("--name", help="your name, instead of the first line of input")
    parser.add_argument("--share", type=directory, default=".", metavar="DIR",
                        help="directory of the files that others may fetch (%(default)s)")  # fmt: skip
    parser.add_argument("--transfer", choices=[str(route) for route in Route], default="auto",
                        help="how to reach the owner of a file (%(default)s)")  # fmt: skip
    parser.add_argument("--parallel", type=parallel, default=DOWNLOADS, metavar="N",
                        help="how many files to fetch at once; the rest wait in order (%(default)s)")  # fmt: skip
    parser.add_argument("--limit-rate", type=rate, metavar="RATE",
                        help="bytes a second to receive, and to send, at most; K, M and G may follow")  # fmt: skip
    options = parser.parse_args(arguments)
    options.tls = options.tls or options.fingerprint is not None
    if options.insecure and options.tls:
        parser.error("--insecure is the contrary of --tls")
    if options.invite and not options.tls:
        parser.error("--invite takes --tls")
    return options


def _trust(options: argparse.Namespace) -> Trust | None:
    """How the client knows its server, if it is to encrypt. Raises `SecurityError`."""
    if not options.tls:
        return None

    def on_new(mark: str) -> None:
        tell(f"from now on {options.host} port {options.port} is known by its fingerprint {mark}")

    return Trust(Known(home() / "known_servers"), options.fingerprint, on_new)
