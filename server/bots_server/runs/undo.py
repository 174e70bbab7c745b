"""A run's state without one of its reports."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bots_server.core.posterior import Posterior, Restored, fold
from bots_server.core.undo import Step, counted
from bots_server.errors import Conflict, ReportNotCounted, VersionNotFound
from bots_server.runs.replica import Diverged, Replica, State
from bots_server.runs.selection import computing
from bots_server.store import Store, StoredEvent

ATTEMPTS = 1_000  # to append an undo before the next event arrives; the caller's deadline ends them sooner

GOES_BACK = {"restored": "restore", "undone": "undo"}


def without(store: Store, run: Replica, version: int) -> Iterator[Posterior]:
    """Yields the state that the run's events give without the report of `version`, as of the newest event; then again
    with the events that came since, at most 1,000 times.

    Raises VersionNotFound, ReportNotCounted, and Conflict if the run went back meanwhile or after the last state.
    """
    base, steps = _beginning(store, run, version)
    newest, events = steps[-1].version, counted(base.posterior.version, steps)
    if version not in events.versions or Step(version, "report") not in steps:
        raise ReportNotCounted(version, _why_not(version, steps))
    left, tasks = {*events.versions} - {version}, run.dataset.tasks
    at = base
    for _ in range(ATTEMPTS):
        for entry in _events(store, run, at):
            kind, posterior = entry.event.WhichOneof("kind"), at.posterior
            if entry.version > newest and kind in GOES_BACK:
                raise Conflict(f"run {run.record.name!r} went back to another state meanwhile; repeat")
            if entry.version in left or entry.version > newest or entry.version == events.start:
                # A restore on the way goes back to where the fold is, without the report.
                stays = kind == "restored" and entry.version != events.start
                event = Restored(posterior) if stays else run.core_event(entry)
                with computing(tasks):
                    posterior = fold(posterior, tasks, event)
            at = State(replace(posterior, version=entry.version), entry.nonce)
        yield at.posterior
    raise Conflict(f"run {run.record.name!r}: reports arrive faster than the undo can follow; repeat")


def _beginning(store: Store, run: Replica, version: int) -> tuple[State, list[Step]]:
    """Returns a stored state before the report, and what each event after it does."""
    name, newest, oldest = run.record.name, run.view().posterior.version, store.history.oldest(run.record)
    if not oldest < version <= newest:
        raise VersionNotFound(name, version, oldest + 1, newest)
    base = run.stored(version - 1)
    steps = [_step(entry) for entry in _events(store, run, base)]
    undone = [step for step in steps if step.kind == "undo" and step.version > version]
    if all(step.target > base.posterior.version for step in undone):
        return base, steps
    # The state that such an undo stored has the report, so its events are folded again, from before what it took out.
    if trimmed := [step.version for step in undone if step.target <= oldest]:
        raise VersionNotFound(name, version, max(trimmed) + 1, newest)
    base = run.stored(min(step.target for step in undone) - 1)
    return base, [_step(entry) for entry in _events(store, run, base)]


def _events(store: Store, run: Replica, after: State) -> Iterator[StoredEvent]:
    """Yields the events after a state, to the newest. Raises Diverged."""
    version, nonce = after.posterior.version, after.nonce
    while True:
        sync = store.history.sync(run.record, version, nonce)
        if sync.diverged:
            raise Diverged(run.record.name)
        yield from sync.events
        if not sync.events or sync.events[-1].version >= sync.version:
            return
        version, nonce = sync.events[-1].version, sync.events[-1].nonce


def _step(entry: StoredEvent) -> Step:
    match entry.event.WhichOneof("kind"):
        case "report":
            return Step(entry.version, "report")
        case "restored":
            return Step(entry.version, "restore", entry.event.restored.version)
        case "undone":
            return Step(entry.version, "undo", entry.event.undone.version)
        case _:
            return Step(entry.version, "change")


def _why_not(version: int, steps: Sequence[Step]) -> str:
    """Returns why a version is not a report that counts."""
    if any(step.version == version and step.kind != "report" for step in steps):
        return "it is not a report"
    for step in reversed(steps):
        if step.kind == "undo" and step.target == version:
            return f"version {step.version} undid it"
        if step.kind == "restore" and step.target < version < step.version:
            return f"version {step.version} went back to version {step.target}"
    raise AssertionError("a report counts until it is undone or the run goes back")
