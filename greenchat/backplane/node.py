"""This server as one of several: that it is alive, which others are, and what they tell each other."""

import json
import logging
import secrets
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from greenchat.backplane.link import Link, Order
from greenchat.backplane.names import INBOX, NAMES, NODES, Names, form
from greenchat.backplane.scripts import BEAT, SEND, TELL
from greenchat.backplane.shared_log import SharedLogs
from greenchat.backplane.store import Answer, Store
from greenchat.errors import LogError, Refused
from greenchat.protocol.limits import (
    ALIVE_SECONDS,
    BEAT_SECONDS,
    KEPT_LINES,
    LOG_RETRY_SECONDS,
    MAX_UNKEPT,
    SESSION_SECONDS,
)
from greenchat.threads import call, end

__all__ = ["Message", "Node"]

_log = logging.getLogger(__name__)

Message = dict[str, Any]
"""What one node tells another: an object of JSON."""

_WAKE: Final[Message] = {"t": "wake"}


class Node:
    """This server on the backplane at *url*, where each room keeps its last *kept* lines.

    *on_message* is told what others say, and *about* what this node tells all others with each sign of life. Raises
    `LogError` if the backplane can't be used.
    """

    def __init__(self, url: str, kept: int = KEPT_LINES) -> None:
        self.id = secrets.token_hex(8)
        self.others: dict[str, Message] = {}
        """The other nodes that are alive, with what they tell."""
        self.about: Callable[[], Message] = dict
        self.on_message: Callable[[Message], object] = _ignore
        self._link = Link(Store(url))
        self.names = Names(self._link, self.id)
        self.logs = SharedLogs(self._link, self.names, self.id, kept)
        self.logs.look_again = self._look_again
        self.logs.read_more = self._wake
        self._inbox, self._read = f"{INBOX}{self.id}", "0"
        self._reading = ThreadPool(1)
        self._doubtful = Event()
        """Whether what was read may be lost."""
        self._begun = False
        self.durable = True
        """Whether the backplane keeps on its disk what it is told; known after `start`."""
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self) -> None:
        """Be alive. Raises `LogError`."""
        try:
            self._beat()
            self.durable = self._link.call(self._link.store.is_durable)
        except LogError:
            self._end()
            raise
        self._greenlets += gevent.spawn(self._beat_on), gevent.spawn(self._read_on)

    def close(self) -> None:
        """End. Others may have the names as soon as this node does not count as alive any more."""
        gevent.killall(self._greenlets)
        self._end()

    def tell_holder(self, name: str, message: Message, on_result: Callable[[str], object]) -> None:
        """Tell *message* to the node that the user *name* is on; *on_result* is told which, or "" if there is none.

        If Redis is away there is none, either. Never waits.
        """
        text = json.dumps(message)
        order = Order(
            TELL, [NAMES, NODES, INBOX], [form(name), text, SESSION_SECONDS],
            lambda node: on_result(node.decode()), lambda _error: on_result(""),
        )  # fmt: skip
        self._link.order(order, len(text))

    def tell(self, node: str, message: Message) -> None:
        """Tell *message* to a node, unless Redis is away. Never waits."""
        text = json.dumps(message)
        order = Order(SEND, [f"{INBOX}{node}"], [text, SESSION_SECONDS], _ignore, _ignore)
        self._link.order(order, len(text))

    def wait(self) -> None:
        """Wait until there is not much that waits for Redis."""
        self._link.queue.wait(MAX_UNKEPT)

    def _end(self) -> None:
        self._link.close()
        self._link.store.close()
        end(self._reading)

    def _beat_on(self) -> None:
        while True:
            gevent.sleep(BEAT_SECONDS)
            try:
                self._beat()
            except LogError as error:
                _log.warning("%s", error)

    def _beat(self) -> None:
        about = json.dumps(self.about())
        arguments: list[str | bytes | int] = [self.id, int(ALIVE_SECONDS * 1000), about]
        alive, *others = self._link.call(self._link.store.one, (BEAT, [NODES], arguments))
        self.others = {node.decode(): json.loads(told) for node, told in zip(others[::2], others[1::2], strict=True)}
        if self._begun and not alive:
            self.names.check()
        self._begun = True

    def _read_on(self) -> None:
        while True:
            try:
                if self._doubtful.is_set():
                    self.logs.check()
                    self._doubtful.clear()
                after = {self._inbox: self._read, **self.logs.streams()}
                found = call(self._reading, self._link.store.wait, after)
            except (LogError, Refused) as error:
                _log.warning("%s", error)
                self._doubtful.set()
                gevent.sleep(LOG_RETRY_SECONDS)
            else:
                self._take_all(found)

    def _take_all(self, found: dict[str, Answer]) -> None:
        for stream, answer in found.items():
            if stream == self._inbox:
                self._read = answer[-1][0]
                for _, fields in answer:
                    self._take(json.loads(fields[b"m"]))
            else:
                self.logs.take(stream, answer)

    def _take(self, message: Message) -> None:
        if message["t"] == "gone":
            self.names.lose(message["token"])
        elif message != _WAKE:
            self.on_message(message)

    def _look_again(self) -> None:
        self._doubtful.set()
        self._wake()

    def _wake(self) -> None:
        """Have the streams be looked at that there are by now."""
        gevent.spawn(self._tell_itself)

    def _tell_itself(self) -> None:
        try:
            self._link.call(self._link.store.one, (SEND, [self._inbox], [json.dumps(_WAKE), SESSION_SECONDS]))
        except LogError as error:  # who reads finds out as well
            _log.debug("%s", error)


def _ignore(_told: object) -> None:
    pass
