"""Certificates for tests, and peers that speak TLS as OpenSSL does without any of our own code."""

import datetime as dt
import ssl
from ipaddress import ip_address
from pathlib import Path

from conftest import Wire
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from gevent import socket
from gevent import ssl as green_ssl

from greenchat.security.keys import Identity, key_file
from greenchat.server.certificate import Certificate


def new_certificate(path: Path) -> Certificate:
    """One that signed itself, with its key in *path*."""
    key_file(path)
    return Certificate(path, path)


def encrypted(port: int) -> Wire:
    """A peer of whatever listens there, by gevent's own TLS; it takes any certificate."""
    context = green_ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return Wire.over(context.wrap_socket(socket.create_connection(("127.0.0.1", port))))


def signed_by_another(signer: Identity, path: Path) -> Identity:
    """Somebody with a key of its own, in *path*, and a certificate that *signer* has made for it."""
    key, day = Ed25519PrivateKey.generate(), dt.timedelta(days=1)
    issuer, now = x509.load_der_x509_certificate(signer.certificate).subject, dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(issuer, issuer, key.public_key(), 2, now - day, now + day)
    signing = load_pem_private_key(signer.path.read_bytes(), None)
    assert isinstance(signing, Ed25519PrivateKey)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(secret + builder.sign(signing, None).public_bytes(Encoding.PEM))
    return Identity(path)


def elliptic_certificate() -> bytes:
    """One with a key on another curve than Ed25519's, in DER."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


class Authority:
    """A certificate authority that a test may trust: *path* is where its certificate is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = Ed25519PrivateKey.generate()
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        path.write_bytes(self._sign(self._key, self._name, constraints).public_bytes(Encoding.PEM))

    def certify(self, path: Path, host: str) -> Certificate:
        """A certificate for *host*, a numeric address, with its key in *path*."""
        key = Ed25519PrivateKey.generate()
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
        certificate = self._sign(key, x509.Name([]), names)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
        return Certificate(path, path)

    def _sign(self, key: Ed25519PrivateKey, subject: x509.Name, extension: x509.ExtensionType) -> x509.Certificate:
        """Return a certificate with all that RFC 5280 asks for: Python 3.13 and later look for it."""
        now, day, issuer = dt.datetime.now(dt.UTC), dt.timedelta(days=1), self._key.public_key()
        builder = x509.CertificateBuilder(
            self._name, subject, key.public_key(), x509.random_serial_number(), now - day, now + day
        ).add_extension(extension, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        if key is self._key:
            builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
        return builder.sign(self._key, None)


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
