"""Nodes of one chat, for tests."""

import contextlib
from collections.abc import Iterator

from greenchat.backplane.node import Node
from greenchat.errors import Code


@contextlib.contextmanager
def node_of(url: str) -> Iterator[Node]:
    """A node that is alive."""
    with contextlib.closing(Node(url)) as node:
        node.start()
        yield node


class Losses(list[Code]):
    """What a user was told of losing its name."""

    def __call__(self, code: Code) -> None:
        self.append(code)
