import builtins
import re
from collections.abc import Callable

import pytest
from redis_server import RedisServer, needs_redis

from greenchat.backplane.clients import PASSWORD, without_password
from greenchat.backplane.scripts import RELEASE, SEND
from greenchat.backplane.store import Store
from greenchat.errors import LogError


@needs_redis
def test_scripts_are_loaded_when_redis_does_not_know_them(redis: RedisServer) -> None:
    store = Store(redis.url)
    for _ in range(2):
        assert store.run([(SEND, ["inbox"], ["hi", 9, 10]), (SEND, ["inbox"], ["ho", 9, 10])]) == [1, 1]
        redis.command("SCRIPT", "FLUSH")
    assert [fields[b"m"] for _, fields in store.range("inbox", "0")] == [b"hi", b"ho"] * 2
    store.close()


@needs_redis
def test_what_a_script_does_wrong_is_no_result(redis: RedisServer) -> None:
    store = Store(redis.url)
    redis.command("SET", "text", "x")
    bad, good = store.run([(RELEASE, ["text"], ["lease", "form"]), (SEND, ["other"], ["hi", 9, 10])])
    assert isinstance(bad, Exception)
    assert good == 1
    with pytest.raises(LogError, match="cannot use the backplane redis://127"):
        store.one((RELEASE, ["text"], ["lease", "form"]))
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "http://x", "redis://x:y", "redis+sentinel://", "redis+sentinel://one:y", "redis://127.0.0.1/x",
        "redis://[::1", "redis://x?nonsense=1", "redis://x?decode_responses=true", "redis+sentinel://x/y?nonsense=1",
    ],
)  # fmt: skip
def test_what_is_no_backplane_is_told(url: str) -> None:
    with pytest.raises(LogError, match="is no backplane: give redis://host:port"):
        Store(url)


@needs_redis
@pytest.mark.parametrize("kind", ["redis", "redis+cluster", "redis+sentinel"])
def test_backplane_that_is_not_there_is_told_in_a_line(kind: str) -> None:
    with pytest.raises(LogError, match=rf"^cannot use the backplane {re.escape(kind)}://127.0.0.1:1: .{{1,200}}$"):
        Store(f"{kind}://127.0.0.1:1").range("x", "0")


def test_password_is_not_shown() -> None:
    assert without_password("rediss://user:secret@host:1/2?password=secret") == "rediss://host:1/2"
    with pytest.raises(LogError) as error:
        Store("redis://user:secret@127.0.0.1:1").range("x", "0")
    assert "secret" not in str(error.value)


@needs_redis
def test_password_comes_from_the_environment(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    redis.command("CONFIG", "SET", "requirepass", "secret")
    try:
        with pytest.raises(LogError, match=r"(?i)authenticat"):
            Store(redis.url).range("x", "0")
        monkeypatch.setenv(PASSWORD, "secret")
        assert Store(redis.url).range("x", "0") == []
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
    with pytest.raises(LogError, match=r"a backplane needs redis: pip install "):
        Store("redis://127.0.0.1")
