"""The load generator: loops in C, so that it is not itself the bottleneck, and its own processor time beside."""

import ctypes
import functools
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_int, c_size_t, c_uint64
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

__all__ = [
    "STAMP",
    "Burst",
    "Joined",
    "LoadError",
    "Pace",
    "Paced",
    "bare_burst",
    "bare_pace",
    "burst",
    "close",
    "compiler",
    "drain",
    "join",
    "paced",
]

SOURCES: Final = Path(__file__).with_name("generator")
STAMP: Final = b"|" + b"0" * 15
"""What a paced message has once, and nothing else has: the generator writes there when the message was due."""

OCTAVE: Final = 64
BUCKETS: Final = OCTAVE * 36
"""As in pace.c."""

IN_FLIGHT: Final = 256
"""Connections on their way in at once."""


class LoadError(Exception):
    """A server did not do what was asked of it."""


@dataclass(frozen=True)
class Joined:
    """Sockets that are connected and have said their hello; seconds until the last was in, and the generator's CPU."""

    fds: list[int]
    seconds: float
    cpu: float
    retried: int
    """Attempts that the server's queue had no room for, and that were begun anew."""


@dataclass(frozen=True)
class Burst:
    """Seconds until all had everything, and of the generator's own processor time."""

    seconds: float
    cpu: float


@dataclass(frozen=True)
class Pace:
    """So many messages a second, for so many seconds, and seconds for the last of them to come."""

    rate: float
    seconds: float
    patience: float
    watched: int = 1
    """One of so many members gives latencies; of the others the deliveries are only counted."""


@dataclass(frozen=True)
class Paced:
    """What came and how late, who was dropped, and the generator's own processor time."""

    histogram: Sequence[int]
    due: int
    """Messages that were to be sent."""
    sent: int
    """Those that the server had room for, soon enough."""
    delivered: int
    flooded: int
    """Bytes of the flood that the server has taken."""
    ended: int
    """Members and speakers whose connection ended."""
    cpu: float

    def percentile(self, share: float) -> float:
        """Seconds that this share of the deliveries took at most, within 1.6 %; infinite if there were none."""
        left = share * sum(self.histogram)
        for place, count in enumerate(self.histogram):
            left -= count
            if count and left <= 0:
                return _seconds(place)
        return float("inf")


def _seconds(place: int) -> float:
    """The upper end of a bucket."""
    if place < OCTAVE:
        return (place + 1) / 1e6
    doublings, rest = divmod(place - OCTAVE, OCTAVE)
    return float((OCTAVE + rest + 1) << doublings) / 1e6


class _Party(Structure):
    _fields_ = (
        ("hellos", c_char_p),
        ("ends", POINTER(c_size_t)),
        ("count", c_int),
        ("port", c_int),
        ("in_flight", c_int),
        ("receive_buffer", c_int),
        ("segment", c_int),
        ("marker", c_char_p),
        ("marker_size", c_size_t),
        ("patience", c_double),
        ("fds", POINTER(c_int)),
        ("seconds", c_double),
        ("retried", c_int),
    )


class _Pace(Structure):
    _fields_ = (
        ("speakers", POINTER(c_int)),
        ("speaker_count", c_int),
        ("frame", c_char_p),
        ("size", c_size_t),
        ("stamp_at", c_size_t),
        ("rate", c_double),
        ("seconds", c_double),
        ("patience", c_double),
        ("members", POINTER(c_int)),
        ("count", c_int),
        ("watched", c_int),
        ("flooder", c_int),
        ("flood", c_char_p),
        ("flood_size", c_size_t),
        ("histogram", POINTER(c_uint64)),
        ("due", c_size_t),
        ("sent", c_size_t),
        ("delivered", c_size_t),
        ("flooded", c_size_t),
        ("ended", c_int),
    )


def compiler() -> str | None:
    """The system's C compiler, if there is one."""
    return shutil.which("cc") or shutil.which((sysconfig.get_config_var("CC") or "gcc").split()[0])


