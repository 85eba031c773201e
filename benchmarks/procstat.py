"""What a process and its descendants have used: processor time and memory, from ``/proc``."""

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["Usage", "forget_peak"]

PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED: Final = 2
MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Usage:
    """Of a process and its descendants, threads included: seconds of CPU, MiB resident now and at most."""

    cpu: float
    resident: float
    peak: float

    @classmethod
    def of(cls, *pids: int) -> Self:
        """Until now. Pages that several of the processes share count in each."""
        family = _family(pids)
        memory = [_memory(one) for one in family]
        return cls(
            cpu=sum(_cpu(one) for one in family),
            resident=sum(one.get("VmRSS", 0.0) for one in memory),
            peak=sum(one.get("VmHWM", 0.0) for one in memory),
        )

    def since(self, before: Self) -> "Usage":
        """What has come on top of what there was *before*."""
        return Usage(self.cpu - before.cpu, self.resident - before.resident, self.peak - before.resident)


def forget_peak(*pids: int) -> None:
    """Have the peak begin anew, at what is resident now."""
    for one in _family(pids):
        with contextlib.suppress(FileNotFoundError):
            (PROC / str(one) / "clear_refs").write_text("5")  # proc_pid_clear_refs(5)


def _family(pids: Iterable[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    family = list(pids)
    for one in family:  # grows meanwhile
        family += children.get(one, [])
    return family


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on, the third, or none if the process is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    return []


def _cpu(pid: int) -> float:
    """In user and system mode, with that of children that have ended and were waited for."""
    with contextlib.suppress(OSError):
        own = time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)  # as clock_getcpuclockid(3); stat has only whole ticks
        return own + sum(map(int, _stat(pid)[13:15])) / TICKS
    return 0.0


def _memory(pid: int) -> dict[str, float]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = (PROC / str(pid) / "status").read_text().splitlines()
        fields = (line.split() for line in lines if line.startswith(("VmRSS:", "VmHWM:")))
        return {name.rstrip(":"): int(size) * 1024 / MIB for name, size, *_unit in fields}
    return {}
