"""One side of a TLS 1.3 connection as bytes in and bytes out; no socket is known here."""

import contextlib
import hashlib
import mmap
import ssl
from base64 import b32encode, b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from greenchat.errors import Code, ConnectError, ProtocolError

if TYPE_CHECKING:
    from greenchat.security.keys import Identity

__all__ = ["ALERT", "HANDSHAKE", "Tls", "client_context", "fingerprint", "pair_context", "server_context", "short"]

HANDSHAKE: Final = b"\x16"
"""The first byte of an encrypted connection, and of no plain one (RFC 8446, section 5.1)."""

ALERT: Final = b"\x15"
"""The first byte of a refusal."""

_RECORD: Final = 16 * 1024
"""Bytes that one read can give: a TLS record has no more (RFC 8446, section 5.1)."""


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of *certificate*, in DER, in the form that ssh-keygen has for keys."""
    return f"SHA256:{b64encode(hashlib.sha256(certificate).digest()).decode().rstrip('=')}"


def short(mark: str) -> str:
    """Of a fingerprint, as `fingerprint` makes it, what two people can read to each other: 80 bits in 16 letters.

    That is enough, because who wants to be taken for somebody has to meet the same bits; with magic-wormhole, whose 16
    bits can be tried once only, it is another matter. Raises `ValueError` if *mark* is no fingerprint.
    """
    letters = b32encode(b64decode(mark.removeprefix("SHA256:") + "=")[:10]).decode()
    return "-".join(letters[place : place + 4] for place in range(0, 16, 4))


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server that shows *certificate*, in PEM, perhaps with its chain. Raises `OSError` if it cannot be had.

    There are no session tickets: to resume would save clients little, and they would cost every connection a kilobyte.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate, key, password=_no_password)
    return context


def _no_password() -> str:
    return ""  # rather than to ask on the terminal, and to wait there


def pair_context(identity: "Identity", peer: bytes, *, server: bool) -> ssl.SSLContext:
    """For one end of a connection between two who know each other's certificates; *peer* is the other's, in DER.

    The end that is connected to is the *server*. Raises `ProtocolError` if the other's is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0
    try:
        context.load_cert_chain(identity.path)
        context.load_verify_locations(cadata=peer)
    except (OSError, ValueError):
        raise ProtocolError(Code.BAD_TLS) from None
    return context


def client_context(*, vouched: bool) -> ssl.SSLContext:
    """For a client that takes only who is *vouched* for by this system's authorities, or else looks for itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if vouched:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Tls:
    """Seals what is to be sent and opens what was received.

    A client begins, and may name the *host* that it expects. What `outgoing` has is for the peer, from the start and
    after each `receive`, until the connection is `established`. Then it goes with what is sealed.
    """

    __slots__ = ("_incoming", "_outgoing", "_plain", "_ssl", "established", "over")

    def __init__(self, context: ssl.SSLContext, host: str | None = None) -> None:
        self.established = False
        """Whether the two have agreed, so that something can be said."""
        self.over = False
        """Whether the peer has said that it says nothing more; what comes then is nobody's, and not kept."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.protocol is ssl.PROTOCOL_TLS_SERVER
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=host)
        self._plain = memoryview(b"")
        if not server:
            self._shake_hands()

    def receive(self, data: bytes) -> bytes:
        """What *data* says, which may be nothing yet.

        Raises `ProtocolError` if it is not TLS 1.3 or was tampered with, or `ConnectError` if the peer is not whom the
        context trusts; `outgoing` may have last words then.
        """
        if self.over:
            return b""
        self._incoming.write(data)
        if not self.established:
            self._shake_hands()
        return b"".join(self._open()) if self.established else b""

    def open(self, data: memoryview) -> memoryview:
        """The same for much at once, once `established`: what it returns is good until the next call."""
        most = len(data) + 2 * _RECORD  # with what came of a record before
        if len(self._plain) < most:
            self._plain = memoryview(mmap.mmap(-1, most))  # as in `greenchat.transfer.pump`
        if self.over:
            return memoryview(b"")
        self._incoming.write(data)
        size = 0
        with self._tampering():
            while read := cast(int, self._ssl.read(_RECORD, self._plain[size:])):
                size += read
        return self._plain[:size]

    def seal(self, data: bytes | memoryview) -> bytes:
        """What to send so that the peer receives *data*: nothing yet before the connection is `established`.

        After it broke only what `outgoing` has.
        """
        if not self.established:
            return b""
        with contextlib.suppress(ssl.SSLError):
            self._ssl.write(data)
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """What the connection itself has to tell the peer."""
        return self._outgoing.read()

    def peer(self) -> bytes:
        """The peer's certificate, in DER; nothing if it showed none."""
        return self._ssl.getpeercert(binary_form=True) or b""

    def _shake_hands(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            try:
                self._ssl.do_handshake()
            except ssl.SSLCertVerificationError as error:
                raise ConnectError(
                    Code.UNTRUSTED, f"the other side's certificate is refused: {error.verify_message}"
                ) from None
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError:
                raise ProtocolError(Code.BAD_TLS) from None
            self.established = True

    def _open(self) -> "list[bytes]":
        opened = []
        with self._tampering():
            while data := self._ssl.read(_RECORD):
                opened.append(data)
        return opened

    @contextlib.contextmanager
    def _tampering(self) -> Iterator[None]:
        """Around reading all that there is."""
        try:
            yield
            self.over = True  # nothing was read, and there is nothing to wait for
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            raise ProtocolError(Code.BAD_TLS) from None
        if self._outgoing.pending > _RECORD:  # it asks for new keys, again and again
            raise ProtocolError(Code.BAD_TLS)
