import base64
import collections
import contextlib
import hashlib
import os
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from credentials import Authority, new_certificate
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from greenchat.errors import Code, ConnectError, ProtocolError
from greenchat.security.tls import ALERT, HANDSHAKE, Tls, client_context, fingerprint
from greenchat.server.certificate import Certificate

Read: TypeAlias = Callable[[Tls, bytes], bytes | memoryview]


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return new_certificate(tmp_path / "server.pem")


def client(*, vouched: bool = False) -> Tls:
    return Tls(client_context(vouched=vouched), "127.0.0.1")


def shake_hands(one: Tls, other: Tls) -> None:
    """Until neither has anything to say."""
    while said := one.outgoing():
        assert other.receive(said) == b""
        one, other = other, one


@pytest.fixture
def pair(certificate: Certificate) -> tuple[Tls, Tls]:
    """A client and a server that have agreed."""
    ends = client(), Tls(certificate.context)
    shake_hands(*ends)
    assert all(end.established for end in ends)
    return ends


def test_what_is_sealed_is_opened_by_the_other(pair: tuple[Tls, Tls]) -> None:
    for one, other in (pair, pair[::-1]):
        assert other.receive(one.seal(b"hello\n")) == b"hello\n"


def test_stream_may_come_in_any_pieces(pair: tuple[Tls, Tls]) -> None:
    one, other = pair
    said = bytes(range(256)) * 300
    sealed = one.seal(said)
    assert b"".join(other.receive(sealed[at : at + 777]) for at in range(0, len(sealed), 777)) == said


def test_what_is_sealed_shows_nothing_of_it(pair: tuple[Tls, Tls]) -> None:
    assert b"secret" not in pair[0].seal(b"secret")


def test_server_shows_its_certificate_and_a_client_need_not_have_one(
    pair: tuple[Tls, Tls], certificate: Certificate
) -> None:
    assert pair[0].peer() == certificate.der
    assert pair[1].peer() == b""


def test_nothing_is_sealed_before_both_have_agreed(certificate: Certificate) -> None:
    assert client().seal(b"hello\n") == b""
    assert Tls(certificate.context).seal(b"hello\n") == b""


@pytest.mark.parametrize("place", [0, 1, 2, 5, 6, -1])
def test_row_21_flipped_byte_is_an_error(pair: tuple[Tls, Tls], place: int) -> None:
    one, other = pair
    sealed = bytearray(one.seal(b"hello\n"))
    sealed[place] ^= 1
    with pytest.raises(ProtocolError) as refused:
        other.receive(bytes(sealed) + one.seal(b"more\n"))
    assert refused.value.code == Code.BAD_TLS
    assert other.outgoing()[:1] in (ALERT, b"\x17")


def test_what_was_sent_before_cannot_be_sent_again(pair: tuple[Tls, Tls]) -> None:
    one, other = pair
    sealed = one.seal(b"pay\n")
    assert other.receive(sealed) == b"pay\n"
    with pytest.raises(ProtocolError):
        other.receive(sealed)


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", HANDSHAKE * 100, b"\0" * 20])
def test_peer_that_speaks_something_else_is_an_error(certificate: Certificate, junk: bytes) -> None:
    with pytest.raises(ProtocolError) as refused:
        Tls(certificate.context).receive(junk)
    assert refused.value.code == Code.BAD_TLS


def test_older_tls_is_refused(certificate: Certificate) -> None:
    context = client_context(vouched=False)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    one, other = Tls(context, "127.0.0.1"), Tls(certificate.context)
    with pytest.raises(ProtocolError):
        other.receive(one.outgoing())
    assert other.outgoing().startswith(ALERT)


def test_end_is_no_error(pair: tuple[Tls, Tls]) -> None:
    one, other = pair
    with pytest.raises(ssl.SSLWantReadError):
        one._ssl.unwrap()
    assert other.receive(one.outgoing()) == b""
    assert other.receive(b"") == b""


