"""This server as one of several: that it is alive, what it reads, and what they tell each other."""

import contextlib
import json
import logging
import secrets
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from greenchat.backplane.leases import INBOX, NAMES, NODES, Leases, form, renew_looks
from greenchat.backplane.pipeline import Command, Pipeline
from greenchat.backplane.scripts import BEAT, OTHERS, SEND, SWEEP, TELL
from greenchat.backplane.shared_log import SharedLogs
from greenchat.backplane.store import Answer, Store
from greenchat.errors import Code, GreenchatError, LogError
from greenchat.protocol.limits import (
    BEAT_SECONDS,
    DEAD_NODE_SECONDS,
    INBOX_MESSAGES,
    KEPT_LINES,
    KEPT_SIZE,
    LEASE_SECONDS,
    LOG_RETRY_SECONDS,
    MAX_RETRY_DELAY,
    MAX_UNKEPT,
    RETRY_SECONDS,
    SWEEP_SECONDS,
    SWEPT_AT_ONCE,
)
from greenchat.threads import call, end

__all__ = ["Message", "Node"]

_log = logging.getLogger(__name__)

Message = dict[str, Any]
"""What one node tells another: an object of JSON."""

_WAKE: Final[Message] = {"t": "wake"}

_USELESS: Final = (ValueError, TypeError, KeyError, AttributeError, GreenchatError)
"""What comes of a message that is not as this version expects it: another version may have sent it."""


