from pathlib import Path

import pytest

from benchmarks.load import STAMP
from benchmarks.peers import PEERS


def test_lengths_in_mqtt_have_seven_bits_a_byte() -> None:
    say = PEERS["Mosquitto"].say
    assert say(b"x" * 64)[:8] == b"\x30\x46\x00\x04room"
    assert say(b"x" * 2500)[:9] == b"\x30\xca\x13\x00\x04room"


def test_redis_commands_have_their_lengths() -> None:
    assert PEERS["Redis"].say(b"hello") == b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nroom\r\n$5\r\nhello\r\n"


@pytest.mark.parametrize("name", PEERS)
def test_nothing_around_a_message_looks_like_a_stamp(name: str) -> None:
    peer = PEERS[name]
    for size in (64, 2500):
        assert peer.say(STAMP.ljust(size, b"x")).count(STAMP[:1]) == 1
    for words in (peer.join("m1"), peer.speaks("speaker0"), peer.joined):
        assert STAMP[:1] not in words


@pytest.mark.parametrize("name", PEERS)
def test_a_command_says_the_port(name: str, tmp_path: Path) -> None:
    command = PEERS[name].command(tmp_path, 4321, 1 << 20)
    said = " ".join(command) + "".join(path.read_text() for path in tmp_path.iterdir())
    assert "4321" in said
