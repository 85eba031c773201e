"""What everybody said and heard, and whether that is what was promised."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Witness", "violations"]


@dataclass
class Witness:
    """One user: from which position on it heard, all it heard of others, all it said."""

    name: str
    begin: int = 0
    heard: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    lost: int = 0
    """Lines that it was told were lost for good."""


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
