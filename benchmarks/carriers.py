"""What carries a whole file from one party to another: greenchat's menu clients, and what a user could take instead."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.menu_client import menu_client
from benchmarks.processes import connect, free_port, running

__all__ = ["CARRIERS", "FILE", "Carrier", "Parties", "Place", "greenchat"]

FILE: Final = "file"
FIRST: Final = "first"
SERVER: Final = Path(__file__).resolve().parent.parent / "ChatServer.py"
SECURE: Final = ("cryptography",)
PRIVILEGE_SEPARATION: Final = Path("/run/sshd")


@dataclass(frozen=True)
class Place:
    """The two parties' directories, and one for what a carrier itself needs."""

    shared: Path
    received: Path
    own: Path


@dataclass(frozen=True)
class Parties:
    """Who takes part: by its role each process that runs already, and the commands that are still to be run."""

    processes: dict[str, list[int]] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)
    """They are started at once, and the file is there when all have ended."""
    fetch: Callable[[list[str]], None] = lambda _files: None
    """What fetches files with no command, and returns when they are there."""
    port: int = 0
    """Of the chat server, if there is one."""
    encrypted: bool = False
    """Whether that takes encrypted connections only."""


Open: TypeAlias = Callable[[Place], AbstractContextManager[Parties]]


@dataclass(frozen=True)
class Carrier:
    """How a file can be brought from one directory to the other."""

    open: Open
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    version_command: tuple[str, ...] = ()
    """What says its version, if it is somebody else's."""

    def missing(self) -> str | None:
        """Why it cannot be used here."""
        missing = [program for program in self.programs if not shutil.which(program)]
        missing += [module for module in self.modules if not importlib.util.find_spec(module)]
        return f"{' and '.join(missing)} not installed" if missing else None


def greenchat(route: str, *, encrypted: bool = False) -> Open:
    """Two menu clients and a server."""
    tls = ["--tls"] if encrypted else []

    @contextlib.contextmanager
    def opened(place: Place) -> Iterator[Parties]:
        port = free_port()
        python = ["env", f"XDG_CONFIG_HOME={place.own}", sys.executable]  # the user's own keys stay what they are
        with ExitStack() as stack:
            server = stack.enter_context(running([*python, str(SERVER), str(port), *tls], place.own))
            connect(port).close()
            owner = stack.enter_context(menu_client(python, port, "owner", place.shared, "--accept", "all", *tls))
            to_owner = ("--transfer", route, *tls)
            requester = stack.enter_context(menu_client(python, port, "requester", place.received, *to_owner))
            (place.shared / FIRST).touch()
            requester.fetch("owner", [FIRST])  # now all that a server and a client begin when they need it is there
            (place.received / FIRST).unlink()
            processes = {"sender": [owner.pid], "receiver": [requester.pid], "server": [server.pid]}
            yield Parties(
                processes, fetch=lambda files: requester.fetch("owner", files), port=port, encrypted=encrypted
            )

    return opened


@contextlib.contextmanager
def _scp(place: Place) -> Iterator[Parties]:
    port = free_port()
    for key in ("host_key", "user_key"):
        make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place.own / key)]
        subprocess.run(make_key, stdin=subprocess.DEVNULL, check=True)
    settings = place.own / "sshd_config"
    settings.write_text(SSHD.format(port=port, own=place.own))
    server = [str(shutil.which("sshd")), "-D", "-e", "-f", str(settings)]
    options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={place.own}/known_hosts", "LogLevel=ERROR"]
    command = ["scp", "-q", "-F", "none", "-P", str(port), "-i", str(place.own / "user_key")]
    command += [part for option in options for part in ("-o", option)]
    with _privilege_separation(), running(server, place.own) as process:
        connect(port).close()
        command += [f"127.0.0.1:{place.shared / FILE}", str(place.received)]
        yield Parties({"sender": [process.pid]}, {"receiver": command})


