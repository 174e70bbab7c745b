"""Which events give the state of a run, and which are left if one report is taken out.

A restore goes back to an earlier list of events, and an undo takes one out of the list, so the list that gives a state
is not the whole history. Every such list is in ascending order of version.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Step:
    """What an event does to the list."""

    version: int
    kind: Literal["report", "change", "restore", "undo"]
    target: int = 0  # the version that a restore goes back to, or of the report that an undo takes out


@dataclass(frozen=True, slots=True)
class Counted:
    """The events that give a state."""

    start: int  # the version whose state they start from: the first known, or a restore or undo that goes back further
    # After it, ascending. A restore among them closes the open updates, and does no more.
    versions: tuple[int, ...] = ()


def counted(base: int, steps: Iterable[Step]) -> Counted:
    """Returns the events that give the state after `steps`, which are all events after version `base` in order."""
    steps = list(steps)
    targets = {step.target for step in steps if step.kind == "restore"}
    known = {base: Counted(base)}
    start, versions = base, list[int]()
    for step in steps:
        match step.kind:
            case "restore" if step.target in known:
                start, versions = known[step.target].start, [*known[step.target].versions, step.version]
            case "undo" if step.target in versions:
                versions.remove(step.target)
            case "restore" | "undo":
                start, versions = step.version, []
            case _:
                versions.append(step.version)
        if step.version in targets:
            known[step.version] = Counted(start, tuple(versions))
    return Counted(start, tuple(versions))
