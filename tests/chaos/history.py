"""Histories of what users sent and received, checked against what is promised."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Witness", "gaps", "leaks", "violations"]


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
    whispered: list[tuple[str, str]] = field(default_factory=list)
    """Private messages sent, each with the name of its receiver."""
    overheard: list[tuple[str, str]] = field(default_factory=list)
    """Private messages received, each with the name of its sender."""
    damaged: list[str] = field(default_factory=list)
    """Files that were received with other bytes than their owner's."""

    def is_own(self, line: str) -> bool:
        """Return True if *line* of a log was sent by this user, not by an intruder under its name."""
        name, _, text = line.partition(": ")
        return name == self.name and text.isdigit()


def violations(log: Sequence[str], witnesses: Iterable[Witness]) -> list[str]:
    """What in these histories is not as promised, if the room's *log* has all lines in its order.

    One order for all, each line of others once, each of one's own once and in the order in which it was said.
    """
    found = list[str]()
    for witness in witnesses:
        if witness.lost:
            found.append(f"{witness.name} was told that {witness.lost} lines are lost")
        found += _differences(
            f"{witness.name} heard", witness.heard, [line for line in log[witness.begin :] if not witness.is_own(line)]
        )
        found += _differences(
            f"{witness.name} said",
            [f"{witness.name}: {text}" for text in witness.said],
            [line for line in log if witness.is_own(line)],
        )
    return found


def leaks(witnesses: Iterable[Witness]) -> list[str]:
    """Return what is wrong with private messages and files: strange ones, doubles, and damage."""
    by_name, found = {witness.name: witness for witness in witnesses}, list[str]()
    for witness in by_name.values():
        for sender, text in set(witness.overheard):
            times = witness.overheard.count((sender, text))
            if sender not in by_name or (witness.name, text) not in by_name[sender].whispered:
                found.append(f"{witness.name} got a private message that was not for it: {text!r} from {sender}")
            elif times > 1:
                found.append(f"{witness.name} got a private message {times} times: {text!r} from {sender}")
        found += [f"{witness.name} received other bytes: {file}" for file in witness.damaged]
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
