"""The traffic: jobs that select, roll out and report through the client library, as trainers do, and write down all.

A job has one rank or several, which select by one key and report each its part of the batch, at once or later, and some
rollouts of a task apart from the others. A job repeats a report until it is acknowledged. Some misbehave, as real ones
do: they die with a lease and start again, give up on a report that may be stored, report twice, or at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count as counting
from typing import TypeVar

import numpy as np

import bots
from bots.request_ids import new_request_id
from tests.faults.model import Change, Content, History, Hyperparameters, Outcomes, Restore, Retire, Selection, Undo

DATASET = "tasks"
LEASE_SECONDS = 3.0
BATCH = 8
TIMEOUT_SECONDS = 3.0  # of each call
HASTY_SECONDS = 0.01  # of one whose answer nobody waits for: it may be stored or not
PATIENCE_SECONDS = 60.0  # a job that gets no answer for so long fails the test
HYPERPARAMETERS: tuple[dict[str, float], ...] = (
    {"target": 0.4},
    {"target": 0.6},
    {"forgetting": 0.05},
    {"forgetting": 0.1},
    {"implicit_weight": 0.2},
    {"rest": 0.25},
    {"rest": 1.0},
    {"rollouts_per_update": 100},
    {"rollouts_per_update": 0},
)
PAUSE_SECONDS = 0.02  # between the steps of a job: rollouts take time, and other tests want the machine too


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Told:
    """An acknowledgement."""

    version: int | None  # None: the answer does not say


Call = Callable[[], Told]


@dataclass
class Part:
    """A part of a selection that one rank reports."""

    selection: Selection
    batch: bots.Batch
    outcomes: Outcomes
    name: str  # "": all rollouts of its tasks


@dataclass
class Job:
    """One trainer, or an operator if it `operates`: it also changes hyperparameters, retires tasks, and goes back."""

    name: str
    addresses: Sequence[str]
    run_name: str
    history: History
    rng: random.Random
    stopping: threading.Event
    operates: bool = False
    restores: bool = True  # operators go back to versions
    clients: list[bots.Client] = field(default_factory=list)
    done: list[tuple[Change, Call]] = field(default_factory=list)  # acknowledged lately
    late: list[Part] = field(default_factory=list)  # to be reported some steps later
    steps: Iterator[int] = field(default_factory=counting)
    incarnations: Iterator[int] = field(default_factory=counting)

    def begin(self) -> None:
        """Starts the job, or starts it again: the leases that it has end with its first selection."""
        self.end()
        incarnation = str(next(self.incarnations))
        for selection in self.history.selections:
            if selection.job == self.name:
                selection.give_back(selection.tasks, time.time())
        patient, hasty = (
            bots.Client(self.addresses, timeout=timeout, job=self.name, incarnation=incarnation, strict=True)
            for timeout in (TIMEOUT_SECONDS, HASTY_SECONDS)
        )
        self.clients = [patient, hasty]
        self.run = patient.run(DATASET, self.run_name)
        self.hasty = hasty.run(DATASET, self.run_name)

    def end(self) -> None:
        """Ends the job as it is."""
        self.late, self.done = [], []
        for client in self.clients:
            client.close()

    def work(self) -> None:
        """Steps until told to stop."""
        while not self.stopping.is_set():
            chance = self.rng.random()
            if self.operates and chance < 0.15:
                self.operate()
            elif self.done and chance < 0.2:
                change, call = self.rng.choice(self.done)
                self.ask(change, call)  # again: it must change nothing
            elif chance < 0.22:
                self.begin()
            elif self.late and chance < 0.6:
                self.report([self.late.pop(self.rng.randrange(len(self.late)))])
            else:
                self.step()
            self.stopping.wait(PAUSE_SECONDS)

    def step(self) -> None:
        """Selects, and reports or not."""
        leases = self.rng.random() < 0.6
        ranks = self.rng.choice((1, 1, 2, 3))
        selected = self.select(ranks, LEASE_SECONDS if leases else None)
        if selected is None:
            return
        selection, batch = selected
        chance = self.rng.random()
        if leases and chance < 0.05:
            return  # it died: the clock ends its lease, or its next start
        if leases and chance < 0.15:
            part = batch if self.rng.random() < 0.5 else batch[::2]
            selection.give_back(part.tasks.tolist(), time.time())
            self.try_once(part.release)
            return
        parts = [part for rank in range(ranks) for part in self.rolled_out(selection, batch[rank::ranks])]
        later = [part for part in parts if len(parts) > 1 and self.rng.random() < 0.3]
        self.late += later
        self.report([part for part in parts if part not in later])

    def select(self, ranks: int, lease_seconds: float | None) -> tuple[Selection, bots.Batch] | None:
        """Returns what the ranks get under one key; None: the service is away, or too much is leased."""
        asked, key = time.time(), str(next(self.steps))

        def call() -> bots.Batch:
            batch: bots.Batch = self.run.select(BATCH, key=key, lease_seconds=lease_seconds)
            return batch

        if ranks == 1:
            batches = [self.try_once(call)]
        else:
            with ThreadPoolExecutor(ranks) as threads:
                batches = list(threads.map(lambda _: self.try_once(call), range(ranks)))
        answered = [batch for batch in batches if batch is not None]
        if not answered:
            return None
        batch = answered[0]
        if len({(one.selection_id, *one.tasks.tolist()) for one in answered}) > 1:
            self.history.disagreements.append((asked, time.time(), f"{self.name}: ranks got different batches"))
        assert batch.version is not None
        until = batch.lease_expire_time
        selection = Selection(
            self.name,
            batch.selection_id,
            tuple(batch.tasks.tolist()),
            batch.version,
            asked,
            time.time(),
            batch.resting_tasks,
            until.timestamp() if until else None,
        )
        self.history.selections.append(selection)
        return selection, batch

    def rolled_out(self, selection: Selection, batch: bots.Batch) -> list[Part]:
        """Returns what a rank reports of its part: all at once, or the rollouts in two halves."""
        rollouts = [self.rng.choice((4, 8)) for _ in batch.tasks]
        successes = [self.rng.randrange(4 * n + 1) / 4 for n in rollouts]  # graded in quarters

        def part(name: str, share: float) -> Part:
            of_part = [k * share for k in successes], [int(n * share) for n in rollouts]
            return Part(selection, batch, Outcomes.of(batch.tasks, *of_part, batch.selection_id), name)

        if self.rng.random() < 0.8:
            return [part("", 1.0)]
        return [part("first half", 0.5), part("second half", 0.5)]

    def report(self, parts: Sequence[Part]) -> None:
        """Reports parts at once until they are acknowledged; now and then once only, or each from two threads."""
        jobs = [(part, self.rng.random()) for part in parts]
        if len(jobs) == 1:
            self.report_part(*jobs[0])
        elif jobs:
            with ThreadPoolExecutor(len(jobs)) as threads:
                list(threads.map(lambda job: self.report_part(*job), jobs))

    def report_part(self, part: Part, chance: float) -> None:
        """Reports one part."""
        outcomes, batch = part.outcomes, part.batch
        order = np.argsort(batch.tasks)  # of the outcomes, which are in order of task
        successes, rollouts = np.empty(len(order)), np.empty(len(order), np.int64)
        successes[order], rollouts[order] = outcomes.successes, outcomes.rollouts

        def call(batch: bots.Batch = batch) -> Told:
            return Told(batch.report(successes, rollouts, part=part.name))

        change = self.change(batch.report_id(part.name), outcomes)
        part.selection.give_back(outcomes.tasks, change.asked)
        if chance < 0.05:
            told = self.try_once(lambda: call(replace(batch, run=self.hasty)))
            if told is not None:
                change.answers.append((time.time(), told.version))
        elif chance < 0.15:
            with ThreadPoolExecutor(2) as both:
                list(both.map(lambda _: self.ask(change, call), range(2)))
        else:
            self.ask(change, call)

    def operate(self) -> None:
        """Changes a hyperparameter, retires tasks or takes them back, undoes a report, or goes back some versions."""
        request_id, chance = new_request_id(), self.rng.random()
        if chance < 0.4:
            changes = self.rng.choice(HYPERPARAMETERS)

            def update() -> Told:
                self.run.update(request_id=request_id, **changes)  # type: ignore[arg-type]  # by name
                return Told(None)

            self.ask(self.change(request_id, Hyperparameters.of(changes)), update)
        elif chance < 0.7 or not self.restores:
            tasks, undo = tuple(sorted(self.rng.sample(range(50), 3))), self.rng.random() < 0.5

            def retire() -> Told:
                (self.run.unretire if undo else self.run.retire)(tasks, rows=True, request_id=request_id)
                return Told(None)

            self.ask(self.change(request_id, Retire(tasks, undo)), retire)
        else:
            info = self.try_once(self.run.info)
            if info is not None and info.version > 5 and chance < 0.8:
                self.undo(info.version, request_id)
            elif info is not None and info.version > 5:
                version = info.version - self.rng.randrange(5)

                def restore() -> Told:
                    return Told(self.run.restore(version=version, request_id=request_id))

                self.ask(self.change(request_id, Restore(version)), restore)

    def undo(self, newest: int, request_id: str) -> None:
        """Takes one of the last reports out that count for certain: since the last restore or undo."""
        reports: list[int] = []
        for event in self.try_once(lambda: list(self.run.events(after_version=max(0, newest - 16)))) or []:
            if isinstance(event.kind, bots.ReportEvent):
                reports.append(event.version)
            elif isinstance(event.kind, bots.RestoreEvent | bots.UndoEvent):
                reports = []
        if reports:
            version = self.rng.choice(reports)
            self.ask(
                self.change(request_id, Undo(version)),
                lambda: Told(self.run.undo(version, request_id=request_id, timeout=TIMEOUT_SECONDS)),
            )

    def change(self, request_id: str, content: Content) -> Change:
        """Returns a change that is about to be asked for."""
        change = Change(request_id, self.name, content, time.time())
        self.history.changes.append(change)
        return change

    def ask(self, change: Change, call: Call) -> None:
        """Asks for a change until it is acknowledged."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            refusals = len(self.history.refusals)
            told = self.try_once(call)
            if told is not None:
                change.answers.append((time.time(), told.version))
                self.done = [*self.done[-9:], (change, call)]
                return
            if len(self.history.refusals) > refusals:
                return
            time.sleep(0.05)
        self.history.refusals.append(f"{self.name}: {change.request_id} was not acknowledged in {PATIENCE_SECONDS} s")

    def try_once(self, call: Callable[[], Answer]) -> Answer | None:
        """Returns the answer of one call; None if it failed in a way that a job must live with."""
        try:
            return call()
        except bots.TemporaryError as error:
            self.history.errors.append((time.time(), error.reason or error.code))
        except bots.BotsError as error:
            if error.reason != "TOO_FEW_ELIGIBLE":
                self.history.refusals.append(f"{self.name}: {error.code} {error}")
        return None


@contextmanager
def jobs(
    addresses: Sequence[str], run: str, history: History, *, count: int, seed: int, restores: bool = True
) -> Iterator[list[Job]]:
    """Yields jobs at work on one run, over all servers, the first of them an operator.

    Ends them when what they asked for is acknowledged. If history is lost a version that an operator has seen may be
    gone: no `restores` then.
    """
    stopping = threading.Event()
    working = []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        working.append(Job(f"job-{number}", addresses, run, history, rng, stopping, number == 0, restores))
    for job in working:
        job.begin()
    threads = [threading.Thread(target=job.work, name=job.name, daemon=True) for job in working]
    try:
        for thread in threads:
            thread.start()
        yield working
    finally:
        stopping.set()
        for thread in threads:
            thread.join(2 * PATIENCE_SECONDS)
        for job in working:
            job.end()
        assert not any(thread.is_alive() for thread in threads)
