"""Keys of one's own, each in a file with a certificate that it signed itself, and what is signed with them."""

import contextlib
import os
import secrets
import ssl
import stat
from datetime import datetime
from pathlib import Path
from typing import Final

from greenchat.errors import Code, SecurityError
from greenchat.security.files import open_regular, read_regular, words
from greenchat.threads import on_files

__all__ = ["Identity", "certificate_in", "check_installed", "key_file", "signed_by"]

_SUBJECT: Final = "greenchat"
"""Whose certificate it is in its own words: nobody's, because it is known by its fingerprint alone."""

_FROM: Final = datetime(2020, 1, 1)  # noqa: DTZ001 - X.509 has no other time than UTC
_UNTIL: Final = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001 - the same
"""It never expires (RFC 5280, section 4.1.2.5): to those who know it, another would be a stranger's."""


def check_installed() -> None:
    """Raise `SecurityError` unless the extra is installed that makes keys, signs, and checks signatures."""
    try:
        from cryptography import x509  # noqa: F401 - loaded as a whole, because a part may be broken
    except ImportError:
        raise _missing() from None


def key_file(path: Path) -> Path:
    """*path*, where a key is made if there is none yet. Raises `SecurityError` if it cannot be had, or is no secret."""
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _keep(_new_key(), path)
        fd = open_regular(path)
        mode = os.fstat(fd).st_mode
        os.close(fd)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SecurityError(Code.BAD_KEY, f"{path} can be read by others: make it yours alone (chmod 600)")
    except OSError as error:
        raise SecurityError(Code.BAD_KEY, f"cannot have a key in {path}: {words(error)}") from None
    return path


def certificate_in(path: Path) -> bytes:
    """The first certificate in the PEM file *path*, in DER. Raises `SecurityError`."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    with contextlib.suppress(OSError, ValueError):
        _, _, after = read_regular(path).decode("ascii", "replace").partition(begin)
        if der := ssl.PEM_cert_to_DER_cert(f"{begin}{after.partition(end)[0]}{end}"):
            return der
    raise SecurityError(Code.BAD_KEY, f"there is no certificate in {path}")


class Identity:
    """A user's key, in the file *path*: made if there is none yet. Raises `SecurityError`."""

    def __init__(self, path: Path) -> None:
        self.path = key_file(path)
        self.certificate = certificate_in(path)
        """What others know the user by, in DER."""

    def sign(self, message: bytes) -> bytes:
        """A signature that only this user can make. Raises `SecurityError`."""
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError:
            raise _missing() from None
        with contextlib.suppress(OSError, ValueError, TypeError):
            key = load_pem_private_key(on_files(self.path, read_regular, self.path), None)
            if isinstance(key, Ed25519PrivateKey):
                return key.sign(message)
        raise SecurityError(Code.BAD_KEY, f"there is no key in {self.path} that can sign")


def signed_by(certificate: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether the key of *certificate* made *signature* of *message*; any of them may be garbage."""
    try:
        from cryptography import exceptions, x509
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise _missing() from None
    with contextlib.suppress(
        exceptions.InvalidSignature, exceptions.UnsupportedAlgorithm, x509.InvalidVersion, ValueError, TypeError
    ):
        key = x509.load_der_x509_certificate(certificate).public_key()
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
            return True
    return False


def _missing() -> SecurityError:
    from greenchat.install import how_to_install

    return SecurityError(Code.BAD_KEY, f"keys need cryptography: {how_to_install('secure')}")


def _new_key() -> bytes:
    """Make a key and its certificate, in PEM. A key would always have one and the same certificate."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise _missing() from None
    key, encoding = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _SUBJECT)])
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, _FROM, _UNTIL).sign(key, None)
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret + certificate.public_bytes(encoding)


def _keep(content: bytes, path: Path) -> None:
    """Have *content* in *path* whole, or not at all; if somebody else was faster, theirs stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
