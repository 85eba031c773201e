"""What a client signs to prove to a server who it is: of no use anywhere else, nor a second time."""

import hashlib
import os
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final

from greenchat.errors import Code, ProtocolError
from greenchat.protocol.limits import MAX_CERTIFICATE

if TYPE_CHECKING:
    from greenchat.security.keys import Identity

__all__ = ["certificate_of", "is_proof", "new_nonce", "prove", "text_of", "transfer_of"]

_PURPOSE: Final = b"greenchat: this is my name, version 1\0"
"""So that no signature made for something else, such as TLS, is a proof."""


def new_nonce() -> str:
    """Return 256 random bits, in hexadecimal."""
    return os.urandom(32).hex()


def text_of(certificate: bytes) -> str:
    """*certificate* as a record has it."""
    return b64encode(certificate).decode()


def certificate_of(text: str) -> bytes:
    """The certificate in a record. Raises `ProtocolError` if it is none, or too long."""
    try:
        certificate = b64decode(text, validate=True)
    except ValueError:
        certificate = b""
    if 0 < len(certificate) <= MAX_CERTIFICATE:
        return certificate
    raise ProtocolError(Code.BAD_PROOF)


def transfer_of(ticket: str) -> str:
    """What names a ticket where everybody can read it."""
    return hashlib.sha256(ticket.encode()).hexdigest()


def prove(identity: "Identity", nonce: str, server: bytes, name: str) -> str:
    """The signature that a record has, for the *server* with this certificate, which asked with *nonce*."""
    return b64encode(identity.sign(_message(nonce, server, name))).decode()


def is_proof(signature: str, certificate: bytes, nonce: str, server: bytes, name: str) -> bool:
    """Return whether the key of *certificate* signed this."""
    from greenchat.security.keys import signed_by

    try:
        return signed_by(certificate, b64decode(signature, validate=True), _message(nonce, server, name))
    except ValueError:
        return False


def _message(nonce: str, server: bytes, name: str) -> bytes:
    parts = (nonce.encode(), server, name.encode())
    return _PURPOSE + b"".join(hashlib.sha256(part).digest() for part in parts)
