"""many messages to many members: how fast, how late, and what single members can do to all others."""

import time
from functools import partial
from typing import Final

from benchmarks import load
from benchmarks.crowd import SIZE, TOO_LONG, Audience, BareWrites, Crowd, crowd_of
from benchmarks.load import LoadError, Paced
from benchmarks.peers import PEERS, Peer, absent, versions
from benchmarks.processes import deadline, raise_descriptor_limit
from benchmarks.report import Figures, Results
from benchmarks.trials import Trials

__all__ = ["find_highest", "measure_burst", "measure_paced", "run"]

ROUNDS: Final = 3
COUNTS: Final = (10, 100, 1000)
RATES: Final = (300, 600)
PACED_SECONDS: Final = 1.5
BARE: Final = "bare writes in C"
CHECKED: Final = 2000
WARM_UP: Final = 0.1
ABOUT: Final = 0.7
"""Seconds that a burst is to take."""

MOST: Final = 1_000_000
"""Messages in one burst."""

LATE: Final = 0.050
SEARCH_FROM: Final = 75.0
SEARCH_TO: Final = 100_000.0
SEARCH_STEPS: Final = 3
ROUGH_SECONDS: Final = 0.3
TRIES: Final = 2
"""At each doubling, because a moment's noise there would make the rate a tenth of what it is."""

FINE_SECONDS: Final = 0.6
LAST_WAIT: Final = 0.2
"""Seconds of a try at twice the rate, of one at a rate between, and for the last messages of either to come."""

SLEEPERS: Final = 10
SLEEPER_RATE: Final = 100
SLEEPER_SIZE: Final = 3000
WITHOUT_SECONDS: Final = 1.5
WITH_SECONDS: Final = 4.5
"""At that rate and size a member that does not read has missed more than `BOUND` by then."""

BOUND: Final = 1024 * 1024
"""Bytes that may wait for it: greenchat's own bound, and that of all who can be given one."""

SLEEPERS_QUIET: Final = 0.5
SLEEPERS_PATIENCE: Final = 5.0
CHATTERS: Final = 10
CHATTERS_RATE: Final = 5 * CHATTERS
FLOODED_MEMBERS: Final = 200
FLOOD_SECONDS: Final = 2.5
FLOOD_PATIENCE: Final = 2.0

CPU: Final = {"server": "CPU s/s", "generator": "CPU s/s"}
LATENCIES: Final = {"p50": "ms", "p99": "ms", "p99.9": "ms"}
PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
BURSTS: Final = {count: f"burst to {count:,} members" for count in COUNTS}
PACES: Final = {rate: f"{rate} messages/s to {max(COUNTS):,} members" for rate in RATES}
HIGHEST: Final = f"highest rate to {max(COUNTS):,} members with p99 under {LATE * 1000:.0f} ms"
ASLEEP: Final = f"{SLEEPERS} of {max(COUNTS):,} members never read, {SLEEPER_RATE} messages/s of {SLEEPER_SIZE:,} bytes"
FLOODED: Final = f"{CHATTERS} members say {CHATTERS_RATE} messages/s to {FLOODED_MEMBERS}, and another one floods"
TABLES: Final = {
    **{title: {"deliveries": "M/s", **CPU} for title in BURSTS.values()},
    **{title: {**LATENCIES, **CPU} for title in PACES.values()},
    HIGHEST: {"messages": "/s"},
    ASLEEP: {"p99 without": "ms", "p99 with": "ms", "ratio": "", "memory": "MiB", "dropped": "members"},
    FLOODED: {"p50": "ms", "p99": "ms", "flood": "thousand/s", "memory": "MiB", **CPU},
}


def run() -> Results:
    """Check that each contender delivers exactly what was said, then measure them all in turns, several times over."""
    raise_descriptor_limit()
    skipped = absent()
    skipped |= {name: why for name, peer in PEERS.items() if name not in skipped and (why := _inexact(peer))}
    peers = {name: peer for name, peer in PEERS.items() if name not in skipped}
    trials = Trials(TABLES)
    for _ in range(ROUNDS):
        _round(trials, peers)
    settings = f"messages of {SIZE} bytes, contenders in turns, median of {ROUNDS} rounds"
    return Results("fanout", settings, trials.tables(), skipped, versions(peers), trials.remarks)


def _inexact(peer: Peer) -> str | None:
    """What is wrong with what members of its room hear, if anything is."""
    try:
        with crowd_of(peer) as crowd:
            crowd.grow(3)
            crowd.hears_exactly(CHECKED)
    except (LoadError, OSError) as error:
        return str(error)
    return None


def _round(trials: Trials, peers: dict[str, Peer]) -> None:
    for name, peer in peers.items():
        with trials.excused(name), crowd_of(peer) as crowd:
            _steady(trials, name, crowd)
    with trials.excused(BARE), deadline(TOO_LONG), BareWrites() as writes:
        _steady(trials, BARE, writes)
    for name, peer in peers.items():
        with trials.excused(name), crowd_of(peer, bound=BOUND) as crowd:
            trials.measure(ASLEEP, name, partial(_asleep, crowd))
    for name, peer in peers.items():
        with trials.excused(name), crowd_of(peer, speakers=CHATTERS + 1) as crowd:
            trials.measure(FLOODED, name, partial(_flooded, crowd))


