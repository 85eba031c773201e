"""What a server shows to prove who it is; it can be exchanged while the server runs."""

import contextlib
import os
import ssl
from pathlib import Path

from greenchat.errors import Code, SecurityError
from greenchat.security.files import open_regular, read_regular, words
from greenchat.security.keys import certificate_in
from greenchat.security.tls import fingerprint, server_context

__all__ = ["Certificate"]


class Certificate:
    """A certificate and its key, in PEM, in two files or in one. Raises `SecurityError`, as `load` does."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = self.path = certificate
        """The file of the certificate."""
        self._key = key
        self.load()

    def load(self) -> None:
        """Take what is in the files now, for connections to come. If it raises `SecurityError`, nothing has changed."""
        begun = _content(self._certificate)
        try:
            for path in (self._certificate, self._key):
                os.close(open_regular(path))  # OpenSSL would wait for somebody to write to a FIFO
            context = server_context(self._certificate, self._key)
        except OSError as error:  # ssl.SSLError is one
            reason = "they are not a certificate and its key" if isinstance(error, ssl.SSLError) else words(error)
            raise SecurityError(
                Code.BAD_KEY, f"cannot use {self._certificate} and {self._key}: {reason.lower()}"
            ) from None
        der = certificate_in(self._certificate)
        if _content(self._certificate) != begun:  # the context may have another than this
            raise SecurityError(Code.BAD_KEY, f"{self._certificate} was being replaced: try again")
        self.der = der
        """The certificate alone."""
        self.context = context
        """For each new connection."""

    @property
    def fingerprint(self) -> str:
        """What people compare."""
        return fingerprint(self.der)


def _content(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return read_regular(path)
    return b""
