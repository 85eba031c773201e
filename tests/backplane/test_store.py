import builtins
from collections.abc import Callable

import pytest
from redis_server import RedisServer, needs_redis

from greenchat.backplane.clients import PASSWORD, without_password
from greenchat.backplane.scripts import SEND
from greenchat.backplane.store import Store
from greenchat.errors import LogError


@needs_redis
def test_scripts_are_loaded_when_redis_does_not_know_them(redis: RedisServer) -> None:
    store = Store(redis.url)
    for _ in range(2):
        assert store.run([(SEND, ["inbox"], ["hi", 10]), (SEND, ["inbox"], ["ho", 10])]) == [1, 1]
        redis.command("SCRIPT", "FLUSH")
    assert [fields[b"m"] for _, fields in store.range("inbox", "0")] == [b"hi", b"ho"] * 2
    store.close()


@needs_redis
def test_what_a_script_does_wrong_is_no_result(redis: RedisServer) -> None:
    store = Store(redis.url)
    redis.command("SET", "inbox", "x")
    bad, good = store.run([(SEND, ["inbox"], ["hi", 10]), (SEND, ["other"], ["hi", 10])])
    assert isinstance(bad, Exception)
    assert good == 1
    with pytest.raises(LogError, match="cannot use the backplane redis://127"):
        store.one((SEND, ["inbox"], ["hi", 10]))
    store.close()


@pytest.mark.parametrize("url", ["", "x", "http://x", "redis://x:y", "redis+sentinel://", "redis://127.0.0.1:1/x"])
def test_no_backplane(url: str) -> None:
    with pytest.raises(LogError, match="cannot use the backplane"):
        Store(url).get("x")


def test_password_is_not_shown() -> None:
    assert without_password("rediss://user:secret@host:1/2?password=secret") == "rediss://host:1/2"
    with pytest.raises(LogError) as error:
        Store("redis://user:secret@127.0.0.1:1").get("x")
    assert "secret" not in str(error.value)


@needs_redis
def test_password_comes_from_the_environment(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    redis.command("CONFIG", "SET", "requirepass", "secret")
    try:
        with pytest.raises(LogError, match="authenticat"):
            Store(redis.url).get("x")
        monkeypatch.setenv(PASSWORD, "secret")
        assert Store(redis.url).get("x") is None
    finally:
        monkeypatch.setenv(PASSWORD, "secret")
        Store(redis.url)._client.server.config_set("requirepass", "")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., object] = builtins.__import__

    def no_redis(name: str, *args: object, **kwargs: object) -> object:
        if name == "redis":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_redis)
    with pytest.raises(LogError, match=r"install greenchat\[redis\]"):
        Store("redis://127.0.0.1")
