"""The seed's text, word by word, on real processes."""

import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import gevent
import pytest
from conftest import Wire, hello, until
from gevent import subprocess
from gevent.event import Event
from programs import GOODBYE, MENU, PATIENCE, TOP, Client, Program, Server, Stream, absent, terminal

from greenchat import ChatClient
from greenchat.client import connection as client_connection
from greenchat.client import session as client_session
from greenchat.errors import Code
from greenchat.net import listen
from greenchat.protocol.records import Error, Welcome

EXAMPLE = """\
Enter an option ('m', 'f', 'x'):
  (M)essage (send)
  (F)ile (request)
 e(X)it
m
Enter your message:
hello!
Enter an option ('m', 'f', 'x'):
  (M)essage (send)
  (F)ile (request)
 e(X)it
f
Who owns the file?
client1
Which file do you want?
Ameca_splendens.jpg
Enter an option ('m', 'f', 'x'):
  (M)essage (send)
  (F)ile (request)
 e(X)it
m
Enter your message:
another important message!
Enter an option ('m', 'f', 'x'):
  (M)essage (send)
  (F)ile (request)
 e(X)it
x
closing your sockets...goodbye
"""

TYPED = ["m", "hello!", "f", "client1", "Ameca_splendens.jpg", "m", "another important message!", "x"]

FISH = bytes(range(256)) * 4000


@pytest.fixture
def running() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as programs:
        yield programs


@pytest.fixture
def client1(running: Server, stack: ExitStack, tmp_path: Path) -> Client:
    """Who owns the file of the seed's example."""
    home = tmp_path / "client1"
    home.mkdir()
    (home / "Ameca_splendens.jpg").write_bytes(FISH)
    client = stack.enter_context(Client(running.port, home))
    client.type("client1")
    client.wait_for_menu()
    return client


def test_the_example_through_a_pipe(running: Server, client1: Client, stack: ExitStack, tmp_path: Path) -> None:
    client2 = stack.enter_context(Client(running.port, tmp_path / "client2"))
    client2.type("client2", *TYPED[:-1])
    client2.err.wait_for("received Ameca_splendens.jpg from client1")
    client2.type(TYPED[-1])
    assert client2.status() == 0
    assert client2.out.lines == [line for line in EXAMPLE.splitlines() if line not in TYPED]
    assert (tmp_path / "client2" / "Ameca_splendens.jpg").read_bytes() == FISH
    client1.out.wait_for("client2: another important message!\n")
    assert client1.out.lines == [*MENU, "client2: hello!", "client2: another important message!"]
    client1.err.wait_for("sent Ameca_splendens.jpg to client2 (1,024,000 bytes)\n")


def test_the_example_on_a_terminal(running: Server, client1: Client, stack: ExitStack, tmp_path: Path) -> None:
    with terminal() as term:
        client2 = stack.enter_context(Client(running.port, tmp_path / "client2", stdin=term.end, stdout=term.end))
        term.type("client2")
        for typed in TYPED:
            prompt = (
                "?"
                if typed in ("client1", "Ameca_splendens.jpg")
                else ":\n"
                if " " in typed or "!" in typed
                else MENU[-1]
            )
            term.screen.wait_for(prompt)
            if typed == "x":
                client2.err.wait_for("received Ameca_splendens.jpg from client1")
            term.type(typed)
        assert client2.status() == 0
        term.screen.wait_for(GOODBYE + "\n")
        assert term.screen.text == "client2\n" + EXAMPLE
        assert client2.err.lines[0] == "Enter your name:"
    client1.out.wait_for("client2: another important message!\n")


@pytest.mark.parametrize("pace", [0.02, pytest.param(1.0, marks=pytest.mark.slow)], ids=["quick", "as-people-type"])
@pytest.mark.parametrize("run", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 11))])
def test_three_who_type_line_by_line(running: Server, stack: ExitStack, tmp_path: Path, pace: float, run: int) -> None:
    names = ["ann", "bob", "cat"]
    clients = {name: stack.enter_context(Client(running.port, tmp_path / name)) for name in names}
    files = {name: random.randbytes(300_000 + run) for name in names}
    for name, client in clients.items():
        (tmp_path / name / f"{name}.bin").write_bytes(files[name])
        client.type(name)
        client.wait_for_menu()

    def user(name: str, others: list[str]) -> None:
        lines = [line for n in range(3) for line in ("m", f"{n} from {name}")]
        lines += [line for other in others for line in ("f", other, f"{other}.bin")]
        for line in lines:
            clients[name].type(line)
            gevent.sleep(pace)

    users = [gevent.spawn(user, name, [other for other in names if other != name]) for name in names]
    gevent.joinall(users, raise_error=True)
    for name, client in clients.items():
        for other in set(names) - {name}:
            while f"received {other}.bin" not in client.err.text:
                gevent.sleep(0.01)
            assert (tmp_path / name / f"{other}.bin").read_bytes() == files[other]
    for client in clients.values():
        client.type("x")
    assert [client.status() for client in clients.values()] == [0, 0, 0]
    for name, client in clients.items():
        for other in names:
            heard = [line for line in client.out.lines if line.startswith(f"{other}: ")]
            assert heard == ([] if other == name else [f"{other}: {n} from {other}" for n in range(3)])


def test_all_in_one_go_is_delivered(running: Server, client1: Client, stack: ExitStack, tmp_path: Path) -> None:
    said = [line for n in range(200) for line in ("m", f"message {n}")]
    quick = stack.enter_context(Client(running.port, tmp_path / "quick"))
    quick.type("quick", *said, "f", "client1", "Ameca_splendens.jpg", "x")
    assert quick.status() == 1  # the file was given up
    assert quick.out.lines[-1] == GOODBYE
    client1.out.wait_for("quick: message 199\n")
    assert client1.out.lines == [*MENU, *(f"quick: message {n}" for n in range(200))]


