import ssl
from pathlib import Path

import pytest
from credentials import new_certificate

from greenchat.errors import Code, SecurityError
from greenchat.security.keys import key_file
from greenchat.security.tls import fingerprint, server_context
from greenchat.server import certificate as module
from greenchat.server.certificate import Certificate


def replace(path: Path) -> None:
    path.unlink()
    key_file(path)


def test_another_is_shown_once_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    certificate = new_certificate(path)
    first, context = certificate.fingerprint, certificate.context
    replace(path)
    assert certificate.fingerprint == first
    certificate.load()
    assert certificate.fingerprint == fingerprint(certificate.der) != first
    assert certificate.context is not context


@pytest.mark.parametrize(
    "content", [None, b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_changes_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "server.pem"
    certificate = new_certificate(path)
    before = certificate.der, certificate.context
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecurityError) as refused:
        certificate.load()
    assert refused.value.code == Code.BAD_KEY
    assert (certificate.der, certificate.context) == before


def test_what_is_being_replaced_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "server.pem"
    certificate = new_certificate(path)
    before = certificate.der, certificate.context

    def load(chain: Path, key: Path) -> ssl.SSLContext:
        context = server_context(chain, key)
        replace(path)
        return context

    monkeypatch.setattr(module, "server_context", load)
    with pytest.raises(SecurityError, match="try again"):
        certificate.load()
    assert (certificate.der, certificate.context) == before


def test_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    one, other = key_file(tmp_path / "one.pem"), key_file(tmp_path / "other.pem")
    whole = one.read_bytes()
    one.write_bytes(whole[whole.index(b"-----BEGIN CERTIFICATE") :])
    with pytest.raises(SecurityError, match="not a certificate and its key"):
        Certificate(one, other)
