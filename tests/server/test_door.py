import contextlib
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from credentials import new_certificate

from greenchat.errors import Code, ProtocolError, Refused, SecurityError
from greenchat.protocol.limits import FAILURES
from greenchat.protocol.records import Hello, Proof
from greenchat.security.keys import Identity
from greenchat.security.proof import prove, text_of
from greenchat.server import door as module
from greenchat.server.certificate import Certificate
from greenchat.server.door import Claim, Door
from greenchat.server.registry import Registry

HOME = "127.0.0.1"
AWAY = "192.0.2.1"


class ServerContext:
    """A server's door, and those who come to it."""

    def __init__(self, root: Path) -> None:
        self.certificate = new_certificate(root / "server.pem")
        self.registry = Registry(root / "names.db")
        self.door = Door(self.registry, members_only=False)

    def claim(self, hello: Hello) -> Claim:
        return self.door.claim(hello, self.certificate.der, hello.name)

    def come(self, who: Identity, name: str, *, host: str = AWAY, at: Certificate | None = None) -> Code | None:
        """What becomes of *who*, that wants to be called *name*; it proves that to the server *at* which it is."""
        claim = self.claim(Hello(1, name, 0, text_of(who.certificate)))
        proof = Proof(prove(who, claim.nonce, (at or self.certificate).der, name))
        with refusal() as refused:
            self.door.admit(claim, proof, host)
        return refused.code

    def guest(self, name: str, host: str = AWAY) -> Code | None:
        with refusal() as refused:
            self.door.admit_guest(name, host)
        return refused.code


class Outcome:
    code: Code | None = None


@contextlib.contextmanager
def refusal() -> Iterator[Outcome]:
    outcome = Outcome()
    try:
        yield outcome
    except Refused as refused:
        outcome.code = refused.code


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ServerContext]:
    one = ServerContext(tmp_path)
    yield one
    one.registry.close()


@pytest.fixture
def ann(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "ann.pem")


@pytest.fixture
def eve(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "eve.pem")


def test_first_key_to_use_a_name_owns_it(house: ServerContext, ann: Identity, eve: Identity) -> None:
    assert house.come(ann, "ann") is None
    assert house.come(ann, "ann") is None
    assert house.come(eve, "ann") == Code.NAME_OWNED
    assert house.guest("ann") == Code.NAME_OWNED
    assert house.come(eve, "eve") is None
    assert house.guest("guest") is None


def test_proof_for_another_server_is_refused(house: ServerContext, ann: Identity, tmp_path: Path) -> None:
    assert house.come(ann, "ann", at=new_certificate(tmp_path / "other.pem")) == Code.BAD_PROOF
    assert house.registry.names() == []


def test_proof_cannot_be_replayed(house: ServerContext, ann: Identity) -> None:
    hello = Hello(1, "ann", 0, text_of(ann.certificate))
    first = house.claim(hello)
    proof = Proof(prove(ann, first.nonce, house.certificate.der, "ann"))
    house.door.admit(first, proof, AWAY)
    with pytest.raises(Refused) as refused:
        house.door.admit(house.claim(hello), proof, AWAY)
    assert refused.value.code == Code.BAD_PROOF


def test_somebody_else_s_certificate_is_of_no_use(house: ServerContext, ann: Identity, eve: Identity) -> None:
    claim = house.claim(Hello(1, "ann", 0, text_of(ann.certificate)))
    with pytest.raises(Refused) as refused:
        house.door.admit(claim, Proof(prove(eve, claim.nonce, house.certificate.der, "ann")), AWAY)
    assert refused.value.code == Code.BAD_PROOF


def test_certificate_that_is_none_is_a_coded_error(house: ServerContext) -> None:
    with pytest.raises(ProtocolError) as refused:
        house.claim(Hello(1, "ann", 0, "!"))
    assert refused.value.code == Code.BAD_PROOF


