"""What everybody said and heard, and whether that is what was promised."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Witness", "gaps", "violations"]


@dataclass
class Witness:
    """One user: from which position on it heard, all it heard of others, all it said."""

    name: str
    room: str = "lobby"
    begin: int = 0
    heard: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    lost: int = 0
    """Lines that it was told were lost for good."""
    anew: int = 0
    """Times that it was told that nobody knows what is lost, because the room has begun anew."""


def violations(log: Sequence[str], witnesses: Iterable[Witness]) -> list[str]:
    """What in these histories is not as promised, if the room's *log* has all lines in its order.

    One order for all, each line of others once, each of one's own once and in the order in which it was said.
    """
    found = list[str]()
    for witness in witnesses:
        own = f"{witness.name}: "
        if witness.lost:
            found.append(f"{witness.name} was told that {witness.lost} lines are lost")
        found += _differences(
            f"{witness.name} heard", witness.heard, [line for line in log[witness.begin :] if not line.startswith(own)]
        )
        found += _differences(
            f"{witness.name} said",
            [own + text for text in witness.said],
            [line for line in log if line.startswith(own)],
        )
    return found


def gaps(log: Sequence[str], runs: Iterable[Sequence[str]]) -> list[str]:
    """What is not as promised in what guests heard, each by one connection: a part of the *log*, without a hole."""
    places, found = {line: place for place, line in enumerate(log)}, list[str]()
    for run in runs:
        if strange := [line for line in run if line not in places]:
            found.append(f"a guest heard {len(strange)} lines that are not in the log, {strange[0]!r} first")
        elif run and [places[line] for line in run] != list(range(places[run[0]], places[run[0]] + len(run))):
            found.append(f"a guest heard {len(run)} lines from {run[0]!r} on, but not all that are in the log")
    return found


def _differences(what: str, seen: Sequence[str], due: Sequence[str]) -> list[str]:
    if list(seen) == list(due):
        return []
    found = list[str]()
    if missing := sorted(set(due) - set(seen)):
        found.append(f"{what}: of the log {len(missing)} lines are missing, {missing[0]!r} first")
    if strange := sorted(set(seen) - set(due)):
        found.append(f"{what}: {len(strange)} lines are not in the log, {strange[0]!r} first")
    for lines, where in ((seen, "there"), (due, "in the log")):
        if len(set(lines)) < len(lines):
            found.append(f"{what}: {len(lines) - len(set(lines))} lines are {where} more than once")
    return found or [f"{what}: the order is another"]
