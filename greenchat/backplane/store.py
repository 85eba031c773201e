"""Redis, as threads use it: what it does, and what is wrong with it."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from greenchat.backplane.clients import Client, client_of, without_password
from greenchat.backplane.scripts import ALL, KINDS, MEND, PREFIX, Script
from greenchat.errors import Code, LogError
from greenchat.protocol.limits import READ_AT_ONCE, STORE_WAIT_SECONDS

__all__ = ["Answer", "Argument", "Call", "Store", "Streams", "is_own_failure"]

_log = logging.getLogger(__name__)

Argument: TypeAlias = str | bytes | int

Call: TypeAlias = tuple[Script, Sequence[str], Sequence[Argument]]
"""A script, its keys, its arguments."""

Answer: TypeAlias = list[tuple[str, dict[bytes, bytes]]]
"""Entries of a stream, each with its ID."""

Streams: TypeAlias = dict[str, Answer]


_WRONG_TYPE: Final = ("WRONGTYPE", "not an integer")
"""Parts of what Redis says of a key that is not as its kind is."""

_OWN_FAILURES: Final = (*_WRONG_TYPE, "attempt to ", "bad argument", "Lua redis lib", "Expected value")
"""Parts of what it says when a script stumbles over its data, in Lua's words and its own."""

_LONGEST: Final = 200
"""Characters of what the library has to say."""