def test_invitation_comes_with_the_hello(house: ServerContext, ann: Identity) -> None:
    house.door = Door(house.registry, members_only=True)
    assert house.come(ann, "ann") == Code.MEMBERS_ONLY
    invite = house.registry.invite(60)
    claim = house.claim(Hello(1, "ann", 0, text_of(ann.certificate), invite))
    house.door.admit(claim, Proof(prove(ann, claim.nonce, house.certificate.der, "ann")), AWAY)
    assert house.come(ann, "ann") is None


def test_who_fails_often_is_not_heard_for_a_while(
    house: ServerContext, ann: Identity, eve: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.come(ann, "ann")
    for _ in range(FAILURES):
        assert house.come(eve, "ann") == Code.NAME_OWNED
    assert house.come(eve, "ann") == house.come(eve, "eve") == Code.TOO_MANY_FAILURES
    assert house.guest("guest") == Code.TOO_MANY_FAILURES
    assert house.come(eve, "eve", host="192.0.2.2") is None
    assert house.come(ann, "ann") is None  # who owns a name is always heard
    monkeypatch.setattr(module, "FAILURE_SECONDS", 0.0)
    assert house.guest("guest") is None


def test_own_trouble_is_nobody_s_failure(house: ServerContext, ann: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_more: object) -> None:
        raise SecurityError(Code.FAILED, "the disk is gone")

    monkeypatch.setattr(house.registry, "enter", broken)
    for _ in range(2 * FAILURES):
        assert house.guest("guest") == house.come(ann, "ann") == Code.FAILED
    monkeypatch.undo()
    assert house.guest("guest") is None


def test_proof_is_for_the_certificate_that_was_shown(house: ServerContext, ann: Identity, tmp_path: Path) -> None:
    """Another may have taken its place since."""
    claim = house.claim(Hello(1, "ann", 0, text_of(ann.certificate)))
    shown = house.certificate.der
    house.certificate = new_certificate(tmp_path / "newer.pem")
    house.door.admit(claim, Proof(prove(ann, claim.nonce, shown, "ann")), AWAY)


def test_this_machine_may_fail_as_often_as_it_likes(house: ServerContext, ann: Identity, eve: Identity) -> None:
    house.come(ann, "ann")
    for _ in range(2 * FAILURES):
        assert house.come(eve, "ann", host=HOME) == Code.NAME_OWNED
    assert house.door._failing == {}


def test_failures_of_many_networks_fill_no_memory(
    house: ServerContext, ann: Identity, eve: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FAILING", 5)
    house.come(ann, "ann")
    for number in range(20):
        house.come(eve, "ann", host=f"192.0.2.{number}")
    assert list(house.door._failing) == [f"192.0.2.{number}" for number in range(15, 20)]


def test_who_is_banned_by_address_is_not_let_in(house: ServerContext, ann: Identity) -> None:
    house.registry.ban("127.0.0.1")
    assert house.guest("guest", HOME) == Code.BANNED
    assert house.come(ann, "ann", host=HOME) == Code.BANNED
    assert house.come(ann, "ann") is None


def test_trouble_of_the_server_is_logged_and_a_peer_is_not_told_of_paths(
    house: ServerContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SecurityError(Code.FAILED, "cannot use /secret/names.db: disk I/O error")

    monkeypatch.setattr(house.registry, "enter", fail)
    with pytest.raises(Refused, match="it did not work"):
        house.door.admit_guest("guest", AWAY)
    assert caplog.messages == ["cannot use /secret/names.db: disk I/O error"]


def test_attempts_made_at_once_count_all(house: ServerContext, ann: Identity, eve: Identity) -> None:
    house.come(ann, "ann")
    tries = [gevent.spawn(house.come, eve, "ann") for _ in range(3 * FAILURES)]
    gevent.joinall(tries)
    codes = [each.get() for each in tries]
    assert codes.count(Code.NAME_OWNED) == FAILURES
    assert codes.count(Code.TOO_MANY_FAILURES) == 2 * FAILURES


def test_attempts_that_succeed_are_no_failures(house: ServerContext, ann: Identity) -> None:
    for number in range(2 * FAILURES):
        assert house.guest(f"guest{number}") is None
    assert house.door._failing == {}
