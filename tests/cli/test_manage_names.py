from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backplane.nodes import node_of
from redis_server import RedisServer, needs_redis

from greenchat import cli
from greenchat.errors import Code, Refused
from greenchat.server.registry import Registry

KEY = f"SHA256:{'a' * 43}"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """What a running server has."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    one = Registry(tmp_path / "greenchat" / "names.db")
    yield one
    one.close()


@pytest.fixture
def run(registry: Registry, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["names", *arguments])
        return (status, *capfd.readouterr())

    return run


def test_names_are_listed_with_their_owners(run: Run, registry: Registry) -> None:
    assert run("list") == (0, "", "")
    registry.enter("ann of here", KEY, "192.0.2.1")
    status, out, _ = run("list")
    mark, day, name = out.rstrip("\n").split(" ", 2)
    assert (status, mark, name, len(day)) == (0, KEY, "ann of here", 10)


def test_name_is_freed(run: Run, registry: Registry) -> None:
    registry.enter("ann", KEY, "192.0.2.1")
    assert run("free", "ANN") == (0, "", "")
    assert registry.names() == []
    assert run("free", "ann") == (1, "", "nobody owns ann\n")


@needs_redis
def test_name_is_freed_on_a_backplane_too(run: Run, redis: RedisServer) -> None:
    with node_of(redis.url) as node:
        node.leases.release(node.leases.claim("ann", "ann", "key", print))
        node.pipeline.queue.settle()
        assert run("free", "ann") == (1, "", "nobody owns ann\n")
        assert run("free", "ann", "--backplane", redis.url) == (0, "", "")
        node.leases.claim("ann", "other", "key2", print)


def test_backplane_where_a_name_cannot_be_freed_is_told(run: Run) -> None:
    status, _, err = run("free", "ann", "--backplane", "redis://127.0.0.1:1")
    assert status == 1
    assert err.startswith("cannot use the backplane redis://127.0.0.1:1: ")


@pytest.mark.parametrize("what", [KEY, "192.0.2.1"])
def test_key_or_address_is_banned_and_let_in_again(run: Run, registry: Registry, what: str) -> None:
    assert run("ban", what) == (0, "", "")
    assert run("bans") == (0, f"{what}\n", "")
    with pytest.raises(Refused) as refused:
        registry.enter("ann", KEY, "192.0.2.1")
    assert refused.value.code == Code.BANNED
    assert run("unban", what) == (0, "", "")
    registry.enter("ann", KEY, "192.0.2.1")
    assert run("unban", what) == (1, "", f"{what} is not banned\n")


def test_invitation_is_shown(run: Run, registry: Registry) -> None:
    status, out, _ = run("invite", "--hours", "1")
    assert status == 0
    registry.enter("ann", KEY, "192.0.2.1", invite=out.strip(), members_only=True)


def test_registry_that_cannot_be_used_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "greenchat").write_text("")
    status, out, err = run("list")
    assert (status, out, err.count("\n")) == (1, "", 1)
