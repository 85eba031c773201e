"""What this node has Redis do: commands in one order, as many at once as have come; and what it asks meanwhile."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

import gevent
from gevent import get_hub
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from greenchat.backplane.scripts import Script
from greenchat.backplane.store import Argument, Call, Store, is_own_failure
from greenchat.errors import Code, LogError, Refused
from greenchat.log.queue import WriteQueue
from greenchat.protocol.limits import SETTLE_SECONDS
from greenchat.threads import call, end

__all__ = ["Command", "Pipeline"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Command:
    """A script to be run; *on_result* is told what it returned, and may raise `LogError` to have it run again."""

    build: Callable[[], Call]
    """The script, its keys and arguments as they are when it is run."""
    on_result: Callable[[Any], object]
    on_failure: Callable[[Refused], object] | None = None
    """What is to be done if it is not run soon; without, it is run at last, however long Redis is away."""
    on_error: Callable[[], object] | None = None
    """What is to be done if the script itself fails, as on another program's data: it is not run again."""
    done: bool = False


class Pipeline:
    """Commands go to *store* in the order in which they came. Other calls do not wait for them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._running, self._calling = ThreadPool(1), ThreadPool(1)
        self.queue: WriteQueue[Command] = WriteQueue(self._write)
        self._failure = ""
        """The last failure of a single command that was logged."""

    def submit(self, command: Command, size: int = 1) -> None:
        """Have *command*, which has so many bytes, run after all before it, or fail at once if Redis is away."""
        if command.on_failure and not self.queue.works:
            command.on_failure(Refused(Code.UNAVAILABLE))
        else:
            self.queue.add(command, size)

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Have a script run after all commands before, however long that takes. Never waits."""
        self.submit(Command(lambda: (script, keys, arguments), _ignore))

    def ask(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """What a script returns that is run after all commands before. Raises `Refused` if it is not run soon.

        It may be run all the same then.
        """
        result: AsyncResult[Any] = AsyncResult()
        fail = partial(result.set_exception, Refused(Code.FAILED))
        self.submit(Command(lambda: (script, keys, arguments), result.set, result.set_exception, fail))
        with gevent.Timeout(SETTLE_SECONDS, Refused(Code.UNAVAILABLE)):
            return result.get()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the store returns. Raises `LogError`."""
        return call(self._calling, function, *args, **kwargs)

    def close(self) -> None:
        """End; what has not been run is lost."""
        self.queue.close()
        end(self._running)
        end(self._calling)

    def _write(self, batch: list[Command]) -> None:
        commands = [command for command in batch if not command.done]
        try:
            if not commands:  # they were given up, and that says nothing of Redis
                call(self._running, self.store.ping)
            results = call(self._running, self.store.run, [command.build() for command in commands])
        except LogError as error:
            self._give_up(error)
            raise
        failures = [
            failure
            for command, result in zip(commands, results, strict=True)
            if (failure := self._settle(command, result))
        ]
        if failures:
            self._give_up(failures[0])
            raise failures[0]

    def _give_up(self, error: LogError) -> None:
        """Nobody waits for long for what need not be run."""
        for command in list(self.queue):
            if not command.done and command.on_failure:
                command.done = True
                command.on_failure(Refused(error.code))

    def _settle(self, command: Command, result: Any) -> LogError | None:
        """Hand *result* to whoever gave *command*. Return why it has to be run again, if so."""
        if isinstance(result, Exception):
            return self._fail(command, result)
        try:
            command.on_result(result)
        except LogError as error:
            return error
        except Exception:  # noqa: BLE001 - a mistake of ours with one command is not to end all others
            get_hub().handle_error(command.on_result, *sys.exc_info())
        command.done = True
        return None

    def _fail(self, command: Command, error: Exception) -> LogError | None:
        """Give up a *command* that fails by itself, and holds up no other. Return why all have to wait, if not."""
        if not is_own_failure(error):
            return LogError(Code.UNAVAILABLE, f"the backplane does not do what it is to: {error}")
        if (failure := str(error)) != self._failure:  # the next ones may well fail alike
            self._failure = failure
            _log.warning("a command to the backplane was given up: %s", failure)
        command.done = True
        if command.on_error:
            command.on_error()
        return None


def _ignore(_result: Any) -> None:
    pass