def test_of_a_flood_nobody_loses_a_line(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    listeners = [stack.enter_context(Client(running.port, tmp_path / name, "--name", name)) for name in ("ann", "bob")]
    for listener in listeners:
        listener.wait_for_menu()
    lines = [f"{n:06} " + "x" * 57 for n in range(200_000)]
    with gevent.socket.create_connection(("127.0.0.1", running.port)) as flood:
        flood.sendall("\n".join(["flood", *lines, ""]).encode())
        flood.shutdown(gevent.socket.SHUT_WR)
        for listener in listeners:
            listener.out.wait_for(f"flood: {lines[-1]}\n", 50)
    for listener in listeners:
        assert listener.out.lines == [*MENU, *(f"flood: {line}" for line in lines)]
        assert listener.err.text == ""


def test_two_guests_with_netcat_and_two_clients(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    guests = [stack.enter_context(_Netcat(running.port)) for _ in range(2)]
    clients = [stack.enter_context(Client(running.port, tmp_path / name)) for name in ("ann", "bob")]
    everyone = dict(zip(("gus", "gil", "ann", "bob"), [*guests, *clients], strict=True))
    for name, one in everyone.items():
        one.type(name)
    for client in clients:
        client.wait_for_menu()
    _wait_until_heard(everyone["gus"], everyone["gil"], "gus: are you here")
    for name, one in everyone.items():
        one.type(*(["m"] if isinstance(one, Client) else []), f"hello from {name}")
        for other in set(everyone) - {name}:
            everyone[other].out.wait_for(f"{name}: hello from {name}\n")
    for name, one in everyone.items():
        assert f"{name}: " not in one.out.text


def _wait_until_heard(speaker: Program, listener: Program, line: str) -> None:
    """A guest is not told when it is in the room: repeat until somebody hears."""
    for _ in range(100):
        speaker.type(line.partition(": ")[2])
        try:
            listener.out.wait_for(line, 0.1)
        except AssertionError:
            continue
        return
    pytest.fail("nobody heard the guest")


NETCAT = """
import os, socket, sys, threading

def send():
    while data := os.read(0, 65536):
        sock.sendall(data)

with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    threading.Thread(target=send, daemon=True).start()
    while data := sock.recv(65536):
        os.write(1, data)
"""


class _Netcat(Program):
    """The netcat of the system, or a program as simple where none is installed."""

    def __init__(self, port: int) -> None:
        program = "import os, sys; os.execvp('nc', ['nc', *sys.argv[1:]])" if shutil.which("nc") else NETCAT
        super().__init__("-c", program, "127.0.0.1", str(port))


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_many_programs_chat_and_swap_files(running: Server, stack: ExitStack, tmp_path: Path, count: int) -> None:
    names = [f"user{n:02}" for n in range(count)]
    clients = {name: stack.enter_context(Client(running.port, tmp_path / name)) for name in names}
    for name, client in clients.items():
        (tmp_path / name / f"{name}.bin").write_bytes(name.encode() * 10_000)
        client.type(name)
    for client in clients.values():
        client.out.wait_for(MENU[-1], 50)
    for place, (name, client) in enumerate(clients.items()):
        owner = names[place - 1]
        client.type("m", f"I am {name}", "f", owner, f"{owner}.bin")
    for place, (name, client) in enumerate(clients.items()):
        owner = names[place - 1]
        client.err.wait_for(f"received {owner}.bin from {owner}", 50)
        assert (tmp_path / name / f"{owner}.bin").read_bytes() == owner.encode() * 10_000
    for name, client in clients.items():
        for other in set(names) - {name}:
            while f"{other}: I am {other}\n" not in client.out.text:
                gevent.sleep(0.01)
        assert f"{name}: " not in client.out.text


def _wait_for_bytes(home: Path) -> None:
    """Until a download into *home* has begun to arrive."""
    while not any(part.stat().st_size for part in home.glob(".greenchat-*")):
        gevent.sleep(0.001)


@pytest.fixture
def faithful(running: Server, stack: ExitStack, tmp_path: Path) -> Client:
    """Who ends with its server."""
    client = stack.enter_context(Client(running.port, tmp_path / "bob", "--name", "bob", "--no-reconnect"))
    client.wait_for_menu()
    return client


def test_when_the_server_is_killed_clients_end_that_are_not_to_reconnect(running: Server, faithful: Client) -> None:
    running.signal(signal.SIGKILL)
    assert faithful.status() == 1
    assert faithful.err.lines == ["the server is gone: the connection was lost"]
    assert faithful.out.lines == MENU


def test_when_the_server_is_back_so_are_the_clients_with_what_was_typed(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    bob = stack.enter_context(Client(running.port, tmp_path / "bob", "--name", "bob"))
    bob.wait_for_menu()
    running.signal(signal.SIGKILL)
    for client in (client1, bob):
        client.err.wait_for("the server is gone: the connection was lost; coming back to it, and what you send waits\n")
    bob.type("m", "are you there?", "m", "hello?")
    bob.wait_for_menu()
    stack.enter_context(Server(port=running.port))
    anew = "the server is there again, but what was said before is lost there: so may be what was sent meanwhile\n"
    client1.err.wait_for(anew)
    bob.err.wait_for(anew)
    client1.out.wait_for("bob: are you there?\nbob: hello?\n")
    client1.type("m", "yes")
    bob.out.wait_for("client1: yes\n")
    bob.type("x")
    assert bob.status() == 0


def test_what_never_reached_the_server_is_told_on_leaving(running: Server, client1: Client) -> None:
    running.signal(signal.SIGKILL)
    client1.err.wait_for("what you send waits\n")
    client1.type("m", "anybody?", "x")
    assert client1.status() == 1
    assert client1.err.lines[1:] == ["messages that the server has not acknowledged: 1; they may be lost"]
    assert client1.out.lines[-1] == GOODBYE


def test_rooms_are_apart_and_history_is_shown_to_who_asks(stack: ExitStack, tmp_path: Path) -> None:
    running = stack.enter_context(Server("--join-grace", "0"))
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann", "--room", "tea"))
    ann.type("m", "one", "m", "two")
    ann.wait_for_menu()
    bob = stack.enter_context(
        Client(running.port, tmp_path / "bob", "--name", "bob", "--room", "tea", "--history", "2")
    )
    bob.out.wait_for("ann: one\nann: two\n")
    bob.type("m", "here")
    ann.out.wait_for("bob: here\n")
    cat = stack.enter_context(
        Client(running.port, tmp_path / "cat", "--name", "cat", "--room", "Tea", "--history", "2")
    )
    cat.out.wait_for("ann: two\nbob: here\n")
    assert "one" not in cat.out.text
    dan = stack.enter_context(Client(running.port, tmp_path / "dan", "--name", "dan"))
    dan.type("m", "in the lobby", "x")
    assert dan.status() == 0
    assert "lobby" not in bob.out.text


def test_what_is_said_is_kept_by_a_server_that_is_told_to(stack: ExitStack, tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    with Server(*data) as first:
        ann = stack.enter_context(Client(first.port, tmp_path / "ann", "--name", "ann"))
        bob = stack.enter_context(Client(first.port, tmp_path / "bob", "--name", "bob"))
        bob.wait_for_menu()
        ann.type("m", "one")
        bob.out.wait_for("ann: one\n")
        first.signal(signal.SIGKILL)
    ann.err.wait_for("what you send waits\n")
    ann.type("m", "two")
    second = stack.enter_context(Server(*data, port=first.port))
    for client in (ann, bob):
        client.err.wait_for("the server is there again\n")
    bob.out.wait_for("ann: two\n")
    cat = stack.enter_context(Client(second.port, tmp_path / "cat", "--name", "cat", "--history", "9"))
    cat.out.wait_for("ann: one\nann: two\n")


def test_directory_of_another_server_is_not_used(stack: ExitStack, tmp_path: Path) -> None:
    stack.enter_context(Server("--data", str(tmp_path / "data")))
    second = stack.enter_context(Program(TOP / "ChatServer.py", "0", "--data", str(tmp_path / "data")))
    assert second.status() == 1
    assert second.err.lines == [
        f"cannot keep messages in {tmp_path}/data: another server uses it: stop that, or give another directory"
    ]


def test_a_client_killed_in_mid_transfer_is_nobody_elses_trouble(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    big = tmp_path / "client1" / "big.bin"
    with big.open("wb") as file:
        file.truncate(3_000_000_000)
    victim, witness = (stack.enter_context(Client(running.port, tmp_path / name)) for name in ("victim", "witness"))
    for name, client in (("victim", victim), ("witness", witness)):
        client.type(name)
        client.wait_for_menu()
    victim.type("f", "client1", "big.bin")
    _wait_for_bytes(tmp_path / "victim")
    victim.signal(signal.SIGKILL)
    client1.err.wait_for("could not send big.bin to victim: the connection was lost in the middle of the file")
    assert not (tmp_path / "victim" / "big.bin").exists()
    witness.type("m", "still here", "f", "client1", "Ameca_splendens.jpg")
    client1.out.wait_for("witness: still here\n")
    witness.err.wait_for("received Ameca_splendens.jpg")


def test_leaving_does_not_wait_for_downloads_and_keeps_what_has_come(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    with (tmp_path / "client1" / "big.bin").open("wb") as file:
        file.truncate(8_000_000_000)
    home = tmp_path / "ann"
    ann = stack.enter_context(Client(running.port, home))
    ann.type("ann", "f", "client1", "big.bin")
    _wait_for_bytes(home)
    ann.type("x")
    assert ann.status() == 1
    assert ann.err.lines == ["files given up: 1; ask again to resume"]
    (part,) = home.iterdir()
    assert part.name.startswith(".greenchat-")


def test_a_name_in_use_is_asked_for_again_on_a_terminal(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    with terminal() as term:
        options = ("--name", "CLIENT1")
        client = stack.enter_context(Client(running.port, tmp_path / "two", *options, stdin=term.end, stdout=term.end))
        client.err.wait_for("that name is in use: choose another\nEnter your name:\n")
        term.type("a:b")
        client.err.wait_for("a name has no colon in it, and nothing like one: choose another\nEnter your name:\n")
        term.type("client2")
        term.screen.wait_for(MENU[-1])


@pytest.mark.parametrize("name", ["client1", "CLIENT1", "a:b", " ", "x" * 33])  # fmt: skip
def test_a_name_refused_elsewhere_ends_the_client(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path, name: str
) -> None:
    client = stack.enter_context(Client(running.port, tmp_path / "two"))
    client.type(name, "m", "never said", "x")
    assert client.status() == 1
    assert len(client.err.lines) == 1
    assert client.err.text.endswith("\n")
    assert client.out.text == ""
    assert client1.out.lines == MENU


def test_the_file_of_the_share_option_is_served(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    share = tmp_path / "shared things"
    share.mkdir()
    (share / "list.txt").write_text("one\n")
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--share", str(share), "--name", "ann"))
    ann.wait_for_menu()
    bob = stack.enter_context(Client(running.port, tmp_path / "bob", "--transfer", "relay", "--name", "bob"))
    bob.type("f", "ann", "list.txt")
    bob.err.wait_for("received list.txt from ann (4 bytes)\n")
    bob.type("f", "ann", "list.txt")
    bob.err.wait_for("list.txt from ann is the same as the one that is here\n")
    (share / "list.txt").write_text("two\n")
    bob.type("F", "ann", "list.txt")
    bob.err.wait_for("received list.txt from ann (4 bytes); the one that was here is now list.txt.~1~\n")


def test_file_requests_that_come_to_nothing_are_one_line_each(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann"))
    for owner, file, reason in (
        ("nobody", "x", "no user of that name is here"),
        ("ann", "x", "that file is your own"),
        ("client1", "missing", "the owner has no such file to give"),
        ("client1", "../x", "that file name is not allowed: give a plain name without a directory"),
    ):
        ann.type("f", owner, file)
        ann.err.wait_for(f"could not get {file} from {owner}: {reason}\n")
    ann.type("x")
    assert ann.status() == 1
    assert len(ann.err.lines) == 4


# --- rows of what is thrown at it --------------------------------------------------------------


def test_row_29_a_server_out_of_descriptors_turns_out_those_who_say_nothing(stack: ExitStack) -> None:
    start = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    server = stack.enter_context(Program("-c", start, TOP / "ChatServer.py", "0"))
    server.err.wait_for(", port ")
    server.err.wait_for("\n")
    address = ("127.0.0.1", int(server.err.lines[0].rpartition(" ")[2]))
    ann = Wire(address[1])
    stack.callback(ann.close)
    ann.send(hello("ann"))
    ann.record(Welcome)
    many = [stack.enter_context(gevent.socket.create_connection(address)) for _ in range(60)]
    many[59].sendall(b"bob\n")
    while not _hears(ann.sock, many[59]):
        pass
    assert len(server.err.lines) == 1


def _hears(listener: gevent.socket.socket, speaker: gevent.socket.socket) -> bool:
    """Return True once a line comes; a connection that has ended would give none for ever."""
    speaker.sendall(b"hello\n")
    listener.settimeout(0.1)
    try:
        data = listener.recv(100)
    except TimeoutError:
        return False
    assert data
    return True


@pytest.mark.parametrize("how", ["nobody reads it", "closed"])
def test_row_35_server_whose_standard_error_is_broken_ends_when_told(stack: ExitStack, how: str) -> None:
    stop = "sys.stderr.close(); os.close(2);" if how == "closed" else ""
    start = f"import os, sys; {stop} os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    with gevent.socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    server = stack.enter_context(Program("-c", start, TOP / "ChatServer.py", str(port)))
    if how != "closed":
        server.err.wait_for("\n")
    server.err.close()
    ann = Wire.over(_connected(port))
    stack.callback(ann.close)
    ann.send(hello("ann"))
    ann.record(Welcome)
    server.signal(signal.SIGTERM)
    assert ann.record(Error).code == Code.SHUTDOWN
    assert server.process.wait(PATIENCE) == 0


def _connected(port: int) -> gevent.socket.socket:
    """As soon as somebody listens."""
    while True:
        with suppress(ConnectionRefusedError):
            return gevent.socket.create_connection(("127.0.0.1", port))
        gevent.sleep(0.01)


def test_row_33_terminating_the_server_tells_everyone(running: Server, faithful: Client) -> None:
    running.signal(signal.SIGTERM)
    assert faithful.status() == 1
    assert faithful.err.lines == ["the server closed the connection: the server is shutting down"]
    assert running.status() == 0


def test_row_33_a_second_signal_ends_the_server_at_once(running: Server, stack: ExitStack) -> None:
    sleeper = Wire(running.port)
    stack.callback(sleeper.close)
    sleeper.send(hello("sleeper"))
    sleeper.record(Welcome)
    running.signal(signal.SIGINT)
    assert sleeper.record(Error).code == Code.SHUTDOWN
    running.signal(signal.SIGINT)
    assert running.status() == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_row_33_a_signal_ends_a_client_cleanly(client1: Client, number: signal.Signals) -> None:
    client1.signal(number)
    assert client1.status() == -number  # so that a shell sees that, too
    assert client1.err.text == ""


@pytest.mark.parametrize(
    ("typed", "output"),
    [
        (b"", []),
        (b"ann", MENU),
        (b"ann\n", MENU),
        (b"ann\r\n", MENU),
        (b"ann\nm", [*MENU, "Enter your message:"]),
        (b"ann\nm\nlast words", [*MENU, "Enter your message:", *MENU]),
        (b"ann\nf\nclient1\n", [*MENU, "Who owns the file?", "Which file do you want?"]),
    ],
    ids=["nothing", "unfinished-name", "name", "windows-name", "in-message", "unfinished-message", "in-request"],
)
@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
def test_row_34_end_of_input_is_x(
    running: Server, stack: ExitStack, tmp_path: Path, typed: bytes, output: list[str], kind: str
) -> None:
    if kind == "file":
        source = tmp_path / "typed"
        source.write_bytes(typed)
        client = stack.enter_context(Client(running.port, tmp_path, stdin=stack.enter_context(source.open("rb"))))
    elif kind == "socket":
        ours, theirs = gevent.socket.socketpair()
        with ours, theirs:
            client = stack.enter_context(Client(running.port, tmp_path, stdin=theirs.fileno()))
            ours.sendall(typed)
    else:
        client = stack.enter_context(Client(running.port, tmp_path))
        client.feed(typed)
        client.end_input()
    assert client.status() == 0
    assert client.out.lines == [*output, GOODBYE]
    assert client.err.text == ""


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null", "<&- >&- 2>&-"])
def test_row_34_no_input_at_all(running: Server, stack: ExitStack, tmp_path: Path, redirection: str) -> None:
    command = f'exec "$0" "$@" {redirection}'
    client = (sys.executable, str(TOP / "ChatClient.py"), "-l", "0", "-p", str(running.port), "--name", "ann")
    shell = subprocess.run(
        ["/bin/sh", "-c", command, *client], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True
    )
    assert shell.stdout.splitlines() == ([] if ">&-" in redirection else [*MENU, GOODBYE])
    assert shell.stderr == ""


def test_row_34_a_line_of_megabytes_is_refused_and_not_cut(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann"))
    ann.type("m", "x" * 3_000_000, "m", "short", "x")
    assert ann.status() == 1
    assert ann.err.lines == ["that message has more than 8192 bytes: send it in parts"]
    client1.out.wait_for("ann: short\n")
    assert client1.out.lines == [*MENU, "ann: short"]


def test_row_34_invalid_input_is_made_harmless(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann"))
    ann.feed(b"m\n\xff\x1b[2J\x00\xc2\x9b\xe2\x80\xae\n")
    client1.out.wait_for("ann: \ufffd\u241b[2J\u2400\ufffd\ufffd\n")


def test_row_34_an_unknown_option_is_hinted_at(client1: Client) -> None:
    client1.type("w", "", "z", "M", "still works")
    client1.out.wait_for("Enter your message:\n")
    client1.err.wait_for("no such option: type m, f or x, then Enter; ? shows what else there is\n" * 2)
    client1.type(" X ")
    assert client1.status() == 1


def test_row_35_a_closed_output_ends_the_client(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    client = stack.enter_context(Client(running.port, tmp_path, "--name", "ann", stdout=writing))
    os.close(writing)
    assert client.status() == 1
    assert client.err.lines == ["standard output cannot be written to"]


def test_row_35_a_full_disk_under_the_output_ends_the_client(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        client = stack.enter_context(Client(running.port, tmp_path, "--name", "ann", stdout=full))
        assert client.status() == 1
        assert client.err.lines == ["standard output cannot be written to"]


def test_row_35_an_unread_output_does_not_stop_files(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann", stdout=writing))
    os.close(writing)
    with os.fdopen(reading, "rb"):
        ann.type("f", "client1", "Ameca_splendens.jpg")
        ann.err.wait_for("received Ameca_splendens.jpg")
        for n in range(100):
            client1.type("m", f"{n} " + "x" * 4000)  # far more than a pipe holds
        (tmp_path / "ann" / "late.txt").write_text("late")
        ann.type("f", "client1", "Ameca_splendens.jpg")
        ann.err.wait_for("is the same as the one that is here")
        client1.type("f", "ann", "late.txt")
        client1.err.wait_for("received late.txt from ann")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["ChatServer.py"], 2, "the following arguments are required: port"),
        (["ChatServer.py", "many"], 2, "'many' is no port: give a number from 0 to 65535"),
        (["ChatServer.py", "-5"], 2, ""),
        (["ChatServer.py", "70000"], 2, "'70000' is no port: give a number from 0 to 65535"),
        (["ChatServer.py", "{taken}"], 1, "port {taken} is in use: give another, or 0 for any that is free"),
        (["ChatServer.py", "0", "--host", "192.0.2.1"], 1, "192.0.2.1 is no address of this machine: give one that is"),
        (
            ["ChatServer.py", "0", "--host", "0.0.0.0"],
            1,
            "at 0.0.0.0 nothing would be encrypted: give --tls, or else --ins",
        ),
        (["ChatServer.py", "0", "--tls-cert", "/none"], 1, "cannot use /none and /none: no such file or directory"),
        (["ChatClient.py", "-l", "0"], 2, "the following arguments are required: -p"),
        (["ChatClient.py", "-l", "x", "-p", "{taken}"], 2, "'x' is no port: give a number from 0 to 65535"),
        (["ChatClient.py", "-l", "70000", "-p", "{taken}"], 2, "'70000' is no port"),
        (["ChatClient.py", "-l", "80", "-p", "{taken}"], 2, "80 is kept for the system: give 0 or a number from 1024"),
        (["ChatClient.py", "-l", "{taken}", "-p", "{taken}"], 1, "port {taken} is in use"),
        (
            ["ChatClient.py", "-l", "0", "-p", "{free}"],
            1,
            "no server answers at 127.0.0.1 port {free}: connection refused",
        ),
        (["ChatClient.py", "-l", "0", "-p", "0"], 2, "no server listens at port 0"),
        (["ChatClient.py", "-l", "0", "-p", "{other}"], 1, "what answers there is not a greenchat server"),
        (["ChatClient.py", "-l", "0", "-p", "{taken}", "--share", "/nonexistent"], 1, "cannot share /nonexistent"),
        (["ChatClient.py", "-l", "0", "-p", "{taken}", "--transfer", "pigeon"], 2, "pigeon"),
        (["ChatClient.py", "-l", "0", "-p", "{taken}", "--parallel", "17"], 2, "'17' is not from 1 to 16"),
        (["ChatClient.py", "-l", "0", "-p", "{taken}", "--limit-rate", "1K"], 2, "'1K' is no rate of at least 160K"),
        (["ChatClient.py", "-l", "0", "-p", "{taken}", "--host", "no.such.host.invalid"], 1, "no such host"),
        (["-m", "greenchat", "serve"], 2, "invalid choice: 'serve'"),
    ],
)
def test_row_36_ports(running: Server, tmp_path: Path, arguments: list[str], status: int, told: str) -> None:
    with listen(("127.0.0.1",), 0)[0] as other, gevent.socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        places = {"taken": running.port, "free": unused.getsockname()[1], "other": other.getsockname()[1]}
        script, *rest = [argument.format(**places) for argument in arguments]
        answering = gevent.spawn(_speak_another_protocol, other)
        with Program(TOP / script if script.endswith(".py") else script, *rest, home=TOP) as program:
            with_name = gevent.spawn(program.feed, b"ann\n")
            assert program.status() == status
            assert len(program.err.lines) == 1
            assert told.format(**places) in program.err.text
            assert program.out.text == ""
        gevent.killall([answering, with_name])


def _speak_another_protocol(listener: gevent.socket.socket) -> None:
    sock, _ = listener.accept()
    with sock:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        while sock.recv(1000):
            pass


def test_the_package_runs_both_programs(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(Program("-m", "greenchat", "server", "0", home=TOP))
    server.err.wait_for("port ")
    server.err.wait_for("\n")
    port = server.err.lines[0].rpartition(" ")[2]
    client = stack.enter_context(Program("-m", "greenchat", "client", "-l", "0", "-p", port, home=TOP))
    client.type("ann", "x")
    assert client.status() == 0
    assert client.out.lines == [*MENU, GOODBYE]


def test_exposing_the_server_is_warned_of(stack: ExitStack) -> None:
    server = stack.enter_context(Server("--host", "0.0.0.0", "--insecure"))
    server.err.wait_for("warning: nothing is encrypted")
    assert server.err.lines[0] == f"listening on 0.0.0.0, port {server.port}"


def test_home_directory_that_is_shared_is_warned_of(
    running: Server, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    told = "this is your home directory: others may fetch 2 files from it (a, b); --share gives another\n"
    for options, err in (([], told), (["--share", str(TOP)], ""), (["--accept", "none"], "")):
        ann = stack.enter_context(Client(running.port, tmp_path, "--name", "ann", *options))
        ann.type("x")
        assert ann.status() == 0
        assert ann.err.text == err
        assert ann.out.lines == [*MENU, GOODBYE]


# --- what users and attackers found ------------------------------------------------------------


def test_input_that_ends_waits_for_the_files_that_were_asked_for(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(3_000_000)
    (tmp_path / "client1" / "big.bin").write_bytes(content)
    for asked, status in ((["big.bin"], 0), (["big.bin", "missing"], 1)):
        ann = stack.enter_context(Client(running.port, tmp_path / f"ann{status}", "--name", "ann"))
        ann.type(*(line for file in asked for line in ("f", "client1", file)))
        ann.end_input()
        assert ann.status() == status
        assert (tmp_path / f"ann{status}" / "big.bin").read_bytes() == content


def test_byte_order_mark_is_no_part_of_the_input(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    ann = stack.enter_context(Client(running.port, tmp_path / "ann"))
    ann.feed(b"\xef\xbb\xbfann\nx\n")
    assert ann.status() == 0
    assert ann.err.text == ""


@pytest.mark.attack(50)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_that_the_launcher_ignored_stay_ignored(tmp_path: Path, number: signal.Signals) -> None:
    ignore = "signal.signal(int(sys.argv[1]), signal.SIG_IGN)"
    launcher = f"import os, signal, sys; {ignore}; os.execv(sys.executable, sys.argv[2:])"
    with Program("-c", launcher, str(int(number)), sys.executable, TOP / "ChatServer.py", "0") as server:
        server.err.wait_for(", port ")
        server.err.wait_for("\n")
        port = server.err.lines[0].rpartition(" ")[2]
        client = (sys.executable, TOP / "ChatClient.py", "-l", "0", "-p", port, "--name", "ann")
        with Program("-c", launcher, str(int(number)), *client, home=tmp_path) as ann:
            ann.out.wait_for(MENU[-1])
            for program in (ann, server):
                program.signal(number)
            ann.type("m", "still here", "x")
            assert ann.status() == 0
            server.signal(signal.SIGTERM)
            assert server.status() == 0


@pytest.mark.attack(50)
def test_loop_of_a_shell_ends_with_the_client_that_is_interrupted(running: Server, tmp_path: Path) -> None:
    client = f"{sys.executable} {TOP / 'ChatClient.py'} -l 0 -p {running.port} --name ann"
    script = f"while true; do {client}; echo again >&2; done"
    shell = subprocess.Popen(
        ["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    assert shell.stdout
    while b"e(X)it" not in shell.stdout.readline():
        pass
    os.killpg(shell.pid, signal.SIGINT)
    assert shell.wait(PATIENCE) == -signal.SIGINT
    _, told = shell.communicate()
    assert b"again" not in told


def test_non_blocking_input_is_no_input_that_ends(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    os.set_blocking(theirs.fileno(), False)
    with ours, theirs:
        ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann", stdin=theirs.fileno()))
        ann.wait_for_menu()
        ours.sendall(b"m\n")
        ann.out.wait_for("Enter your message:\n")
        ours.sendall(b"hi\nx\n")
        assert ann.status() == 0


def test_hundreds_of_requests_to_a_silent_owner_hold_up_neither_messages_nor_leaving(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    witness = stack.enter_context(Client(running.port, tmp_path / "witness", "--name", "witness"))
    witness.wait_for_menu()
    client1.signal(signal.SIGSTOP)
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann"))
    ann.type(*["f", "client1", "Ameca_splendens.jpg"] * 300, "m", "still here", "x")
    witness.out.wait_for("ann: still here\n")
    assert ann.status() == 1
    client1.signal(signal.SIGCONT)


@pytest.mark.attack(43)
def test_server_that_hung_ends_nobody_who_has_tried_again_meanwhile(
    running: Server, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_session, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(client_session, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(client_session, "PONG_SECONDS", 0.2)
    monkeypatch.setattr(client_connection, "RECONNECT_DELAYS", (0.05,))
    lost, back = Event(), Event()
    ann = stack.enter_context(
        ChatClient(
            "ann", running.port, share=tmp_path, reconnect=True,
            on_lost=lambda _: lost.set(), on_back=lambda _: back.set(),
        )
    )  # fmt: skip
    with gevent.socket.create_connection(("127.0.0.1", running.port)) as bob:
        bob.sendall(b"bob\n")
        running.signal(signal.SIGSTOP)
        lost.wait()
        gevent.sleep(2)  # in which it gives up several attempts
        running.signal(signal.SIGCONT)
        back.wait()
        bob.sendall(b"hi\n")
        assert str(next(ann.messages())) == "bob: hi"
        ann.send("hi")
        assert bob.recv(100) == b"ann: hi\n"


def test_all_hear_all_of_clients_that_start_at_one_moment(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    all_hear_all(running, stack, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ten", range(5))
def test_all_hear_all_fifty_times_on_a_busy_machine(running: Server, tmp_path: Path, ten: int) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        for number in range(10 * ten, 10 * ten + 10):
            with ExitStack() as stack:
                all_hear_all(running, stack, tmp_path / str(number), "--room", str(number))
    finally:
        for process in busy:
            process.kill()
            process.wait()


def all_hear_all(server: Server, stack: ExitStack, home: Path, *options: str) -> None:
    """Three clients start, and speak at once; each hears each of the others' lines once."""
    home.mkdir(exist_ok=True)
    clients = {
        name: stack.enter_context(Client(server.port, home / name, "--name", name, *options))
        for name in ("one", "two", "three")
    }
    for name, client in clients.items():
        client.type("m", f"hello from {name}")
    for name, client in clients.items():
        due = {f"{other}: hello from {other}" for other in clients if other != name}
        until(lambda: due <= set(client.out.lines))  # noqa: B023 - called at once
        client.type("x")
        assert client.status() == 0
        assert sorted(line for line in client.out.lines if ": hello" in line) == sorted(due)


def test_every_request_is_sent_before_leaving(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    with gevent.socket.create_connection(("127.0.0.1", running.port)) as owner:
        owner.sendall(b'\x01{"t":"hello","v":1,"name":"own","listen":0}\n')
        ann = stack.enter_context(Client(running.port, tmp_path / "ann"))
        ann.type("ann", *(line for n in range(20) for line in ("f", "own", f"file{n}")), "x")
        assert ann.status() == 1
        heard = b""
        while heard.count(b'"want"') < 20:
            heard += owner.recv(65536)


def test_the_loss_of_the_server_is_told_though_standard_output_is_stuck(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    arguments = ("--name", "stuck", "--no-reconnect")
    stuck = stack.enter_context(Client(running.port, tmp_path / "stuck", *arguments, stdout=writing))
    os.close(writing)
    with os.fdopen(reading, "rb"):
        stuck.type("m", "ready")
        client1.out.wait_for("stuck: ready\n")
        client1.type(*["m", "x" * 4000] * 100)
        stuck.type("m", "again")
        client1.out.wait_for("stuck: again\n")
        running.signal(signal.SIGKILL)
        assert stuck.status() == 1
        assert stuck.err.lines == ["the server is gone: the connection was lost"]


def test_what_was_received_is_written_before_leaving(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    bob = stack.enter_context(Client(running.port, tmp_path / "bob", "--name", "bob"))
    reading, writing = os.pipe()
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann", stdout=writing))
    os.close(writing)
    bob.type("m", "ready")
    client1.out.wait_for("bob: ready\n")
    ann.type("m", "ready")
    client1.out.wait_for("ann: ready\n")
    said = [f"{n} " + "x" * 2000 for n in range(100)]
    client1.type(*(line for text in said for line in ("m", text)))
    bob.out.wait_for(said[-1])  # so the server has sent it to all
    ann.type("f", "nobody", "it")
    ann.err.wait_for("could not get it")  # an answer on the same connection: what came before has been received
    ann.type("x")
    out = Stream(reading)
    assert ann.status() == 1
    out.wait_for(GOODBYE)
    assert [line for line in out.lines if line.startswith("client1: ")] == [f"client1: {text}" for text in said]
    out.close()


def test_row_34_an_input_that_cannot_be_read_is_at_its_end(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    with (tmp_path / "written").open("wb") as write_only:
        client = stack.enter_context(Client(running.port, tmp_path, "--name", "ann", stdin=write_only))
        assert client.status() == 0
        assert client.out.lines == [*MENU, GOODBYE]
        assert client.err.text == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_row_33_a_server_ends_well_as_soon_as_it_says_that_it_listens(number: signal.Signals) -> None:
    for _ in range(5):
        with Server() as server:
            server.signal(number)
            assert server.status() == 0
            assert len(server.err.lines) == 1


class Fetching:
    """client1 has a file of some seconds, and ann has got a part of it."""

    def __init__(self, running: Server, stack: ExitStack, tmp_path: Path, *arguments: str) -> None:
        self.content = random.randbytes(1_000_000) * 16  # more than is buffered on the way
        (tmp_path / "client1" / "big.bin").write_bytes(self.content)
        self.home = tmp_path / "ann"
        self._port, self._stack = running.port, stack
        self.ann = self.run("--limit-rate", "4M", *arguments)
        self.ann.type("f", "client1", "big.bin")
        self.wait_for(100_000)

    def run(self, *arguments: str) -> Client:
        return self._stack.enter_context(Client(self._port, self.home, "--name", "ann", *arguments))

    def wait_for(self, size: int) -> None:
        while self.came() < size:
            gevent.sleep(0.001)

    def came(self) -> int:
        return sum(part.stat().st_size for part in self.home.glob(".greenchat-*"))

    def resumes(self, earlier: int) -> None:
        """In another run of the client, which says so."""
        assert [path.suffix for path in self.home.iterdir()] == [".part"]
        ann = self.run()
        ann.type("f", "client1", "big.bin", "m", "")
        told = f"received big.bin from client1 ({len(self.content):,} bytes, {earlier:,} of them earlier)\n"
        ann.err.wait_for(told)
        assert [path.name for path in self.home.iterdir()] == ["big.bin"]
        assert (self.home / "big.bin").read_bytes() == self.content


@pytest.mark.parametrize("mode", ["direct", "relay"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_row_33_what_a_signal_interrupts_the_next_run_resumes(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path, number: signal.Signals, mode: str
) -> None:
    fetching = Fetching(running, stack, tmp_path, "--transfer", mode)
    fetching.ann.signal(number)
    assert fetching.ann.status() == -number
    assert fetching.ann.err.text == ""
    fetching.resumes(fetching.came())


def test_row_33_what_the_loss_of_the_server_interrupts_the_next_run_resumes(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    fetching = Fetching(running, stack, tmp_path, "--no-reconnect")
    running.signal(signal.SIGKILL)
    assert fetching.ann.status() == 1
    assert fetching.ann.err.lines == ["the server is gone: the connection was lost"]
    another = stack.enter_context(Server())
    owner = stack.enter_context(Client(another.port, tmp_path / "client1", "--name", "client1"))
    owner.wait_for_menu()
    fetching._port = another.port
    fetching.resumes(fetching.came())


def test_row_33_what_the_end_of_the_owner_interrupts_is_resumed_when_asked_for_again(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    fetching = Fetching(running, stack, tmp_path)
    client1.signal(signal.SIGKILL)
    fetching.ann.err.wait_for("could not get big.bin from client1: the connection was lost in the middle of the file\n")
    size = fetching.came()
    owner = stack.enter_context(Client(running.port, tmp_path / "client1", "--name", "client1"))
    owner.wait_for_menu()
    fetching.ann.type("f", "client1", "big.bin")
    fetching.ann.err.wait_for(f"{size:,} of them earlier")
    assert (fetching.home / "big.bin").read_bytes() == fetching.content


def test_row_33_a_server_that_is_told_to_end_waits_for_what_it_relays(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    fetching = Fetching(running, stack, tmp_path, "--transfer", "relay", "--no-reconnect")
    running.signal(signal.SIGTERM)
    running.err.wait_for("waiting for 1 relayed file to be done; a second signal ends that\n")
    fetching.ann.err.wait_for("received big.bin from client1 (16,000,000 bytes)\n")
    assert running.status() == 0
    assert fetching.ann.status() == 1
    assert (fetching.home / "big.bin").read_bytes() == fetching.content


def test_row_33_a_second_signal_ends_what_a_server_relays(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    fetching = Fetching(running, stack, tmp_path, "--transfer", "relay", "--no-reconnect")
    running.signal(signal.SIGTERM)
    running.err.wait_for("a second signal ends that\n")
    running.signal(signal.SIGTERM)
    assert running.status() == 128 + signal.SIGTERM
    assert fetching.ann.status() == 1
    assert [path.suffix for path in fetching.home.iterdir()] == [".part"]


@pytest.mark.parametrize("mode", ["direct", "relay"])
def test_what_leaving_gives_up_the_next_run_resumes(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path, mode: str
) -> None:
    fetching = Fetching(running, stack, tmp_path, "--transfer", mode)
    fetching.ann.type("x")
    assert fetching.ann.status() == 1
    assert fetching.ann.err.lines == ["files given up: 1; ask again to resume"]
    fetching.resumes(fetching.came())


def test_leaving_waits_for_nothing_that_shares_a_limited_rate(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    fetching = Fetching(running, stack, tmp_path, "--limit-rate", "160K", "--parallel", "16")
    for number in range(15):
        os.link(tmp_path / "client1" / "big.bin", tmp_path / "client1" / f"big{number}.bin")
        fetching.ann.type("f", "client1", f"big{number}.bin")
    while sum(part.stat().st_size > 0 for part in fetching.home.iterdir()) < 16:
        gevent.sleep(0.01)
    fetching.ann.type("x")
    assert fetching.ann.status() == 1
    assert fetching.ann.err.lines == ["files given up: 16; ask again to resume"]


def test_files_move_one_at_a_time_and_in_order_if_told_to(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    for number, size in enumerate((3_000_000, 10, 2_000_000, 0)):
        (tmp_path / "client1" / f"file{number}").write_bytes(random.randbytes(size))
    ann = stack.enter_context(Client(running.port, tmp_path / "ann", "--name", "ann", "--parallel", "1"))
    ann.type(*(line for number in range(4) for line in ("f", "client1", f"file{number}")))
    ann.err.wait_for("file3")
    assert [line.split()[1] for line in ann.err.lines] == [f"file{number}" for number in range(4)]
    for number in range(4):
        name = f"file{number}"
        assert (tmp_path / "ann" / name).read_bytes() == (tmp_path / "client1" / name).read_bytes()


@pytest.mark.parametrize("limited", ["requester", "owner"])
@pytest.mark.parametrize("mode", ["direct", "relay"])
def test_the_rate_is_limited(running: Server, stack: ExitStack, tmp_path: Path, limited: str, mode: str) -> None:
    clients = [
        stack.enter_context(
            Client(running.port, tmp_path / name, "--name", name, "--transfer", mode,
                   *(["--limit-rate", "2M"] if name == limited else []))
        )
        for name in ("requester", "owner")
    ]  # fmt: skip
    clients[1].wait_for_menu()
    content = random.randbytes(4 * 1024 * 1024)
    (tmp_path / "owner" / "file").write_bytes(content)
    began = time.monotonic()
    clients[0].type("f", "owner", "file")
    clients[0].err.wait_for("received file")
    assert time.monotonic() - began > 1.5  # two seconds' worth, but for what a pipe holds
    assert (tmp_path / "requester" / "file").read_bytes() == content


@pytest.mark.parametrize("lacks", [(), ("requester",), ("owner",), ("owner", "requester")], ids=" and ".join)
def test_files_arrive_with_either_digest(
    running: Server, stack: ExitStack, tmp_path: Path, lacks: tuple[str, ...]
) -> None:
    (tmp_path / "absent").mkdir()
    without = absent(tmp_path / "absent", "blake3")
    owner, requester = (
        stack.enter_context(
            Client(running.port, tmp_path / name, "--name", name, without=without if name in lacks else None)
        )
        for name in ("owner", "requester")
    )
    owner.wait_for_menu()
    (tmp_path / "owner" / "file").write_bytes(FISH)
    requester.type("f", "owner", "file")
    requester.err.wait_for(f"received file from owner ({len(FISH):,} bytes)\n")
    owner.err.wait_for("sent file to requester")
    assert (tmp_path / "requester" / "file").read_bytes() == FISH


def test_part_that_came_with_one_digest_is_resumed_with_another(
    running: Server, client1: Client, stack: ExitStack, tmp_path: Path
) -> None:
    fetching = Fetching(running, stack, tmp_path)
    fetching.ann.signal(signal.SIGKILL)
    fetching.ann.status()
    (tmp_path / "absent").mkdir()
    without = absent(tmp_path / "absent", "blake3")
    ann = stack.enter_context(Client(running.port, fetching.home, "--name", "ann", without=without))
    size = fetching.came()
    ann.type("f", "client1", "big.bin")
    ann.err.wait_for(f"{size:,} of them earlier")
    assert (fetching.home / "big.bin").read_bytes() == fetching.content


def test_an_empty_share_is_wrong_usage(running: Server, stack: ExitStack, tmp_path: Path) -> None:
    client = stack.enter_context(Client(running.port, tmp_path, "--share", ""))
    assert client.status() == 2
    assert "give a directory" in client.err.text
