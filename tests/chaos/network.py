"""Network namespaces on one bridge: several hosts on one machine."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Namespace", "Network"]

_NET: Final = "10.213.77"


@dataclass(frozen=True)
class Namespace:
    """A host of its own."""

    name: str
    host: str

    @contextlib.contextmanager
    def without_redis(self) -> Iterator[None]:
        """What it sends to Redis is lost."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{Network.REDIS}/32")
        try:
            yield
        finally:
            _ip("-n", self.name, "route", "del", "blackhole", f"{Network.REDIS}/32")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing reaches it, nor comes from it."""
        _ip("link", "set", f"{self.name}v", "down")
        try:
            yield
        finally:
            _ip("link", "set", f"{self.name}v", "up")


class Network:
    """So many namespaces, which reach this one, and Redis at an address of its own; takes the superuser's rights."""

    USERS: Final = f"{_NET}.1"
    REDIS: Final = f"{_NET}.2"

    def __init__(self, count: int) -> None:
        self._bridge = f"gc{os.getpid()}"
        self.namespaces = [Namespace(f"{self._bridge}n{number}", f"{_NET}.{10 + number}") for number in range(count)]
        _ip("link", "add", self._bridge, "type", "bridge")
        for address in (self.USERS, self.REDIS):
            _ip("address", "add", f"{address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for namespace in self.namespaces:
            self._settle(namespace)

    @staticmethod
    def can_be() -> bool:
        """Whether there are such things here, and we may make them."""
        if os.geteuid() != 0 or not shutil.which("ip"):
            return False
        name = f"gc{os.getpid()}try"
        made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
        if made:
            _ip("netns", "delete", name)
        return made

    def close(self) -> None:
        """Leave nothing."""
        for namespace in self.namespaces:
            _ip("netns", "delete", namespace.name)
        _ip("link", "delete", self._bridge)

    def _settle(self, namespace: Namespace) -> None:
        name, outside, inside = namespace.name, f"{namespace.name}v", f"{namespace.name}w"
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("link", "set", outside, "master", self._bridge, "up")
        _ip("-n", name, "address", "add", f"{namespace.host}/24", "dev", inside)
        _ip("-n", name, "link", "set", inside, "up")
        _ip("-n", name, "link", "set", "lo", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
