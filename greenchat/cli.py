"""The command line: arguments, signals and exit statuses, and nothing else.

Status 0 is success, 1 an error told on standard error, 2 wrong usage, 128 and the signal's number if one ended it.
"""

import argparse
import gc
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import gevent

from greenchat.client import ChatClient, Route, Served
from greenchat.client.program import Program
from greenchat.client.trust import Trust
from greenchat.errors import ListenError, SecurityError
from greenchat.net import is_loopback, raise_descriptor_limit
from greenchat.protocol.limits import (
    DOWNLOADS,
    HIGH_WATERMARK,
    MAX_DOWNLOADS,
    MAX_LINE,
    MAX_PORT,
    MIN_HIGH_WATERMARK,
    MIN_MEMBER_RATE,
    MIN_PORT,
    MIN_RATE,
)
from greenchat.security.home import home
from greenchat.security.keys import key_file
from greenchat.security.known import Known
from greenchat.server import ChatServer
from greenchat.server.certificate import Certificate

__all__ = ["client", "main", "server"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """``greenchat server ...`` and ``greenchat client ...``."""
    commands = {"server": server, "client": client}
    parser = _Parser(prog="greenchat", description="A chat room and a file exchange for the terminal.")
    parser.add_argument("command", choices=commands, help="what to run; each has a --help of its own")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    chosen = parser.parse_args(arguments)
    return commands[chosen.command](chosen.arguments, prog=f"greenchat {chosen.command}")


def server(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run a server until a signal ends it; the exit status."""
    parser = _Parser(prog=prog, description="Serve a chat room and a file exchange.")
    parser.add_argument("port", type=_port, help="port to listen on; 0 picks a free one")
    parser.add_argument("--host", metavar="ADDR", help="address to listen at, instead of this machine alone")
    parser.add_argument("--backlog", type=_backlog, default=HIGH_WATERMARK, metavar="SIZE",
                        help="bytes that may wait for a member before it is dropped (1M)")  # fmt: skip
    parser.add_argument("--member-rate", type=_member_rate, metavar="RATE",
                        help="bytes a second that a member may say for long, or 0 for any number"
                        " (64K; on this machine any number)")  # fmt: skip
    parser.add_argument("--tls", action="store_true", help="encrypt, by a certificate that is made on first use")
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="encrypt by this certificate, read again on SIGHUP"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, if that is in another file")
    parser.add_argument("--insecure", action="store_true", help="encrypt nothing, not even beyond this machine")
    options = parser.parse_args(arguments)
    if options.insecure and (options.tls or options.tls_cert):
        parser.error("--insecure is the contrary of --tls")
    if options.tls_key and not options.tls_cert:
        parser.error("--tls-key is for the certificate of --tls-cert")
    _fill_standard_descriptors()
    raise_descriptor_limit()
    _collect_garbage_seldom()
    _log_to_stderr()
    try:
        certificate = _certificate(options)
    except SecurityError as error:
        _tell(str(error))
        return 1
    chat = ChatServer(
        options.port, host=options.host, backlog=options.backlog, member_rate=options.member_rate,
        certificate=certificate, insecure=options.insecure,
    )  # fmt: skip

    def end(_number: int) -> None:
        if chat.relaying:
            files = "1 relayed file" if chat.relaying == 1 else f"{chat.relaying} relayed files"
            _tell(f"waiting for {files} to be done; a second signal ends that")
        gevent.spawn(chat.stop)

    _on_signals(end, signal.SIGINT, signal.SIGTERM)
    try:
        chat.start()
    except ListenError as error:
        _tell(str(error))
        return 1
    _tell(f"listening on {' and '.join(chat.hosts)}, port {chat.port}")
    if certificate:
        _tell(f"encrypted; the fingerprint is {certificate.fingerprint}")
        gevent.signal_handler(signal.SIGHUP, _load_again, certificate)
    elif not all(map(is_loopback, chat.hosts)):
        _tell("warning: nothing is encrypted: whoever is on the way can read and change what is said and sent")
    chat.serve_forever()
    return 0


def client(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run a client on standard input and output; the exit status."""
    parser = _Parser(prog=prog, description="Chat, and exchange files.")
    parser.add_argument("-l", dest="listen", type=_listen_port, required=True, metavar="PORT",
                        help="port to listen on for file requests; 0 picks a free one")  # fmt: skip
    parser.add_argument("-p", dest="port", type=_port, required=True, metavar="PORT", help="port of the chat server")
    parser.add_argument("--host", default="127.0.0.1", help="host of the chat server (%(default)s)")
    parser.add_argument(
        "--tls", action="store_true", help="encrypt; on first use the server's fingerprint is remembered"
    )
    parser.add_argument("--fingerprint", type=_fingerprint, metavar="SHA256:...",
                        help="encrypt, and only with the server that has this fingerprint")  # fmt: skip
    parser.add_argument("--insecure", action="store_true", help="encrypt nothing, not even beyond this machine")
    parser.add_argument("--name", help="your name, instead of the first line of input")
    parser.add_argument(
        "--share",
        type=_directory,
        default=".",
        metavar="DIR",
        help="directory of the files that others may fetch (%(default)s)",
    )
    parser.add_argument("--transfer", choices=[str(route) for route in Route], default="auto",
                        help="how to reach the owner of a file (%(default)s)")  # fmt: skip
    parser.add_argument("--parallel", type=_parallel, default=DOWNLOADS, metavar="N",
                        help="how many files to fetch at once; the rest wait in order (%(default)s)")  # fmt: skip
    parser.add_argument("--limit-rate", type=_rate, metavar="RATE",
                        help="bytes a second to receive, and to send, at most; K, M and G may follow")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.insecure and (options.tls or options.fingerprint):
        parser.error("--insecure is the contrary of --tls")
    _fill_standard_descriptors()
    try:
        trust = _trust(options)
    except SecurityError as error:
        _tell(str(error))
        return 1

    def connect(name: str, on_served: Callable[[Served], None]) -> ChatClient:
        return ChatClient(
            name, options.port, host=options.host, listen=options.listen,
            share=options.share, route=Route(options.transfer), parallel=options.parallel,
            limit_rate=options.limit_rate, trust=trust, insecure=options.insecure, on_served=on_served,
        )  # fmt: skip

    raise_descriptor_limit()
    program = Program(options.name, connect)
    _on_signals(lambda number: program.end(128 + number), signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _on_suspend(program.leave_terminal, program.take_terminal)
    return program.run()


def _certificate(options: argparse.Namespace) -> Certificate | None:
    """What the server shows, if it is to encrypt. Raises `SecurityError`."""
    if options.tls_cert:
        return Certificate(options.tls_cert, options.tls_key or options.tls_cert)
    if options.tls:
        path = key_file(home() / "server.pem")
        return Certificate(path, path)
    return None


def _load_again(certificate: Certificate) -> None:
    try:
        certificate.load()
    except SecurityError as error:
        _tell(f"the certificate stays as it was: {error}")
    else:
        _tell(f"the certificate was read again; the fingerprint is {certificate.fingerprint}")


def _trust(options: argparse.Namespace) -> Trust | None:
    """How the client knows its server, if it is to encrypt. Raises `SecurityError`."""
    if not options.tls and not options.fingerprint:
        return None

    def on_new(fingerprint: str) -> None:
        _tell(f"from now on {options.host} port {options.port} is known by its fingerprint {fingerprint}")

    return Trust(Known(home() / "known_servers"), options.fingerprint, on_new)


def _fingerprint(text: str) -> str:
    if re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", text):
        return text
    raise argparse.ArgumentTypeError(f"{text[:60]!r} is no fingerprint: give the one that the server shows")


def _port(text: str) -> int:
    """A port number, or 0."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port: give a number from 0 to {MAX_PORT}")


def _listen_port(text: str) -> int:
    port = _port(text)
    if 0 < port < MIN_PORT:
        raise argparse.ArgumentTypeError(
            f"{text} is kept for the system: give 0 or a number from {MIN_PORT} to {MAX_PORT}"
        )
    return port


def _parallel(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= MAX_DOWNLOADS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is not from 1 to {MAX_DOWNLOADS}")


def _rate(text: str) -> int:
    return _size(text, MIN_RATE, "rate")


def _member_rate(text: str) -> int:
    return 0 if text == "0" else _size(text, MIN_MEMBER_RATE, "rate")


def _backlog(text: str) -> int:
    return _size(text, MIN_HIGH_WATERMARK, "size")


def _size(text: str, least: int, what: str) -> int:
    """Bytes, with the suffixes that curl and rsync know: K is 1,024."""
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", text.upper(), re.ASCII)
    size = int(match[1]) * 1024 ** " KMG".index(match[2] or " ") if match else 0
    if size >= least:
        return size
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is no {what} of at least {least // 1024}K: give 500K, or 2M")


def _fill_standard_descriptors() -> None:
    """A standard descriptor that came closed must not become a socket, which would then be read and written as such."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, and so this one


def _directory(text: str) -> str:
    if text:
        return text
    raise argparse.ArgumentTypeError("give a directory")  # an unset variable must not share the current one


def _on_signals(end: Callable[[int], object], *numbers: signal.Signals) -> None:
    """The first of these signals has *end* called with its number, the second ends the process at once."""
    seen: list[int] = []

    def handle(number: int) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        end(number)

    for number in numbers:
        gevent.signal_handler(number, handle, number)


def _on_suspend(leave: Callable[[], object], take: Callable[[], object]) -> None:
    """Around a stop by Ctrl-Z, *leave* is called and then *take*; not where such a stop is ignored already."""
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        return

    def handle() -> None:
        leave()
        watcher.cancel()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # goes on here, when the process does
        take()
        _on_suspend(leave, take)

    watcher = gevent.signal_handler(signal.SIGTSTP, handle)


class _Log(logging.Handler):
    """Lines on standard error; one that would have to wait there is lost, because it would hold up everybody."""

    def emit(self, record: logging.LogRecord) -> None:
        writable = select.poll()
        writable.register(sys.stderr, select.POLLOUT)
        if writable.poll(0):
            os.write(sys.stderr.fileno(), f"{self.format(record)[: MAX_LINE // 2]}\n".encode())


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=[_Log()])
    logging.raiseExceptions = False  # without a standard error there is nobody to tell


def _collect_garbage_seldom() -> None:
    """Members are many objects that stay: to look for cycles among them took a quarter of the time to let them in."""
    gc.freeze()
    gc.set_threshold(10_000)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is a program's own word to its user
