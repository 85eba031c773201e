from pathlib import Path

import pytest
from credentials import elliptic_certificate

from greenchat.errors import Code, ProtocolError, SecurityError
from greenchat.protocol.limits import MAX_CERTIFICATE
from greenchat.security.keys import Identity, signed_by
from greenchat.security.proof import certificate_of, is_proof, new_nonce, prove, text_of

SERVER = b"a server's certificate"


@pytest.fixture
def ann(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "ann.pem")


@pytest.fixture
def eve(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "eve.pem")


def test_proof_is_good_for_what_it_was_made_for(ann: Identity) -> None:
    nonce = new_nonce()
    assert is_proof(prove(ann, nonce, SERVER, "ann"), ann.certificate, nonce, SERVER, "ann")


def test_proof_is_good_for_nothing_else(ann: Identity, eve: Identity) -> None:
    nonce = new_nonce()
    proof = prove(ann, nonce, SERVER, "ann")
    assert not is_proof(proof, ann.certificate, new_nonce(), SERVER, "ann")
    assert not is_proof(proof, ann.certificate, nonce, b"another server's", "ann")
    assert not is_proof(proof, ann.certificate, nonce, SERVER, "bob")
    assert not is_proof(proof, eve.certificate, nonce, SERVER, "ann")
    assert not is_proof(prove(eve, nonce, SERVER, "ann"), ann.certificate, nonce, SERVER, "ann")


@pytest.mark.parametrize("junk", ["", "!", "AAAA", "A" * 88, "\u00e9", "A" * 5000])
def test_junk_is_no_proof(ann: Identity, junk: str) -> None:
    assert not is_proof(junk, ann.certificate, new_nonce(), SERVER, "ann")


@pytest.mark.parametrize("junk", [b"", b"junk", b"0" * 300, b"\x30\x82\xff\xff"])
def test_junk_has_signed_nothing(ann: Identity, junk: bytes) -> None:
    assert not signed_by(junk, ann.sign(b"message"), b"message")


def test_key_of_another_kind_has_signed_nothing(ann: Identity) -> None:
    assert not signed_by(elliptic_certificate(), ann.sign(b"message"), b"message")


def test_nonces_differ() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100


def test_certificate_survives_its_way_through_a_record(ann: Identity) -> None:
    assert certificate_of(text_of(ann.certificate)) == ann.certificate


@pytest.mark.parametrize("text", ["", "!", "AAA", text_of(b"x" * (MAX_CERTIFICATE + 1)), "\u00e9"])
def test_certificate_that_is_none_is_a_coded_error(text: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        certificate_of(text)
    assert refused.value.code == Code.BAD_PROOF


def test_identity_stays_the_same(tmp_path: Path, ann: Identity) -> None:
    assert Identity(tmp_path / "ann.pem").certificate == ann.certificate


def test_file_that_cannot_sign_is_an_error(tmp_path: Path, ann: Identity) -> None:
    text = ann.path.read_text()
    ann.path.write_text(text[text.index("-----BEGIN CERT") :])
    with pytest.raises(SecurityError, match=r"there is no key in .* that can sign"):
        Identity(ann.path).sign(b"message")
