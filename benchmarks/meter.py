"""What it takes to bring a file over: seconds, and what each of the processes that take part used."""

import os
import select
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.carriers import Parties
from benchmarks.processes import running
from benchmarks.procstat import Usage, forget_peak

__all__ = ["measure"]

SAMPLE: Final = 0.2
"""Seconds between two looks at the memory of a command, which has none left to look at when it has ended."""

SETTLE: Final = 0.2
"""Seconds for servers to see that they are done."""


def measure(parties: Parties, file: str, home: Path) -> tuple[float, dict[str, Usage]]:
    """Bring *file* over; the seconds until it is there, and by role what was used for it."""
    before = {role: Usage.of(*pids) for role, pids in parties.processes.items()}
    for pids in parties.processes.values():
        forget_peak(*pids)
    begun = time.perf_counter()
    used = _run(parties.commands, home)
    parties.fetch([file])
    taken = time.perf_counter() - begun
    time.sleep(SETTLE)
    used |= {role: Usage.of(*pids).since(before[role]) for role, pids in parties.processes.items()}
    return taken, used


def _run(commands: dict[str, list[str]], home: Path) -> dict[str, Usage]:
    """Run all at once until they have ended; what each has used from first to last."""
    with ExitStack() as stack:
        started = {role: stack.enter_context(running(command, home)) for role, command in commands.items()}
        running_still, used, peaks = dict(started), {}, dict.fromkeys(started, 0.0)
        while running_still:
            for role, process in running_still.items():
                peaks[role] = max(peaks[role], Usage.of(process.pid).peak)
            for role in _ended(running_still):
                cpu = _wait(running_still.pop(role), home)
                used[role] = Usage(cpu, 0, peaks[role])
    return used


def _ended(processes: dict[str, "subprocess.Popen[bytes]"]) -> list[str]:
    """Which of them have ended, at once when one has, and after a while when none has."""
    with ExitStack() as stack:
        fds = {os.pidfd_open(process.pid): role for role, process in processes.items()}
        for fd in fds:
            stack.callback(os.close, fd)
        return [fds[fd] for fd in select.select(list(fds), [], [], SAMPLE)[0]]


def _wait(process: "subprocess.Popen[bytes]", home: Path) -> float:
    """The seconds of CPU of a command that has ended, and of what it had waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{process.args!r} failed:\n{(home / 'said').read_text()}")
    return usage.ru_utime + usage.ru_stime