def _steady(trials: Trials, name: str, audience: Audience) -> None:
    """All that is measured in one room that grows."""
    for count, title in BURSTS.items():
        audience.grow(count)
        trials.measure(title, name, partial(measure_burst, audience))
        audience.calm()
    for rate, title in PACES.items():
        if not trials.measure(title, name, partial(measure_paced, audience, rate)):
            break  # it would not do more either
    audience.calm()
    trials.measure(HIGHEST, name, partial(find_highest, audience))


def measure_burst(audience: Audience, figures: Figures) -> None:
    """How many deliveries a second there are when many messages are said at once."""
    messages = _about_a_second(audience)
    before = audience.usage()
    done = audience.burst(messages)
    figures["deliveries"] = messages * len(audience.members) / done.seconds / 1e6
    figures["server"] = audience.usage().since(before).cpu / done.seconds
    figures["generator"] = done.cpu / done.seconds


def _about_a_second(audience: Audience) -> int:
    """How many messages take as long, by what a few take."""
    messages = max(16, 20_000 // len(audience.members))
    while (seconds := audience.burst(messages).seconds) < WARM_UP and messages * 4 < MOST:
        messages *= 4
    return min(MOST, int(messages * ABOUT / seconds) + 1)


def measure_paced(audience: Audience, rate: float, figures: Figures) -> None:
    """How late messages are heard that come at so many a second."""
    before, begun = audience.usage(), time.monotonic()
    done = audience.paced(rate, PACED_SECONDS)
    taken = time.monotonic() - begun
    figures["server"] = audience.usage().since(before).cpu / taken
    figures["generator"] = done.cpu / taken
    _check(done, len(audience.members))
    figures |= _latencies(done)


def _check(done: Paced, members: int) -> None:
    """Raise LoadError unless all has come to all."""
    if done.ended:
        raise LoadError(f"{done.ended} members were dropped")
    if (expected := done.due * members) != done.delivered:
        raise LoadError(f"of {expected:,} deliveries {done.delivered:,} came in time")


def _latencies(done: Paced) -> Figures:
    return {name: done.percentile(share) * 1000 for name, share in PERCENTILES.items()}


def find_highest(audience: Audience, figures: Figures) -> None:
    """Double the rate as long as messages come soon enough, then narrow it down."""
    low, high = 0.0, SEARCH_FROM
    while high < SEARCH_TO and any(soon_enough(audience, high, ROUGH_SECONDS) for _ in range(TRIES)):
        low, high = high, high * 2
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if soon_enough(audience, middle, FINE_SECONDS) else (low, middle)
    if not low:
        raise LoadError(f"later even at {high:.0f} messages/s")
    figures["messages"] = low


def soon_enough(audience: Audience, rate: float, seconds: float) -> bool:
    """Whether messages that come at so many a second are heard, and all but one in a hundred within `LATE`."""
    done = audience.paced(rate, seconds, patience=LAST_WAIT)
    if done.delivered == done.due * len(audience.members):
        return done.percentile(0.99) < LATE
    audience.calm()
    return False


def _asleep(crowd: Crowd, figures: Figures) -> None:
    """The same messages without and with members that never read."""
    crowd.grow(max(COUNTS) - SLEEPERS)
    done = crowd.paced(SLEEPER_RATE, WITHOUT_SECONDS, size=SLEEPER_SIZE)
    _check(done, len(crowd.members))
    figures["p99 without"] = done.percentile(0.99) * 1000
    sleepers = crowd.sleepers(SLEEPERS)
    try:
        crowd.calm()
        done, figures["memory"] = _beside_sleepers(crowd)
        _, figures["dropped"] = load.drain(sleepers, SLEEPERS_QUIET, SLEEPERS_PATIENCE)
    finally:
        load.close(sleepers)
    _check(done, len(crowd.members))
    figures["p99 with"] = done.percentile(0.99) * 1000
    figures["ratio"] = figures["p99 with"] / figures["p99 without"]


def _beside_sleepers(crowd: Crowd) -> tuple[Paced, float]:
    """How it went, and by how many MiB the server grew."""
    before = crowd.usage()
    crowd.forget_peak()
    done = crowd.paced(SLEEPER_RATE, WITH_SECONDS, size=SLEEPER_SIZE)
    return done, crowd.usage().since(before).peak


def _flooded(crowd: Crowd, figures: Figures) -> None:
    crowd.grow(FLOODED_MEMBERS)
    before, begun = crowd.usage(), time.monotonic()
    crowd.forget_peak()
    done, flooded = crowd.flooded(CHATTERS_RATE, FLOOD_SECONDS, FLOOD_PATIENCE)
    taken, used = time.monotonic() - begun, crowd.usage().since(before)
    figures |= {"flood": flooded / FLOOD_SECONDS / 1000, "memory": used.peak}
    figures |= {"server": used.cpu / taken, "generator": done.cpu / taken}
    _check(done, len(crowd.members))
    figures |= _latencies(done)
