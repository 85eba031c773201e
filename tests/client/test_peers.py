import re
from pathlib import Path

import pytest

from greenchat.client.peers import Peers, is_named
from greenchat.errors import Code, TransferError
from greenchat.security.known import Known

ONE, OTHER = b"one certificate", b"another"


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path / "known_peers")


@pytest.fixture
def peers(known: Known) -> Peers:
    return Peers(known, ("chat.example.org", 6001))


def test_who_was_remembered_is_known(peers: Peers) -> None:
    assert not peers.knows("ann", ONE)
    peers.remember("ann", ONE)
    assert peers.knows("ann", ONE)
    assert peers.knows("ANN", ONE)
    assert not peers.knows("bob", ONE)


def test_changed_key_is_refused_and_not_remembered(peers: Peers, known: Known) -> None:
    peers.remember("ann", ONE)
    for refuse in (peers.knows, peers.remember):
        with pytest.raises(TransferError, match=r"greenchat peers forget Ann$") as refused:
            refuse("Ann", OTHER)
        assert refused.value.code == Code.KEY_CHANGED
    assert peers.knows("ann", ONE)
    known.forget("chat.example.org:6001 ann")
    peers.remember("ann", OTHER)
    assert peers.knows("ann", OTHER)


def test_command_that_is_offered_is_safe_to_paste(peers: Peers) -> None:
    peers.remember("ann; rm *", ONE)
    with pytest.raises(TransferError, match=re.escape("greenchat peers forget 'ann; rm *'")):
        peers.knows("ann; rm *", OTHER)


def test_each_server_has_its_own_users(peers: Peers, known: Known) -> None:
    peers.remember("ann", ONE)
    assert not Peers(known, ("chat.example.org", 6002)).knows("ann", OTHER)


def test_nobody_is_known_without_a_key_or_without_a_file(peers: Peers, known: Known) -> None:
    peers.remember("ann", b"")
    assert not peers.knows("ann", b"")
    assert not known.path.exists()
    forgetful = Peers(None, ("chat.example.org", 6001))
    forgetful.remember("ann", ONE)
    assert not forgetful.knows("ann", ONE)


def test_name_that_a_server_made_up_is_one_line(peers: Peers, known: Known) -> None:
    peers.remember("x\nSHA256:mine chat.example.org:6001 ann", ONE)
    assert not peers.knows("ann", OTHER)
    assert known.path.read_text().count("\n") == 1


def test_users_are_told_apart_by_their_whole_names(peers: Peers, known: Known) -> None:
    peers.remember("Ann of Here", ONE)
    (who,) = known.all()
    assert is_named(who, "ann of here")
    assert not is_named(who, "here")
    assert not is_named(who, "ann")