SSHD: Final = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {own}/host_key
AuthorizedKeysFile {own}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@contextlib.contextmanager
def _privilege_separation() -> Iterator[None]:
    """The empty directory that sshd wants to see when it is root's; a service manager would have made it."""
    make = os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists()
    if make:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755)
    try:
        yield
    finally:
        if make:
            PRIVILEGE_SEPARATION.rmdir()


@contextlib.contextmanager
def _rsync(place: Place) -> Iterator[Parties]:
    port = free_port()
    settings = place.own / "rsyncd.conf"
    settings.write_text(RSYNCD.format(own=place.own, shared=place.shared, user=os.getuid(), group=os.getgid()))
    server = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={settings}"]
    with running(server, place.own) as process:
        connect(port).close()
        command = ["rsync", "--whole-file", f"rsync://127.0.0.1:{port}/shared/{FILE}", str(place.received)]
        yield Parties({"sender": [process.pid]}, {"receiver": command})


RSYNCD: Final = """\
use chroot = no
uid = {user}
gid = {group}
log file = {own}/said
[shared]
path = {shared}
"""


@contextlib.contextmanager
def _curl(place: Place) -> Iterator[Parties]:
    port = free_port()
    settings = place.own / "nginx.conf"
    settings.write_text(NGINX.format(port=port, own=place.own, shared=place.shared))
    with running(["nginx", "-p", str(place.own), "-c", str(settings)], place.own) as process:
        connect(port).close()
        command = ["curl", "-sSf", "-o", str(place.received / FILE), f"http://127.0.0.1:{port}/{FILE}"]
        yield Parties({"sender": [process.pid]}, {"receiver": command})


NGINX: Final = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {own};
    server {{
        listen 127.0.0.1:{port};
        root {shared};
    }}
}}
"""


@contextlib.contextmanager
def _wormhole(place: Place) -> Iterator[Parties]:
    """Without listeners of their own, so that the two can meet at the transit relay only."""
    mailbox, relay = free_port(), free_port()
    twist = [sys.executable, "-m", "twisted", "--log-level=error"]
    with (
        running([*twist, "wormhole-mailbox", f"--port=tcp:{mailbox}:interface=127.0.0.1"], place.own) as letters,
        running([*twist, "transitrelay", f"--port=tcp:{relay}:interface=127.0.0.1"], place.own) as transit,
    ):
        for port in (mailbox, relay):
            connect(port, 30).close()
        wormhole = [sys.executable, "-m", "wormhole", f"--relay-url=ws://127.0.0.1:{mailbox}/v1"]
        wormhole += [f"--transit-helper=tcp:127.0.0.1:{relay}"]
        options = ["--no-listen", "--hide-progress"]
        into = ["--accept-file", f"--output-file={place.received / FILE}"]
        sender = [*wormhole, "send", *options, "--no-qr", "--code=7-guitarist-revenge", str(place.shared / FILE)]
        receiver = [*wormhole, "receive", *options, *into, "7-guitarist-revenge"]
        yield Parties({"server": [letters.pid, transit.pid]}, {"sender": sender, "receiver": receiver})


CARRIERS: Final[dict[str, Carrier]] = {
    "greenchat, relayed": Carrier(greenchat("relay")),
    "greenchat, direct": Carrier(greenchat("direct")),
    "greenchat, relayed, encrypted": Carrier(greenchat("relay", encrypted=True), modules=SECURE),
    "greenchat, direct, encrypted": Carrier(greenchat("direct", encrypted=True), modules=SECURE),
    "scp": Carrier(_scp, ("scp", "sshd", "ssh-keygen"), version_command=("ssh", "-V")),
    "rsync daemon": Carrier(_rsync, ("rsync",), version_command=("rsync", "--version")),
    "curl from nginx": Carrier(_curl, ("curl", "nginx"), version_command=("curl", "--version")),
    "magic-wormhole, relayed": Carrier(
        _wormhole,
        modules=("wormhole", "wormhole_mailbox_server", "wormhole_transit_relay"),
        version_command=(sys.executable, "-m", "wormhole", "--version"),
    ),
}
