"""What arguments may be. Each function takes the text of one, or raises `argparse.ArgumentTypeError`."""

import argparse
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from greenchat.addresses import is_address, network
from greenchat.errors import BadName
from greenchat.protocol.limits import (
    MAX_DOWNLOADS,
    MAX_HISTORY,
    MAX_JOIN_GRACE,
    MAX_PORT,
    MIN_HIGH_WATERMARK,
    MIN_KEPT_SIZE,
    MIN_MEMBER_RATE,
    MIN_PORT,
    MIN_RATE,
)
from greenchat.protocol.names import user_name

if TYPE_CHECKING:  # for clients only
    from greenchat.client.consent import Accept

__all__ = [
    "Parser",
    "accept",
    "backlog",
    "backplane",
    "banned",
    "count",
    "directory",
    "elsewhere",
    "fingerprint",
    "history",
    "host",
    "hours",
    "join_grace",
    "kept_size",
    "listen_port",
    "member_rate",
    "parallel",
    "port",
    "rate",
    "server",
    "server_port",
    "user",
]


class _Formatter(argparse.HelpFormatter):
    """A formatter as wide as the terminal.

    By itself argparse asks shutil for the width, for each argument; to import that takes as long as all else here.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 80
        super().__init__(prog, width=columns - 2)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and end the program with status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)

    def error(self, message: str) -> NoReturn:
        """Say *message*, and where to find help."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def fingerprint(text: str) -> str:
    """What `greenchat.security.tls.fingerprint` makes."""
    if re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", text):
        return text
    raise argparse.ArgumentTypeError(f"{text[:60]!r} is no fingerprint: give the one that the server shows")


def banned(text: str) -> str:
    """The fingerprint of a key, or the network that an address counts as."""
    if text.startswith("SHA256:"):
        return fingerprint(text)
    host = text.removesuffix("/64")  # as `network` writes it, for IPv6
    if is_address(host) and (host == text or network(host) == text):
        return network(host) or host
    raise argparse.ArgumentTypeError(f"{text[:60]!r} is neither a fingerprint nor an address")


def backplane(text: str) -> str:
    """The url of a Redis; what is wrong with it is told without it, because it may have a password."""
    from greenchat.backplane.clients import SCHEMES

    if text.partition("://")[0] in SCHEMES:
        return text
    raise argparse.ArgumentTypeError("that is no Redis: give redis://host:port, or another kind that the README names")


def user(text: str) -> str:
    """A user's name."""
    try:
        return user_name(text)
    except BadName as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def accept(text: str) -> "Accept":
    """Return who may fetch files."""
    from greenchat.client.consent import Accept

    if text in list(Accept):
        return Accept(text)
    raise argparse.ArgumentTypeError(
        f"{text[:20]!r} does not say who may fetch files: give all, known (people you know, and others after you are"
        " asked), ask (nobody before you are asked) or none"
    )


def host(text: str, port_goes: str) -> str:
    """Return a host name or an address, without the brackets that IPv6 has before a port.

    *port_goes* says where a port has its place.
    """
    plain, bracket, rest = text.removeprefix("[").partition("]") if text.startswith("[") else (text, "", "")
    if is_address(plain) and not rest:
        return plain
    name, colon, number = text.rpartition(":")
    if colon and number.isdigit() and name.isprintable() and (":" not in name or bracket):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is a host and a port: give {name[:60]} here, {port_goes}")
    if plain and not bracket and not set(":/ ") & set(plain):
        return plain
    raise argparse.ArgumentTypeError(f"{text[:60]!r} is no host: give a name or an address")


def elsewhere(place: str) -> Callable[[str], NoReturn]:
    """Return the type of an option that does not exist, and whose value is given in another *place*."""

    def refuse(_text: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"there is no such option: {place}")

    return refuse


def server(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT, or [ADDRESS]:PORT."""
    host, _, number = text.rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if plain and (plain != host or ":" not in host):
        return plain, server_port(number)
    raise argparse.ArgumentTypeError(f"{text[:60]!r} is no server: give HOST:PORT, or [ADDRESS]:PORT for IPv6")


def hours(text: str) -> int:
    """A number of hours, up to a year."""
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 8766:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is no number of hours from 1 to 8766")


def history(text: str) -> int:
    """A number of messages."""
    if text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= MAX_HISTORY:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is not from 0 to {MAX_HISTORY}")


def count(text: str) -> int:
    """Some number, 1 or more."""
    if text.isascii() and text.isdigit() and len(text) <= 12 and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is no number from 1 on")


def join_grace(text: str) -> float:
    """Return a number of seconds, from 0 to `limits.MAX_JOIN_GRACE`."""
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) and float(text) <= MAX_JOIN_GRACE:
        return float(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is not from 0 to {MAX_JOIN_GRACE:g} seconds")


def kept_size(text: str) -> int:
    """Bytes, `limits.MIN_KEPT_SIZE` or more."""
    return _size(text, MIN_KEPT_SIZE, "size")


def port(text: str) -> int:
    """A port number, or 0."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port: give a number from 0 to {MAX_PORT}")


def server_port(text: str) -> int:
    """Return the port number of a server, which is never 0."""
    number = port(text)
    if not number:
        raise argparse.ArgumentTypeError("no server listens at port 0: give the port that it named when it started")
    return number


def listen_port(text: str) -> int:
    """A port number that is not privileged, or 0."""
    number = port(text)
    if 0 < number < MIN_PORT:
        raise argparse.ArgumentTypeError(
            f"{text} is kept for the system: give 0 or a number from {MIN_PORT} to {MAX_PORT}"
        )
    return number


def parallel(text: str) -> int:
    """How many at once."""
    if text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= MAX_DOWNLOADS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is not from 1 to {MAX_DOWNLOADS}")


def rate(text: str) -> int:
    """Bytes a second, `limits.MIN_RATE` or more."""
    return _size(text, MIN_RATE, "rate")


def member_rate(text: str) -> int:
    """Bytes a second, `limits.MIN_MEMBER_RATE` or more, or 0."""
    return 0 if text == "0" else _size(text, MIN_MEMBER_RATE, "rate")


def backlog(text: str) -> int:
    """Bytes, `limits.MIN_HIGH_WATERMARK` or more."""
    return _size(text, MIN_HIGH_WATERMARK, "size")


def _size(text: str, least: int, what: str) -> int:
    """Bytes, with the suffixes that curl and rsync know: K is 1,024."""
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", text.upper(), re.ASCII)
    size = int(match[1]) * 1024 ** " KMG".index(match[2] or " ") if match else 0
    if size >= least:
        return size
    raise argparse.ArgumentTypeError(f"{text[:20]!r} is no {what} of at least {least // 1024}K: give one, such as 2M")


def directory(text: str) -> str:
    """The path of a directory."""
    if text:
        return text
    raise argparse.ArgumentTypeError("give a directory")  # an unset variable must not share the current one
