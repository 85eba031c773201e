"""Everything greenchat raises, and the codes that peers exchange.

    GreenchatError                 base of all; has ``code`` and a sentence for people
    ├── BadName                    a user or file name that breaks the rules
    ├── ProtocolError              a peer broke the rules of the wire
    ├── ListenError                a port to listen on could not be had
    ├── ConnectError               the server does not answer, or is not a greenchat server, or not the one it should be
    ├── LogError                   what was said cannot be kept where it is to be
    ├── SecurityError              a key or a certificate of this user could not be had
    ├── Refused                    the server answered and said no
    ├── ServerGone                 the connection to the server ended
    └── TransferError              a file did not arrive, or could not be served

A code is what one program tells another; a sentence is what a program tells its own user.
No sentence made here holds a path or a secret, so each may be sent to a peer.
"""

from enum import StrEnum

__all__ = [
    "BadName",
    "Code",
    "ConnectError",
    "GreenchatError",
    "ListenError",
    "LogError",
    "ProtocolError",
    "Refused",
    "SecurityError",
    "ServerGone",
    "TransferError",
    "known",
    "sentence",
]


class Code(StrEnum):
    """What went wrong, as peers say it on the wire (``docs/protocol.md`` lists them)."""

    # the chat connection
    BAD_NAME = "bad-name"
    NAME_TAKEN = "name-taken"
    NAME_ALIKE = "name-alike"
    NAME_OWNED = "name-owned"
    TOO_MANY_NAMES = "too-many-names"
    TOO_MANY_ROOMS = "too-many-rooms"
    TAKEN_OVER = "taken-over"
    MEMBERS_ONLY = "members-only"
    BAD_INVITE = "bad-invite"
    BANNED = "banned"
    UNKNOWN_USER = "unknown-user"
    BAD_PROOF = "bad-proof"
    TOO_MANY_FAILURES = "too-many-failures"
    BAD_VERSION = "bad-version"
    BAD_PORT = "bad-port"
    SERVER_FULL = "server-full"
    HELLO_LATE = "hello-late"
    LINE_TOO_LONG = "line-too-long"
    BAD_RECORD = "bad-record"
    UNEXPECTED = "unexpected-record"
    OTHER_PROTOCOL = "other-protocol"
    SLOW_CONSUMER = "slow-consumer"
    SHUTDOWN = "shutdown"
    SERVER_GONE = "server-gone"
    UNAVAILABLE = "unavailable"
    WAITING = "waiting"
    KEPT_AGAIN = "kept-again"
    CANNOT_LISTEN = "cannot-listen"
    # encryption
    TLS_REQUIRED = "tls-required"
    BAD_TLS = "bad-tls"
    UNTRUSTED = "untrusted"
    BAD_KEY = "bad-key"
    # asking for a file
    BAD_FILE_NAME = "bad-file-name"
    UNKNOWN_OWNER = "unknown-owner"
    OWN_FILE = "own-file"
    NO_FILES = "no-files"
    NOT_FOUND = "not-found"
    TOO_MANY = "too-many-requests"
    OWNER_SILENT = "owner-silent"
    OWNER_LEFT = "owner-left"
    # moving a file
    BAD_TICKET = "bad-ticket"
    NOT_ACCEPTED = "not-accepted"
    ASKED = "asked"
    KEY_CHANGED = "key-changed"
    NO_KEY = "no-key"
    UNREACHABLE = "unreachable"
    RELAY_BUSY = "relay-busy"
    INTERRUPTED = "interrupted"
    STALLED = "stalled"
    CHANGED = "changed"
    MISMATCH = "mismatch"
    # on the receiving side
    DISK = "disk"
    IN_THE_WAY = "in-the-way"
    # anything else, such as a code that a newer peer knows
    FAILED = "failed"


