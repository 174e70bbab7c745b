"""The validator: judges a history, and the log that survived it, by the model.

It holds guarantees 1, 2 and 3 of the proto, and further: versions have no gaps; what was not acknowledged is there at
most once and whole; nothing is there that nobody asked for; no two live selections share a task; the ranks of a job get
one batch; a selection has no retired task, and says how many of its tasks rest. If a fault struck that the durability
does not cover, what it took back is counted, and everything else must hold all the same before it and after it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tests.core.oracle import Oracle
from tests.faults.model import Dataset, Entry, Fault, Floats, History, Restore, Selection, alpha_beta, replay, resting

TOLERANCE = 1e-4  # guarantee 3


@dataclass(frozen=True)
class Shown:
    """What one server shows of the run, when all is calm."""

    version: int
    log: Sequence[Entry]  # all of it
    alpha: Floats
    beta: Floats


@dataclass(frozen=True)
class Verdict:
    """What the history came to."""

    acknowledged: int  # changes
    lost_at: list[float]  # when the acknowledged ones that are not in the log were acknowledged last
    doubled: int  # entries of the log beyond the first of their id
    unacknowledged: int  # changes that nobody got an answer to
    unacknowledged_stored: int  # those of them that are in the log
    selections: int
    violations: list[str]

    @property
    def lost(self) -> int:
        return len(self.lost_at)


def validate(history: History, dataset: Dataset, servers: Mapping[str, Shown]) -> Verdict:
    """Returns the verdict on what `servers` show after the history; nothing is under way any more."""
    log = next(iter(servers.values())).log
    stored = Counter(entry.request_id for entry in log)
    acknowledged = [change for change in history.changes if change.answers]
    violations = [
        *history.refusals,
        *check_log(history, log),
        *check_answers(history, log),
        *check_order(history),
        *check_selections(history),
        *check_leases(history),
        *check_ranks(history),
        *check_eligible(history, dataset, log),
        *check_servers(dataset, servers),
    ]
    return Verdict(
        acknowledged=len(acknowledged),
        lost_at=[change.answers[-1][0] for change in acknowledged if not stored[change.request_id]],
        doubled=sum(count - 1 for count in stored.values()),
        unacknowledged=len(history.changes) - len(acknowledged),
        unacknowledged_stored=sum(stored[change.request_id] > 0 for change in history.changes if not change.answers),
        selections=len(history.selections),
        violations=violations,
    )


def check_log(history: History, log: Sequence[Entry]) -> list[str]:
    """Versions are 1, 2, 3, ..., and each entry is one that was asked for, whole, and no other entry has its id."""
    asked = {change.request_id: change for change in history.changes}
    found = [f"version {entry.version} in the place of {i}" for i, entry in enumerate(log, 1) if entry.version != i][:1]
    for request_id, count in Counter(entry.request_id for entry in log).items():
        if count > 1:
            found.append(f"{request_id} is {count} times in the log")
    for entry in log:
        change = asked.get(entry.request_id)
        if change is None:
            found.append(f"version {entry.version}: nobody asked for {entry.request_id}")
        elif (change.content, change.job) != (entry.content, entry.job):
            found.append(f"version {entry.version}: not what was asked under {entry.request_id}")
    return found


def check_answers(history: History, log: Sequence[Entry]) -> list[str]:
    """Each acknowledged change is in the log, at the version that every answer named; unless a fault took it back."""
    version = {entry.request_id: entry.version for entry in log}
    found = []
    for change in history.changes:
        for time, answered in change.answers:
            right = change.request_id in version and answered in (None, version[change.request_id])
            if not right and not _taken_back(history, time):
                found.append(
                    f"{change.request_id}: acknowledged as version {answered}, in the log "
                    f"{version.get(change.request_id, 'not at all')}"
                )
    return found


def check_order(history: History) -> list[str]:
    """A change that was asked for after another one was acknowledged comes after it."""
    found = []
    for begin, end in calm(history, lambda fault: fault.takes_back):
        acknowledged = _running_maximum(history, begin, end)
        for change in history.changes:
            for time, version in change.answers if begin <= change.asked else ():
                before = acknowledged(change.asked)
                if version is not None and time <= end and version <= before:
                    found.append(f"{change.request_id}: version {version}, asked for after {before} was acknowledged")
    return found


def check_selections(history: History) -> list[str]:
    """A selection sees every report acknowledged before it was asked for (guarantee 2)."""
    found = []
    for begin, end in calm(history, lambda fault: fault.takes_back or fault.moves_primary):
        acknowledged = _running_maximum(history, begin, end)
        for selection in history.selections:
            if begin <= selection.asked and selection.answered <= end:
                before = acknowledged(selection.asked)
                if selection.version < before:
                    found.append(f"{selection.job}: saw version {selection.version}, asked after {before}")
    return found


def check_leases(history: History) -> list[str]:
    """No two live selections share a task, and none without a lease gets a leased one."""
    found = []
    leased: dict[int, list[tuple[float, float, Selection]]] = defaultdict(list)
    restores = [
        (change.asked, min((time for time, _ in change.answers), default=math.inf))
        for change in history.changes
        if isinstance(change.content, Restore)
    ]
    for begin, end in calm(history, lambda fault: fault.takes_back):
        for selection in history.selections:
            # It certainly is live from the answer until its end was first asked for.
            if begin <= selection.asked and selection.answered <= end and selection.lease_until is not None:
                ended = min((asked for asked, answered in restores if answered > selection.asked), default=end)
                for task in selection.tasks:
                    until = min(selection.lease_until, selection.given_back.get(task, math.inf), ended, end)
                    if until > selection.answered:
                        leased[task].append((selection.answered, until, selection))
    for task, spans in leased.items():
        spans.sort(key=lambda span: span[:2])
        for (_, until, first), (start, _, second) in pairwise(spans):
            if start < until:
                found.append(f"task {task}: leased to {first.selection_id} and {second.selection_id} at {start}")
    for begin, end in calm(history, lambda fault: fault.takes_back or fault.moves_primary):
        for selection in history.selections:
            if selection.lease_until is not None or not (begin <= selection.asked and selection.answered <= end):
                continue
            for task in selection.tasks:
                for start, until, owner in leased.get(task, ()):
                    if start <= selection.asked and selection.answered <= until:
                        found.append(f"task {task}: leased to {owner.selection_id}, selected by {selection.job}")
    return found


def check_ranks(history: History) -> list[str]:
    """The ranks of a job that select by one key get one batch."""
    spans = calm(history, lambda fault: fault.takes_back or fault.moves_primary)
    return [
        what
        for asked, answered, what in history.disagreements
        if any(begin <= asked and answered <= end for begin, end in spans)
    ]


def check_eligible(history: History, dataset: Dataset, log: Sequence[Entry]) -> list[str]:
    """A selection has no task that is retired at its version, and says how many rest; after the last fault that could
    change what a version is."""
    begin, _ = calm(history, lambda fault: fault.takes_back or fault.moves_primary)[-1]
    at: dict[int, list[Selection]] = defaultdict(list)
    for selection in history.selections:
        if begin <= selection.asked:
            at[selection.version].append(selection)
    found = []

    def visit(version: int, state: Oracle) -> None:
        for selection in at.pop(version, ()):
            if retired := state.retired & set(selection.tasks):
                found.append(f"{selection.job}: selected {sorted(retired)}, retired at version {version}")
            rest = len(resting(state) & set(selection.tasks))
            if rest != selection.resting:
                found.append(f"{selection.job}: told {selection.resting} resting tasks, {rest} rest at {version}")

    replay(dataset, log, visit)
    return found


def check_servers(dataset: Dataset, servers: Mapping[str, Shown]) -> list[str]:
    """Every server shows the same log, and the posterior that the oracle makes of it."""
    log = next(iter(servers.values())).log
    alpha, beta = alpha_beta(replay(dataset, log))
    found = []
    for name, shown in servers.items():
        if shown.log != log:
            found.append(f"{name}: shows another log")
        if shown.version != len(log):
            found.append(f"{name}: at version {shown.version}, the log ends at {len(log)}")
        error = max(np.abs(shown.alpha - alpha).max(), np.abs(shown.beta - beta).max())
        if not error <= TOLERANCE:
            found.append(f"{name}: alpha or beta is {error:.2g} off")
    return found


def calm(history: History, breaks: Callable[[Fault], bool]) -> list[tuple[float, float]]:
    """Returns the times between faults that break something, as (begin, end)."""
    faults = sorted((fault for fault in history.faults if breaks(fault)), key=lambda fault: fault.began)
    begins = [-math.inf, *(fault.ended for fault in faults)]
    ends = [*(fault.began for fault in faults), math.inf]
    return list(zip(begins, ends, strict=True))


def outage(history: History, fault: Fault) -> float:
    """Returns the longest time without an acknowledgement around a fault, in seconds."""
    times = sorted(time for change in history.changes for time, _ in change.answers)
    gaps = [(after - before, before, after) for before, after in pairwise(times)]
    return max((gap for gap, before, after in gaps if before <= fault.ended and after >= fault.began), default=math.inf)


def _taken_back(history: History, acknowledged: float) -> bool:
    return any(fault.takes_back and acknowledged <= fault.ended for fault in history.faults)


def _running_maximum(history: History, begin: float, end: float) -> Callable[[float], int]:
    """Returns a function: the highest version acknowledged from `begin` to `end`, and before a time."""
    answers = sorted(
        (time, version)
        for change in history.changes
        for time, version in change.answers
        if version is not None and begin <= time <= end
    )
    times = np.array([time for time, _ in answers], dtype=np.float64)
    highest = np.maximum.accumulate(np.array([version for _, version in answers], dtype=np.int64))

    def before(time: float) -> int:
        count = int(np.searchsorted(times, time, side="left"))
        return int(highest[count - 1]) if count else 0

    return before