def test_client_refuses_whom_nobody_vouches_for(certificate: Certificate) -> None:
    one, other = client(vouched=True), Tls(certificate.context)
    with pytest.raises(
        ConnectError, match="the other side's certificate is refused: self-signed certificate"
    ) as refused:
        shake_hands(one, other)
    assert refused.value.code == Code.UNTRUSTED
    assert one.outgoing()


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_client_takes_whom_an_authority_vouches_for_by_its_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    trusted: bool,  # noqa: FBT001 - what it is to be
) -> None:
    authority = Authority(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    one, other = client(vouched=True), Tls(authority.certify(tmp_path / "server.pem", host).context)
    if trusted:
        shake_hands(one, other)
        assert one.established
    else:
        with pytest.raises(ConnectError, match="IP address mismatch"):
            shake_hands(one, other)


def test_fingerprint_is_the_digest_that_other_tools_show(certificate: Certificate) -> None:
    kind, _, digits = fingerprint(certificate.der).partition(":")
    assert (kind, base64.b64decode(f"{digits}=")) == ("SHA256", hashlib.sha256(certificate.der).digest())


class KeyUpdates:
    """A client's requests for new keys, each with the key that the one before has brought (RFC 8446, 4.6.3 and 7.2)."""

    def __init__(self, log: Path) -> None:
        """*log* is what OpenSSL wrote about a connection with TLS_AES_256_GCM_SHA384."""
        found = re.search(r"CLIENT_TRAFFIC_SECRET_0 \S+ (\S+)", log.read_text())
        assert found
        self._secret = bytes.fromhex(found[1])

    def next(self) -> bytes:
        message = b"\x18\x00\x00\x01\x01" + HANDSHAKE
        header = b"\x17\x03\x03" + (len(message) + 16).to_bytes(2)
        nonce = self._derived(b"iv", 12)
        sealed = AESGCM(self._derived(b"key", 32)).encrypt(nonce, message, header)
        self._secret = self._derived(b"traffic upd", 48)
        return header + sealed

    def _derived(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2) + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)


@pytest.fixture
def logged(certificate: Certificate, tmp_path: Path) -> Iterator[tuple[Tls, KeyUpdates]]:
    """A server, and what its client, that is gone, may say."""
    context = client_context(vouched=False)
    context.keylog_filename = str(tmp_path / "log")
    one, other = Tls(context, "127.0.0.1"), Tls(certificate.context)
    shake_hands(one, other)
    yield other, KeyUpdates(tmp_path / "log")
    context.keylog_filename = os.devnull  # closes the log


def test_peer_may_ask_for_new_keys(logged: tuple[Tls, KeyUpdates]) -> None:
    server, updates = logged
    before = len(server.seal(b"hello\n"))
    assert server.receive(updates.next()) == b""
    assert len(server.seal(b"hello\n")) > before  # the answer comes first


@pytest.mark.parametrize("read", [Tls.receive, lambda tls, data: tls.open(memoryview(data))], ids=["little", "much"])
def test_peer_that_only_asks_for_new_keys_fills_no_memory(logged: tuple[Tls, KeyUpdates], read: Read) -> None:
    server, updates = logged
    with pytest.raises(ProtocolError, match="tampered"):
        collections.deque((read(server, updates.next()) for _ in range(10_000)), maxlen=0)
    assert len(server.outgoing()) < 20_000


@pytest.mark.parametrize("read", [Tls.receive, lambda tls, data: tls.open(memoryview(data))], ids=["little", "much"])
def test_nothing_is_kept_of_what_comes_after_the_end(certificate: Certificate, read: Read) -> None:
    one, other = client(vouched=False), Tls(certificate.context)
    shake_hands(one, other)
    said = one.seal(b"last words")
    with contextlib.suppress(ssl.SSLError):
        one._ssl.unwrap()
    assert bytes(read(other, said + one.outgoing())) == b"last words"
    assert other.over
    for _ in range(100):
        assert not read(other, bytes(100_000))
    assert other._incoming.pending < 100_000