_SENTENCES = {
    Code.BAD_NAME: "that name is not allowed: choose another",
    Code.NAME_TAKEN: "that name is in use: choose another",
    Code.NAME_ALIKE: "that name looks like a name in use: choose another",
    Code.NAME_OWNED: "that name is somebody else's, or looks like it: choose another",
    Code.TOO_MANY_NAMES: "no more names can be owned: use one that is yours already",
    Code.TOO_MANY_ROOMS: "there are too many rooms: use one that is there already",
    Code.TAKEN_OVER: "you are here from elsewhere now",
    Code.MEMBERS_ONLY: "only members are let in: ask for an invitation",
    Code.BAD_INVITE: "the invitation was used already, has expired, or never was: ask for another",
    Code.BANNED: "you are not let in here",
    Code.UNKNOWN_USER: "nobody of that name is here who can be told alone",
    Code.BAD_PROOF: "the key does not prove who you are",
    Code.TOO_MANY_FAILURES: "too many attempts have failed: try again later",
    Code.BAD_VERSION: "the two sides speak different versions of the protocol: update the older one",
    Code.BAD_PORT: "the port for file requests must be 0 or from 1024 to 65535",
    Code.SERVER_FULL: "the server is full: try again later",
    Code.HELLO_LATE: "no name was given in time",
    Code.LINE_TOO_LONG: "a line is too long: send shorter ones",
    Code.BAD_RECORD: "a record could not be understood",
    Code.UNEXPECTED: "a record came where it is not allowed",
    Code.OTHER_PROTOCOL: "this is a greenchat server, and the first line is of another protocol",
    Code.SLOW_CONSUMER: "too much was waiting unread: read faster",
    Code.SHUTDOWN: "the server is shutting down",
    Code.SERVER_GONE: "the connection to the server is lost",
    Code.UNAVAILABLE: "the server cannot do that at the moment: try again later",
    Code.WAITING: "the server cannot keep messages at the moment: they wait",
    Code.KEPT_AGAIN: "the server keeps messages again",
    Code.CANNOT_LISTEN: "the port cannot be listened on: give another",
    Code.TLS_REQUIRED: "this server takes encrypted connections only: give --tls",
    Code.BAD_TLS: "the encryption was broken or tampered with, or is too old",
    Code.UNTRUSTED: "the other side is not who it should be",
    Code.BAD_KEY: "a key or a certificate cannot be used",
    Code.BAD_FILE_NAME: "that file name is not allowed: give a plain name without a directory",
    Code.UNKNOWN_OWNER: "no user of that name is here",
    Code.OWN_FILE: "that file is your own",
    Code.NO_FILES: "that user serves no files",
    Code.NOT_FOUND: "the owner has no such file to give",
    Code.TOO_MANY: "too many requests are waiting: ask again later",
    Code.OWNER_SILENT: "the owner did not answer in time",
    Code.OWNER_LEFT: "the owner left",
    Code.BAD_TICKET: "the ticket is not valid: ask for the file again",
    Code.NOT_ACCEPTED: "the owner does not let you have files",
    Code.ASKED: "the owner has been asked whether you may, and did not answer yet",
    Code.KEY_CHANGED: "a key is not the one that was known before",
    Code.NO_KEY: "files go encrypted only, between two who both have keys",
    Code.UNREACHABLE: "the owner could not be reached",
    Code.RELAY_BUSY: "the server relays too many files already: ask again later",
    Code.INTERRUPTED: "the connection was lost in the middle of the file",
    Code.STALLED: "the other side stopped moving bytes",
    Code.CHANGED: "the file changed while it was being sent",
    Code.MISMATCH: "the bytes that arrived are not the bytes that were sent",
    Code.DISK: "the file could not be written here",
    Code.IN_THE_WAY: "something of that name is here already and cannot be moved aside",
    Code.FAILED: "it did not work",
}


def sentence(code: str) -> str:
    """What *code* means, for people; a code from a newer peer gets a general sentence."""
    return _SENTENCES.get(known(code), _SENTENCES[Code.FAILED])


def known(code: str) -> Code:
    """*code* as a `Code`; `Code.FAILED` if this version does not know it."""
    if isinstance(code, Code):
        return code
    try:
        return Code(code)
    except ValueError:
        return Code.FAILED


class GreenchatError(Exception):
    """Something that greenchat foresaw went wrong.

    ``code`` is for programs and peers, ``str()`` for people; *text* replaces the code's own sentence.
    """

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text or sentence(code))
        self.code = known(code)


class BadName(GreenchatError):
    """A user or file name breaks the rules of `greenchat.protocol.names`."""


class ProtocolError(GreenchatError):
    """A peer broke the rules of the wire."""


class ListenError(GreenchatError):
    """A port to listen on could not be had."""


class ConnectError(GreenchatError):
    """The server does not answer, or what answers is not a greenchat server."""


class LogError(GreenchatError):
    """What was said cannot be kept where it is to be; the text names the place, and is for this user alone."""


class SecurityError(GreenchatError):
    """A key or a certificate of this user could not be had; the text names the file, and is for this user alone."""


class Refused(GreenchatError):
    """The server answered and said no: the name is taken, say, or the server is full."""


class ServerGone(GreenchatError):
    """The connection to the server ended."""


class TransferError(GreenchatError):
    """A file did not arrive, or could not be served."""
