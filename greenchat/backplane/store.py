"""Redis, as threads use it: what it does, and what is wrong with it."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from greenchat.backplane.scripts import ALL, Script
from greenchat.errors import Code, LogError
from greenchat.protocol.limits import READ_AT_ONCE, STORE_SECONDS, STORE_WAIT_SECONDS

__all__ = ["Answer", "Call", "Store", "Streams"]

Call: TypeAlias = tuple[Script, Sequence[str], Sequence[str | bytes | int]]
"""A script, its keys, its arguments."""

Answer: TypeAlias = list[tuple[str, dict[bytes, bytes]]]
"""Entries of a stream, each with its ID."""

Streams: TypeAlias = dict[str, Answer]

PASSWORD: Final = "GREENCHAT_BACKPLANE_PASSWORD"  # noqa: S105 - the name of a variable
"""What the environment may have, because arguments can be read by others on the machine."""


class Store:
    """The Redis at *url*.

    That is ``redis://``, ``rediss://`` (encrypted), ``unix://``, ``redis+cluster://host:port`` or
    ``redis+sentinel://host:port,host:port/service``.

    Methods block, and raise `LogError` if it can't be reached or does not do what it is to. Raises that, too, if the
    url is none, or the extra that knows Redis is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError:
            raise LogError(Code.FAILED, "to use a backplane, install greenchat[redis]") from None
        self._redis: Any = redis
        self._name = _without_password(url)
        try:
            self._client, self._reader = (_client(redis, url, patience) for patience in (0, STORE_WAIT_SECONDS))
        except (redis.RedisError, ValueError, OSError) as error:
            raise LogError(Code.UNAVAILABLE, f"cannot use the backplane {self._name}: {error}") from None

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """What each script returned, or the error that kept it from being run."""
        with self._errors():
            results = self._pipeline(calls)
            missing = [
                at for at, result in enumerate(results) if isinstance(result, self._redis.exceptions.NoScriptError)
            ]
            if missing:  # Redis was restarted, or is another
                for script in ALL:
                    self._client.script_load(script.text)
                for at, result in zip(missing, self._pipeline([calls[at] for at in missing]), strict=True):
                    results[at] = result
        return results

    def one(self, call: Call) -> Any:
        """What a script returned."""
        (result,) = self.run([call])
        if isinstance(result, Exception):
            raise self._error(result)
        return result

    def wait(self, after: Mapping[str, str]) -> Streams:
        """What streams have after these IDs, as soon as there is something; after some seconds perhaps nothing."""
        with self._errors():
            found = self._reader.xread(dict(after), count=READ_AT_ONCE, block=int(STORE_WAIT_SECONDS * 1000))
        pairs = found.items() if isinstance(found, dict) else found or ()
        return {stream.decode(): _answer(entries) for stream, entries in pairs}

    def range(self, stream: str, after: str) -> Answer:
        """Some of what a stream has after an ID."""
        with self._errors():
            return _answer(self._client.xrange(stream, min=f"({after}", max="+", count=READ_AT_ONCE))

    def held(self, names: str, forms: Sequence[str]) -> list[str | None]:
        """Who has names in these forms."""
        with self._errors():
            found = self._client.hmget(names, forms) if forms else []
            return [value.decode() if value else None for value in found]

    def get(self, key: str) -> str | None:
        """What is under a key."""
        with self._errors():
            value = self._client.get(key)
            return value.decode() if value else None

    def close(self) -> None:
        """End all connections."""
        for client in (self._client, self._reader):
            with contextlib.suppress(self._redis.RedisError, OSError):
                client.close()

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for script, keys, arguments in calls:
                pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
            return list(pipeline.execute(raise_on_error=False))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (self._redis.RedisError, OSError) as error:
            raise self._error(error) from None

    def _error(self, error: Exception) -> LogError:
        return LogError(Code.UNAVAILABLE, f"cannot use the backplane {self._name}: {error or type(error).__name__}")


def _client(redis: Any, url: str, patience: float) -> Any:
    """A client that waits for answers so much longer than usual; it tries nothing again by itself."""
    options: dict[str, Any] = {
        "socket_timeout": STORE_SECONDS + patience,
        "socket_connect_timeout": STORE_SECONDS,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "client_name": "greenchat",
    }
    if password := os.environ.get(PASSWORD):
        options["password"] = password
    parts = urlsplit(url)
    match parts.scheme:
        case "redis+cluster":
            return redis.cluster.RedisCluster.from_url(url.replace("redis+cluster", "redis", 1), **options)
        case "redis+sentinel":
            return _by_sentinel(redis, url, options)
        case "redis" | "rediss" | "unix":
            return redis.Redis.from_url(url, **options)
    raise ValueError("give redis://host:port")


def _by_sentinel(redis: Any, url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    account, _, places = parts.netloc.rpartition("@")
    if account:
        user, _, password = account.partition(":")
        options |= {"username": unquote(user) or None, "password": unquote(password)}
    sentinels = [(host, int(port or 26379)) for host, _, port in (place.rpartition(":") for place in places.split(","))]
    sentinel = redis.sentinel.Sentinel(sentinels, socket_timeout=STORE_SECONDS)
    return sentinel.master_for(parts.path.strip("/") or "mymaster", **options)


def _without_password(url: str) -> str:
    """*url* as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _answer(entries: Any) -> Answer:
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], list | tuple):
        entries = [entry for part in entries for entry in part]  # as newer versions of the protocol have it
    return [(number.decode(), dict(fields)) for number, fields in entries]