def join(port: int, hellos: Sequence[bytes], marker: bytes, *, patience: float, far_away: bool = False) -> Joined:
    """Connect one socket for each of *hellos*, which it says; it is in once it has heard *marker*, if there is one.

    Raises `LoadError` unless all get in. With *far_away* they are as if at the other end of an Ethernet, and have
    little memory: what they do not read stays with the server, where otherwise megabytes fit in between on one machine.
    """
    fds = (c_int * len(hellos))()
    party = _Party(
        hellos=b"".join(hellos),
        ends=(c_size_t * len(hellos))(*accumulate(map(len, hellos))),
        count=len(hellos),
        port=port,
        in_flight=IN_FLIGHT,
        receive_buffer=4096 if far_away else 0,
        segment=1460 if far_away else 0,
        marker=marker,
        marker_size=len(marker),
        patience=patience,
        fds=fds,
    )
    begun = time.process_time()
    number = _library().join(ctypes.byref(party))
    if number < len(hellos):
        close(list(fds))
        raise LoadError(f"let in {number:,} of {len(hellos):,}")
    return Joined(list(fds), party.seconds, time.process_time() - begun, party.retried)


def close(fds: Sequence[int]) -> None:
    """Close the sockets that there are."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def burst(speaker: int, data: bytes, members: Sequence[int], expected: int, patience: float) -> Burst:
    """Send *data* at once, and wait until *members* have *expected* bytes each; with -1 somebody else sends.

    Raises `LoadError` if they don't get them.
    """
    got = (c_uint64 * len(members))()
    size, bytes_each, seconds = c_size_t(len(data)), c_uint64(expected), c_double(patience)
    begun = time.process_time()
    taken = _library().burst(speaker, data, size, _ints(members), len(members), bytes_each, seconds, got)
    if taken < 0:
        raise LoadError(f"of {expected:,} bytes each, somebody got {min(got):,}")
    return Burst(taken, time.process_time() - begun)


def paced(
    speakers: Sequence[int], frame: bytes, members: Sequence[int], pace: Pace, flood: tuple[int, bytes] = (-1, b"")
) -> Paced:
    """Have *speakers* send *frame*, which has a `STAMP`, at that pace to *members*, who all hear it.

    The first of *flood* sends the second as fast as it can meanwhile. Without *speakers* somebody else sends.
    """
    histogram = (c_uint64 * BUCKETS)()
    asked = _Pace(
        speakers=_ints(speakers),
        speaker_count=len(speakers),
        frame=frame,
        size=len(frame),
        stamp_at=frame.index(STAMP) + 1,
        rate=pace.rate,
        seconds=pace.seconds,
        patience=pace.patience,
        members=_ints(members),
        count=len(members),
        watched=pace.watched,
        flooder=flood[0],
        flood=flood[1],
        flood_size=len(flood[1]),
        histogram=histogram,
    )
    begun = time.process_time()
    _library().paced(ctypes.byref(asked))
    cpu = time.process_time() - begun
    return Paced(list(histogram), asked.due, asked.sent, asked.delivered, asked.flooded, asked.ended, cpu)


def drain(members: Sequence[int], quiet: float, patience: float) -> tuple[list[int], int]:
    """Throw away what comes until nothing has for *quiet* seconds; what came to each, and how many have been ended."""
    got = (c_uint64 * len(members))()
    ended = _library().drain(_ints(members), len(members), c_double(quiet), c_double(patience), got)
    return list(got), ended


def bare_burst(members: Sequence[int], piece: bytes, times: int) -> None:
    """Write *piece* to each of *members* so many times, and do nothing else."""
    if _library().bare_burst(_ints(members), len(members), piece, c_size_t(len(piece)), times):
        raise LoadError("somebody did not take it")


def bare_pace(members: Sequence[int], frame: bytes, rate: float, seconds: float) -> None:
    """Write *frame*, which has a `STAMP`, to each of *members* at *rate*, and do nothing else."""
    size, stamp_at = c_size_t(len(frame)), c_size_t(frame.index(STAMP) + 1)
    fds, count = _ints(members), len(members)
    if _library().bare_pace(fds, count, frame, size, stamp_at, c_double(rate), c_double(seconds)):
        raise LoadError("somebody did not take it")


def _ints(values: Sequence[int]) -> Any:
    return (c_int * len(values))(*values)


@functools.cache
def _library() -> ctypes.CDLL:
    command = compiler()
    if command is None:
        raise SystemExit("this benchmark needs a C compiler: install gcc or clang")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "load.so"
        subprocess.run([command, "-O2", "-Wall", "-shared", "-fPIC", "-o", path, *SOURCES.glob("*.c")], check=True)
        library = ctypes.CDLL(str(path))
    library.burst.restype = ctypes.c_double
    library.paced.restype = None
    return library
