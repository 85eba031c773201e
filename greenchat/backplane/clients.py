"""Clients of Redis as its library offers them: one server, one that a sentinel finds, one of a cluster's."""

import os
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit, urlunsplit

from greenchat.backplane.scripts import PREFIX
from greenchat.protocol.limits import STORE_SECONDS

__all__ = ["PASSWORD", "SCHEMES", "Client", "client_of", "without_password"]

PASSWORD: Final = "GREENCHAT_BACKPLANE_PASSWORD"  # noqa: S105 - the name of a variable
"""What the environment may have, because arguments can be read by others on the machine."""

SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
"""What urls may begin with."""

_OURS: Final = frozenset({"decode_responses", "protocol"})
"""Options of the library on whose values we depend."""

_SENTINEL_PORT: Final = 26379
_SERVICE: Final = "mymaster"
"""What sentinels call a service if nobody has told them otherwise (Redis's sentinel.conf)."""


class Client:
    """A server that is found by the library itself."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def server(self) -> Any:
        """The library's client of the server that has our keys."""
        return self._client

    def look_again(self) -> None:
        """Find out which server that is by now."""

    def disconnect(self) -> None:
        """Have what is asked next go by another connection."""
        self.server.connection_pool.disconnect()

    def close(self) -> None:
        """End all connections."""
        self._client.close()


class _Watched(Client):
    """A server that sentinels know of."""

    def close(self) -> None:
        super().close()
        pool = self._client.connection_pool
        pool.disconnect()  # the library closes neither this one's connections nor those to sentinels
        for sentinel in pool.sentinel_manager.sentinels:
            sentinel.close()


class _Clustered(Client):
    """All our keys have one hash tag, so one server has them, whose own client can do what that of a cluster cannot."""

    @property
    def server(self) -> Any:
        return self._client.get_redis_connection(self._client.get_node_from_key(PREFIX))

    def look_again(self) -> None:
        self._client.disconnect_connection_pools()  # it would forget them, open
        self._client.nodes_manager.initialize()

    def close(self) -> None:
        self._client.disconnect_connection_pools()  # it closes none that were made from a url
        super().close()


def client_of(redis: Any, url: str, patience: float) -> Client:
    """A client of what is at *url*, made by the library *redis*; it waits for answers *patience* seconds longer.

    It tries nothing again by itself. Raises `ValueError` or `TypeError` if the url is none, or what the library raises.
    """
    parts = urlsplit(url)
    _check(parts)
    options: dict[str, Any] = {
        "socket_timeout": STORE_SECONDS + patience,
        "socket_connect_timeout": STORE_SECONDS,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "client_name": "greenchat",
        "protocol": 2,
    }
    if password := os.environ.get(PASSWORD):
        options["password"] = password
    scheme, _, kind = parts.scheme.partition("+")
    plain = url.replace(f"+{kind}", "", 1)
    match scheme, kind:
        case "redis" | "rediss" | "unix", "":
            return Client(_checked(redis.Redis.from_url(plain, **options)))
        case "redis" | "rediss", "cluster":
            return _Clustered(redis.cluster.RedisCluster.from_url(plain, **options))
        case "redis" | "rediss", "sentinel":
            return _Watched(_checked(_by_sentinel(redis, plain, options)))
    raise ValueError(scheme)


def _check(parts: SplitResult) -> None:
    """Find what the library would take for something else. Raises `ValueError`."""
    database = "" if "sentinel" in parts.scheme or parts.scheme == "unix" else parts.path.strip("/")
    if parts.fragment or (database and not database.isdecimal()):
        raise ValueError(parts.scheme)
    if _OURS & parse_qs(parts.query).keys():
        raise ValueError(parts.scheme)


def _checked(client: Any) -> Any:
    """*client*, if the library knows all its options, which it would find out when it connects. Raises `TypeError`."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return client


def _by_sentinel(redis: Any, url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    account, at, places = parts.netloc.rpartition("@")
    sentinels = [_place(place) for place in places.split(",")]
    told = redis.connection.parse_url(urlunsplit(parts._replace(netloc=f"{account}{at}localhost", path="")))
    told.pop("host")
    told["ssl"] = told.pop("connection_class", None) is not None
    encryption = {name: value for name, value in told.items() if name.startswith("ssl")}
    sentinel = redis.sentinel.Sentinel(sentinels, socket_timeout=STORE_SECONDS, **encryption)
    return sentinel.master_for(parts.path.strip("/") or _SERVICE, **(options | told))


def _place(place: str) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError(place)
    return parts.hostname, parts.port or _SENTINEL_PORT


def without_password(url: str) -> str:
    """*url* as it may be shown, also if it is none: nothing of what may be a password, however that is written."""
    scheme, colon, rest = url.partition("://")
    place, _, options = rest.partition("?")
    if scheme not in SCHEMES or "@" in options:
        return f"{scheme}{colon}..." if scheme in SCHEMES else "..."
    return f"{scheme}{colon}{place.rpartition('@')[2]}"
