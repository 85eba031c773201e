"""``greenchat server``, and ``ChatServer.py``."""

import argparse
import contextlib
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import gevent

from greenchat.addresses import is_loopback
from greenchat.cli.arguments import (
    Parser,
    backlog,
    backplane,
    count,
    directory,
    elsewhere,
    host,
    join_grace,
    kept_size,
    member_rate,
    port,
)
from greenchat.cli.arguments import server as server_address
from greenchat.cli.process import (
    collect_garbage_seldom,
    divert_tracebacks,
    fill_standard_descriptors,
    has_lost_terminal,
    log_to_stderr,
    on_signals,
    tell,
)
from greenchat.errors import GreenchatError, SecurityError
from greenchat.log.log import Logs
from greenchat.log.memory import MemoryLogs
from greenchat.net import raise_descriptor_limit
from greenchat.protocol.limits import HIGH_WATERMARK, JOIN_GRACE_SECONDS, KEPT_LINES, KEPT_SIZE
from greenchat.server import ChatServer
from greenchat.threads import on_files

if TYPE_CHECKING:  # parts that not every server needs are imported where they are used
    from greenchat.backplane.node import Node
    from greenchat.server.certificate import Certificate
    from greenchat.server.registry import Registry

__all__ = ["server"]


def server(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run a server until a signal ends it; the exit status."""
    options = _options(arguments, prog)
    fill_standard_descriptors()
    raise_descriptor_limit()
    collect_garbage_seldom()
    log_to_stderr()
    divert_tracebacks()
    try:
        return _run(options)
    except GreenchatError as error:
        tell(str(error))
        return 1


def _options(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Serve a chat room and a file exchange.")
    parser.add_argument("port", type=port, help="port to listen on; 0 picks a free one")
    parser.add_argument("-p", "--port", dest="elsewhere", nargs="?", const="",
                        type=elsewhere("give the port alone, without one"), help=argparse.SUPPRESS)  # fmt: skip
    parser.add_argument("--host", type=partial(host, port_goes="and the port as an argument of its own"),
                        metavar="ADDR", help="address to listen at, instead of this machine alone")  # fmt: skip
    parser.add_argument("--backlog", type=backlog, default=HIGH_WATERMARK, metavar="SIZE",
                        help="bytes that may wait for a member that reads slowly, from 256K (1M)")  # fmt: skip
    parser.add_argument("--member-rate", type=member_rate, metavar="RATE",
                        help="bytes a second that a member may say for long, or 0 for any number"
                        " (64K; on this machine any number)")  # fmt: skip
    parser.add_argument("--join-grace", type=join_grace, default=JOIN_GRACE_SECONDS, metavar="SECONDS",
                        help="age of the messages that whoever joins gets first, 0 for none (%(default)s)")  # fmt: skip
    parser.add_argument("--data", type=directory, metavar="DIR",
                        help="keep what is said in this directory, also when the server ends")  # fmt: skip
    parser.add_argument("--backplane", type=backplane, metavar="URL",
                        help="share rooms and names with every server that uses this Redis: redis://host:port, or"
                        " another kind that the README names; takes greenchat[redis]")  # fmt: skip
    parser.add_argument("--advertise", type=server_address, action="append", default=[], metavar="HOST:PORT",
                        help="with --backplane: where others reach this server, if not where it listens")  # fmt: skip
    parser.add_argument("--keep-lines", type=count, metavar="N",
                        help="with --data or --backplane: keep so many lines of each room (1000000)")  # fmt: skip
    parser.add_argument("--keep-size", type=kept_size, metavar="SIZE",
                        help="with --data or --backplane: keep so many bytes of all rooms together,"
                        " from 1M (1G)")  # fmt: skip
    parser.add_argument("--keep-days", type=count, metavar="N",
                        help="with --data: keep what was said for so many days (for ever)")  # fmt: skip
    parser.add_argument("--tls", action="store_true", help="encrypt, by a certificate that is made on first use")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE",
                        help="encrypt by this certificate, read again on SIGHUP")  # fmt: skip
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, if that is in another file")
    parser.add_argument("--members-only", action="store_true",
                        help="let nobody in who has no name here yet and no invitation (greenchat names)")  # fmt: skip
    parser.add_argument("--insecure", action="store_true", help="encrypt nothing, not even beyond this machine")
    options = parser.parse_args(arguments)
    options.tls = options.tls or options.tls_cert is not None
    _check_keeping(parser, options)
    if options.insecure and options.tls:
        parser.error("--insecure is the contrary of --tls")
    if options.members_only and not options.tls:
        parser.error("--members-only takes --tls, because nobody can prove who he is without")
    if options.tls_key and not options.tls_cert:
        parser.error("--tls-key is for the certificate of --tls-cert")
    return options


def _check_keeping(parser: Parser, options: argparse.Namespace) -> None:
    if options.data and options.backplane:
        parser.error("--data is of no use with --backplane, which keeps what is said")
    if not options.data and options.keep_days:
        parser.error("--keep-days requires --data")
    if (options.keep_lines or options.keep_size) and not (options.data or options.backplane):
        parser.error("--keep-lines and --keep-size require --data or --backplane: in memory, 2,048 lines are kept")
    if options.advertise and not options.backplane:
        parser.error("--advertise takes --backplane: without, nobody is told")


def _run(options: argparse.Namespace) -> int:
    """Raises `ListenError`, `LogError` or `SecurityError`."""
    certificate = _certificate(options)
    with contextlib.ExitStack() as parts:
        logs = parts.enter_context(contextlib.closing(_logs(options))) if not options.backplane else None
        node = parts.enter_context(contextlib.closing(_node(options))) if options.backplane else None
        registry = parts.enter_context(contextlib.closing(_registry())) if certificate else None
        return _serve(options, certificate, registry, logs, node)


def _logs(options: argparse.Namespace) -> Logs:
    """Where what is said is kept. Raises `LogError`."""
    if not options.data:
        return MemoryLogs()
    from greenchat.log.database import Retention
    from greenchat.log.durable import DurableLogs

    seconds = options.keep_days * 86400.0 if options.keep_days else None
    kept = Retention(options.keep_lines or KEPT_LINES, options.keep_size or KEPT_SIZE, seconds)
    return DurableLogs(Path(options.data), kept)


def _node(options: argparse.Namespace) -> "Node":
    """Return this server as one of several. Raises `LogError`."""
    from greenchat.backplane.node import Node

    return Node(options.backplane, options.keep_lines or KEPT_LINES, options.keep_size or KEPT_SIZE)


def _registry() -> "Registry":
    """Open the registry of this machine's servers. Raises `SecurityError`."""
    from greenchat.security.home import NAMES, home
    from greenchat.server.registry import Registry

    return Registry(home() / NAMES)


def _serve(
    options: argparse.Namespace,
    certificate: "Certificate | None",
    registry: "Registry | None",
    logs: Logs | None,
    node: "Node | None",
) -> int:
    chat = ChatServer(
        options.port, host=options.host, backlog=options.backlog, member_rate=options.member_rate,
        join_grace=options.join_grace,
        certificate=certificate, registry=registry, members_only=options.members_only, insecure=options.insecure,
        logs=logs, node=node, advertise=tuple(options.advertise),
    )  # fmt: skip
    on_signals(lambda _number: _end(chat), signal.SIGINT, signal.SIGTERM)
    chat.start()
    tell(f"listening on {' and '.join(chat.hosts)}, port {chat.port}")
    if node and not node.durable:
        tell("warning: should the backplane crash, what was said is lost: set its appendonly to yes")
    if certificate:
        tell(f"encrypted; the fingerprint is {certificate.fingerprint}")
    elif not all(map(is_loopback, chat.hosts)):
        tell("warning: nothing is encrypted: whoever is on the way can read and change what is said and sent")
    _on_hangup(lambda: _end(chat), certificate)
    chat.serve_forever()
    return 0


def _on_hangup(end: Callable[[], object], certificate: "Certificate | None") -> None:
    """Reload the *certificate* on SIGHUP; without one, or when the server's terminal was closed, *end* it.

    A SIGHUP that whoever started the server had it ignore, as ``nohup`` does, stays ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    had_terminal = not has_lost_terminal()

    def hang_up() -> None:
        if certificate is None or (had_terminal and has_lost_terminal()):
            end()
        else:
            _load_again(certificate)

    gevent.signal_handler(signal.SIGHUP, hang_up)


def _end(chat: ChatServer) -> None:
    gevent.spawn(chat.stop)
    if chat.relaying:
        files = "1 relayed file" if chat.relaying == 1 else f"{chat.relaying} relayed files"
        tell(f"waiting for {files} to be done; a second signal ends that")


def _certificate(options: argparse.Namespace) -> "Certificate | None":
    """Load the certificate that the server shows, if it is to encrypt. Raises `SecurityError`."""
    if not options.tls:
        return None
    from greenchat.security.home import SERVER, home
    from greenchat.security.keys import key_file
    from greenchat.server.certificate import Certificate

    if options.tls_cert:
        return Certificate(options.tls_cert, options.tls_key or options.tls_cert)
    path = key_file(home() / SERVER)
    return Certificate(path, path)


def _load_again(certificate: "Certificate") -> None:
    try:
        on_files(certificate.path, certificate.load)
    except SecurityError as error:
        tell(f"the certificate stays as it was: {error}")
    else:
        tell(f"the certificate was read again; the fingerprint is {certificate.fingerprint}")
