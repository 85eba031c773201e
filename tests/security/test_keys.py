import os
import ssl
import stat
import sys
from pathlib import Path

import pytest
from credentials import new_certificate  # noqa: F401

from greenchat.errors import Code, SecurityError
from greenchat.install import how_to_install
from greenchat.security import keys
from greenchat.security.keys import Identity, certificate_in, key_file, signed_by


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def refusal(path: Path) -> str:
    with pytest.raises(SecurityError) as refused:
        key_file(path)
    assert refused.value.code == Code.BAD_KEY
    return str(refused.value)


def test_key_is_made_on_first_use_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "home" / "key.pem"
    assert key_file(path) == path
    made = path.read_bytes()
    assert key_file(path).read_bytes() == made
    assert names(path.parent) == ["key.pem"]


def test_key_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "key.pem"
    before = os.umask(0)
    try:
        key_file(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path / "key.pem")
    path.chmod(mode)
    assert refusal(path) == f"{path} can be read by others: make it yours alone (chmod 600)"


def test_key_that_somebody_else_made_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "key.pem", key_file(tmp_path / "other.pem")
    make = keys._new_key

    def late() -> bytes:
        os.link(other, path)
        return make()

    monkeypatch.setattr(keys, "_new_key", late)
    assert key_file(path).read_bytes() == other.read_bytes()
    assert names(tmp_path) == ["key.pem", "other.pem"]


def test_key_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "key.pem"
    assert refusal(path) == f"cannot have a key in {path}: file exists"


def test_key_cannot_be_made_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert refusal(tmp_path / "key.pem") == f"keys need cryptography: {how_to_install('secure')}"
    assert names(tmp_path) == []


def test_two_keys_differ(tmp_path: Path) -> None:
    assert certificate_in(key_file(tmp_path / "a.pem")) != certificate_in(key_file(tmp_path / "b.pem"))


def test_certificate_is_found_beside_its_key(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key.pem")
    pem = ssl.DER_cert_to_PEM_cert(certificate_in(path))
    assert pem in path.read_text()


@pytest.mark.parametrize("content", [b"", b"\xff", b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"])
def test_file_without_a_certificate_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(SecurityError, match="there is no certificate in "):
        certificate_in(path)
    with pytest.raises(SecurityError, match="there is no certificate in "):
        certificate_in(tmp_path / "none")


def test_certificate_of_no_version_that_there_is_signs_nothing(tmp_path: Path) -> None:
    me = Identity(tmp_path / "key.pem")
    assert signed_by(me.certificate, me.sign(b"message"), b"message")
    damaged = me.certificate.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x25", 1)
    assert damaged != me.certificate
    assert not signed_by(damaged, me.sign(b"message"), b"message")