class Store:
    """The Redis at *url*.

    That is ``redis://``, ``rediss://`` (encrypted), ``unix://``, ``redis+cluster://host:port`` or
    ``redis+sentinel://host:port,host:port/service``; of the last two there is ``rediss+``, too.

    Methods block, and raise `LogError` if it can't be reached or does not do what it is to. Raises that, too, if the
    url is none, or the extra that knows Redis is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError:
            from greenchat.install import how_to_install

            raise LogError(Code.FAILED, f"a backplane needs redis: {how_to_install('redis')}") from None
        self._redis: Any = redis
        self._failures = redis.RedisError, redis.exceptions.RedisClusterException, OSError
        self._name = without_password(url)
        self._waiting: Any = None
        self._closed = False
        try:
            self._client, self._reader = (client_of(redis, url, patience) for patience in (0, STORE_WAIT_SECONDS))
        except (ValueError, TypeError):  # whose text may have a part of a password
            raise LogError(
                Code.UNAVAILABLE,
                f"{self._name} is no backplane: give redis://host:port, and options that redis-py knows",
            ) from None
        except self._failures as error:
            raise self._error(error) from None

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """What each script returned, or the error that kept it from being run."""
        with self._errors(self._client):
            results = self._pipeline(calls)
            missing = [
                at for at, result in enumerate(results) if isinstance(result, self._redis.exceptions.NoScriptError)
            ]
            if missing:  # Redis was restarted, or is another
                for script in ALL:
                    self._client.server.script_load(script.text)
                for at, result in zip(missing, self._pipeline([calls[at] for at in missing]), strict=True):
                    results[at] = result
            stuck = [at for at, result in enumerate(results) if _is_wrong_type(result)]
            if stuck and self._mend({key for at in stuck for key in calls[at][1]}):
                for at, result in zip(stuck, self._pipeline([calls[at] for at in stuck]), strict=True):
                    results[at] = result
        if any(isinstance(result, Exception) for result in results):  # the keys may have moved to another server
            self._look_again(self._client)
        return results

    def one(self, call: Call) -> Any:
        """What a script returned."""
        (result,) = self.run([call])
        if isinstance(result, Exception):
            raise self._error(result)
        return result

    def reconnect(self) -> None:
        """Make the connection of `wait`, which raises if that breaks, and never goes on by another by itself."""
        with self._errors(self._reader):
            if self._waiting:
                self._waiting.close()
            pool = self._reader.server.connection_pool
            self._waiting = self._redis.Redis(connection_pool=pool, single_connection_client=True)
            if self._closed:  # meanwhile, by another thread
                pool.disconnect()

    def wait(self, after: Mapping[str, str]) -> Streams:
        """What streams have after these IDs, as soon as there is something; after some seconds perhaps nothing."""
        patience = int(STORE_WAIT_SECONDS * 1000)
        with self._errors(self._reader):
            found = self._mending(after, lambda: self._waiting.xread(dict(after), count=READ_AT_ONCE, block=patience))
            return {stream.decode(): _answer(entries) for stream, entries in found}

    def range(self, stream: str, after: str) -> Answer:
        """Some of what a stream has after an ID."""
        with self._errors(self._client):
            return _answer(
                self._mending(
                    [stream],
                    lambda: self._client.server.xrange(stream, min=f"({after}", max="+", count=READ_AT_ONCE),
                )
            )

    def fields(self, key: str, names: Sequence[str]) -> list[str | None]:
        """What is in these fields of a hash."""
        with self._errors(self._client):
            found = self._mending([key], lambda: self._client.server.hmget(key, names))
            return [value.decode(errors="replace") if value else None for value in found]

    def ping(self) -> None:
        """Find out whether it is there."""
        with self._errors(self._client):
            self._client.server.ping()

    def is_durable(self) -> bool:
        """Whether it keeps what it is told on its disk (AOF), as far as it may be asked."""
        with self._errors(self._client), contextlib.suppress(self._redis.exceptions.NoPermissionError):
            return bool(self._client.server.info("persistence").get("aof_enabled", True))
        return True

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        for client in filter(None, (self._waiting, self._client, self._reader)):
            with contextlib.suppress(*self._failures):
                client.close()

    def _mending(self, keys: Iterable[str], read: Callable[[], Any]) -> Any:
        """Return what *read* does, once *keys* of other types are removed."""
        try:
            return read()
        except self._redis.ResponseError as error:
            if not (_is_wrong_type(error) and self._mend(keys)):
                raise
            return read()

    def _mend(self, keys: Iterable[str]) -> bool:
        """Remove those of *keys* that have another type than ours have. Return True if there were any."""
        ours = (key for key in keys if key.startswith(PREFIX))
        kinds = {key: kind for key in ours if (kind := KINDS.get(key.removeprefix(PREFIX).partition(":")[0]))}
        (mended,) = self._pipeline([(MEND, list(kinds), list(kinds.values()))])
        if isinstance(mended, self._redis.exceptions.NoScriptError):
            mended = self._client.server.eval(MEND.text, len(kinds), *kinds, *kinds.values())
        if not isinstance(mended, list):
            return False
        for key in mended:
            _log.warning("another program had put something else at %s on the backplane: it was removed", key.decode())
        return bool(mended)

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        with self._client.server.pipeline(transaction=False) as pipeline:
            for script, keys, arguments in calls:
                pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
            return list(pipeline.execute(raise_on_error=False))

    @contextlib.contextmanager
    def _errors(self, client: Client) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            self._look_again(client)
            raise self._error(error) from None
        except Exception as error:  # noqa: BLE001 - an answer that the library makes nothing of: another may be better
            client.disconnect()
            raise self._error(error) from None

    def _look_again(self, client: Client) -> None:
        with contextlib.suppress(*self._failures):  # later, then
            client.look_again()

    def _error(self, error: Exception) -> LogError:
        reason = str(error).partition("<")[0][:_LONGEST].strip(" :")  # without objects of the library's
        return LogError(Code.UNAVAILABLE, f"cannot use the backplane {self._name}: {reason or type(error).__name__}")


def _is_wrong_type(result: Any) -> bool:
    return isinstance(result, Exception) and any(part in str(result) for part in _WRONG_TYPE)


def is_own_failure(error: Exception) -> bool:
    """Return True if *error* says that a script failed for what it found, so that running it again is of no use."""
    return any(part in str(error) for part in _OWN_FAILURES)


def _answer(entries: Any) -> Answer:
    return [(number.decode(), dict(fields)) for number, fields in entries]
