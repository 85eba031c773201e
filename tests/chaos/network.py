"""Network namespaces on one bridge: several hosts on one machine."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Namespace", "Network"]


@dataclass(frozen=True)
class Namespace:
    """A host of its own."""

    name: str
    host: str
    redis: str
    """The address of Redis."""

    @contextlib.contextmanager
    def without_redis(self) -> Iterator[None]:
        """What it sends to Redis is lost."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{self.redis}/32")
        try:
            yield
        finally:
            _ip("-n", self.name, "route", "del", "blackhole", f"{self.redis}/32")

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

    def __init__(self, count: int) -> None:
        _sweep()
        self._bridge = f"gc{os.getpid()}"
        net = f"10.213.{os.getpid() % 256}"  # another run may have its own at the same time
        self.redis = f"{net}.2"
        self.namespaces = [
            Namespace(f"{self._bridge}n{number}", f"{net}.{10 + number}", self.redis) for number in range(count)
        ]
        _ip("link", "add", self._bridge, "type", "bridge")
        for address in (f"{net}.1", self.redis):
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


def _sweep() -> None:
    """Delete what runs that were killed have left."""
    for kind, pattern in (("netns", r"gc(\d+)n\d+"), ("link", r"gc(\d+)")):
        shown = subprocess.run(["ip", "-o", kind, "show"], check=True, capture_output=True, text=True).stdout
        for name, pid in re.findall(rf"(?<!\w)({pattern})(?!\w)", shown):
            if not Path(f"/proc/{pid}").exists():
                _ip(kind, "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