class Node:
    """This server on the backplane at *url*, where each room keeps its last *kept* lines, and all *kept_size* bytes.

    *on_message* is told what others say, and *about* what this node tells of itself with each sign of life. Raises
    `LogError` if the backplane can't be used.
    """

    def __init__(self, url: str, kept: int = KEPT_LINES, kept_size: int = KEPT_SIZE) -> None:
        self.id = secrets.token_hex(8)
        self.about: Callable[[], Message] = dict
        self.on_message: Callable[[Message], object] = _ignore
        self.durable = True
        """Whether the backplane keeps on its disk what it is told; known after `start`."""
        self.pipeline = Pipeline(Store(url))
        self.leases = Leases(self.pipeline, self.id)
        self.logs = SharedLogs(self.pipeline, self.leases, kept, kept_size)
        self.logs.verify = self._doubt
        self.logs.read_more = self._wake
        self.logs.watch(self._doubt_if)
        self._inbox, self._read = f"{INBOX}{self.id}", "0"
        self._reading, self._beating = ThreadPool(1), ThreadPool(1)  # signs of life wait for nothing else
        self._beats = 0
        """Signs of life since this node counts as alive without a break."""
        self._doubtful = Event()
        """Whether what was read may be lost."""
        self._doubtful.set()  # nothing has been read yet
        self._swept = "0"
        """Where the last look for names of dead nodes has ended."""
        self._problem = ""
        """What was told of last."""
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self) -> None:
        """Be alive. Raises `LogError`."""
        try:
            self._beat()
            self.durable = self._call(self.pipeline.store.is_durable)
            self._call(renew_looks, self.pipeline.store)
        except LogError:
            self._end()
            raise
        self._greenlets += (
            gevent.spawn(self._supervise, BEAT_SECONDS, self._live),
            gevent.spawn(self._supervise, SWEEP_SECONDS, self._sweep),
            gevent.spawn(self._supervise, 0, self._read_next),
        )

    def close(self) -> None:
        """End. Others may have the names at once, or, if Redis is away, when this node does not count as alive."""
        gevent.killall(self._greenlets)
        if self.pipeline.queue.works:
            with contextlib.suppress(LogError):
                self._beat(seconds=0)
        self._end()

    def tell_holder(
        self,
        name: str,
        message: Message,
        sender: str,
        on_result: Callable[[str], object],
        on_failure: Callable[[Code], object],
    ) -> None:
        """Send *message* to the node that the user *name* is on; *on_result* is told which, or "" if there is none.

        It is sent for the user with the origin *sender*. If that has lost its name, or if Redis is away, *on_failure*
        is told why. Never waits.
        """
        lease = self.leases.of(sender)
        if lease is None:
            on_failure(Code.UNAVAILABLE)
            return
        text = json.dumps(message)
        keys = [NAMES, NODES, INBOX]
        told = (form(name), text, INBOX_MESSAGES, RETRY_SECONDS, lease.forms[0], lease.value)

        def take(result: bytes) -> None:
            if result == b"unheld":
                on_failure(Code.UNAVAILABLE)
                self.leases.lose(lease)
            else:
                on_result(result.decode())

        command = Command(lambda: (TELL, keys, told), take, lambda error: on_failure(error.code))
        command.on_error = lambda: on_failure(Code.FAILED)
        self.pipeline.submit(command, len(text))

    def tell(self, node: str, message: Message) -> None:
        """Tell *message* to a node, unless Redis is away. Never waits."""
        text = json.dumps(message)
        told = (text, INBOX_MESSAGES, RETRY_SECONDS)
        self.pipeline.submit(Command(lambda: (SEND, [f"{INBOX}{node}"], told), _ignore, _ignore), len(text))

    def others(self) -> list[Message]:
        """What each other node tells of itself that is alive. Raises `Refused` if Redis is away."""
        found = list[Message]()
        for told in self.pipeline.ask(OTHERS, [NODES], [self.id]):
            with contextlib.suppress(ValueError):  # it is no use to us
                found.append(json.loads(told))
        return found

    def wait(self) -> None:
        """Wait until there is not much that waits for Redis."""
        self.pipeline.queue.wait(MAX_UNKEPT)

    def _end(self) -> None:
        self.logs.close()
        self.pipeline.close()
        self.pipeline.store.close()
        end(self._reading)
        end(self._beating)

    def _supervise(self, seconds: float, work: Callable[[], object]) -> None:
        """Do *work* again and again, whatever it raises: a node that is alive and deaf would be worse than none."""
        failures = 0
        while True:
            gevent.sleep(seconds)
            try:
                work()
            except GreenchatError as error:  # Redis is away, say, and may be back at any moment
                _log.debug("%s", error)
                self._doubt()
                gevent.sleep(LOG_RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - it is logged, and the rest of the node goes on
                log = _log.debug if failures else _log.error
                log("internal error, please report it: %r", error, exc_info=True)
                self._doubt()
                gevent.sleep(min(LOG_RETRY_SECONDS * 2 ** min(failures, 9), MAX_RETRY_DELAY))
                failures += 1
            else:
                if failures:
                    _log.warning("after %d internal errors the node goes on", failures)
                failures = 0

    def _live(self) -> None:
        try:
            was_alive = self._beat()
        except LogError as error:
            self._tell_once("the backplane is away: %s", error)
            raise
        self._tell_once("")
        self._beats = self._beats + 1 if was_alive else 0
        if not was_alive:
            self.leases.check()

    def _tell_once(self, problem: str, *why: object) -> None:
        """Log a *problem* when it begins, and when there is none any more."""
        if problem != self._problem:
            _log.warning(problem or "the backplane is there again", *why)
            self._problem = problem

    def _beat(self, seconds: float = LEASE_SECONDS) -> bool:
        """Be alive for so long. Whether this node counted as alive until now."""
        told = (self.id, int(seconds * 1000), json.dumps(self.about()))
        return bool(call(self._beating, self.pipeline.store.one, (BEAT, [NODES], told)))

    def _sweep(self) -> None:
        told = (self._swept, SWEPT_AT_ONCE, int(DEAD_NODE_SECONDS * 1000))
        self.logs.check()
        self.leases.check()
        if self._beats * BEAT_SECONDS < LEASE_SECONDS:  # others may be alive that have not said so yet
            return
        self._swept = self._call(self.pipeline.store.one, (SWEEP, [NAMES, NODES], told)).decode()
        self.logs.trim()

    def _read_next(self) -> None:
        store = self.pipeline.store
        if self._doubtful.is_set():
            self._doubtful.clear()
            call(self._reading, store.reconnect)
            self.logs.check()
            self.leases.check()
        found = call(self._reading, store.wait, {self._inbox: self._read, **self.logs.streams()})
        for stream, answer in found.items():
            if stream == self._inbox:
                self._take_all(answer)
            else:
                self.logs.take(stream, answer)

    def _take_all(self, answer: Answer) -> None:
        for number, fields in answer:
            self._read = number
            try:
                self._take(json.loads(fields[b"m"]))
            except _USELESS as error:
                _log.warning("a message of another server is of no use: %r", error)

    def _take(self, message: Message) -> None:
        if message["t"] == "gone":
            self.leases.revoke(message["lease"])
        elif message != _WAKE:
            self.on_message(message)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pipeline.call(function, *args)

    def _doubt_if(self, works: bool) -> None:  # noqa: FBT001 - what the pipeline is doing
        if works:
            self._doubt()

    def _doubt(self) -> None:
        """Have it be looked what of each log is there."""
        if not self._doubtful.is_set():
            self._doubtful.set()
            self._wake()

    def _wake(self) -> None:
        """Have the streams be looked at that there are by now."""
        gevent.spawn(self._tell_itself)

    def _tell_itself(self) -> None:
        told = (json.dumps(_WAKE), INBOX_MESSAGES, RETRY_SECONDS)
        try:
            self._call(self.pipeline.store.one, (SEND, [self._inbox], told))
        except LogError as error:  # who reads finds out as well
            _log.debug("%s", error)


def _ignore(_told: object) -> None:
    pass
