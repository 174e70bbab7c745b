"""The traffic: jobs that select, roll out and report through the client library, as trainers do, and write down all.

A job repeats a report under its request_id until it is acknowledged. Some misbehave, as real ones do: they die with a
lease, give up on a report that may be stored, report twice, or at two servers at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import bots
from bots.request_ids import new_request_id
from tests.faults.model import Change, Content, History, Hyperparameters, Outcomes, Restore, Selection

DATASET = "tasks"
LEASE_SECONDS = 3.0
BATCH = 8
TIMEOUT_SECONDS = 3.0  # of each call
HASTY_SECONDS = 0.01  # of one whose answer nobody waits for: it may be stored or not
PATIENCE_SECONDS = 60.0  # a job that gets no answer for so long fails the test
HYPERPARAMETERS = (
    {"target": 0.4},
    {"target": 0.6},
    {"forgetting": 0.05},
    {"forgetting": 0.1},
    {"implicit_weight": 0.2},
)
PAUSE_SECONDS = 0.02  # between the steps of a job: rollouts take time, and other tests want the machine too


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Told:
    """An acknowledgement."""

    version: int | None  # None: the answer does not say


Call = Callable[[], Told]


@dataclass
class Job:
    """One trainer, or an operator where `operates`: it also changes hyperparameters and goes back to versions."""

    run: bots.Run  # over all servers
    hasty: bots.Run  # the same, by a client that soon gives up
    history: History
    rng: random.Random
    stopping: threading.Event
    operates: bool = False
    restores: bool = True  # operators go back to versions
    done: list[tuple[Change, Call]] = field(default_factory=list)  # acknowledged lately

    @property
    def name(self) -> str:
        return self.run.client.job

    def work(self) -> None:
        """Steps until told to stop."""
        while not self.stopping.is_set():
            chance = self.rng.random()
            if self.operates and chance < 0.1:
                self.operate()
            elif self.done and chance < 0.15:
                change, call = self.rng.choice(self.done)
                self.ask(change, call)  # again: it must change nothing
            else:
                self.step()
            self.stopping.wait(PAUSE_SECONDS)

    def step(self) -> None:
        """Selects, and reports or not."""
        leases = self.rng.random() < 0.6
        selection = self.select(LEASE_SECONDS if leases else None)
        if selection is None:
            return
        chance = self.rng.random()
        if leases and chance < 0.05:
            return  # it died: the clock ends its lease
        if leases and chance < 0.15:
            selection.given_back = time.time()
            self.try_once(lambda: self.run.release(selection.selection_id))
            return
        rollouts = [self.rng.choice((4, 8)) for _ in selection.tasks]
        successes = [self.rng.randrange(4 * n + 1) / 4 for n in rollouts]  # graded in quarters
        self.report(selection, Outcomes.of(selection.tasks, successes, rollouts))

    def select(self, lease_seconds: float | None) -> Selection | None:
        """Returns what the service picks; None: it is away, or too much is leased."""
        asked = time.time()
        batch = self.try_once(lambda: self.run.select(BATCH, lease_seconds=lease_seconds))
        if batch is None:
            return None
        assert batch.version is not None
        until = batch.lease_expire_time
        selection = Selection(
            self.name,
            batch.selection_id,
            tuple(batch.tasks.tolist()),
            batch.version,
            asked,
            time.time(),
            until.timestamp() if until else None,
        )
        self.history.selections.append(selection)
        return selection

    def report(self, selection: Selection, outcomes: Outcomes) -> None:
        """Reports until it is acknowledged; now and then once only, or from two threads at once."""
        request_id = new_request_id()
        complete = self.rng.random() < 0.9

        def call(run: bots.Run = self.run) -> Told:
            version = run.report(
                outcomes.tasks,
                outcomes.successes,
                outcomes.rollouts,
                selection_id=selection.selection_id,
                complete=complete,
                request_id=request_id,
            )
            return Told(version)

        change = self.change(request_id, outcomes)
        if complete:
            selection.given_back = change.asked
        chance = self.rng.random()
        if chance < 0.05:
            told = self.try_once(lambda: call(self.hasty))
            if told is not None:
                change.answers.append((time.time(), told.version))
        elif chance < 0.15:
            with ThreadPoolExecutor(2) as both:
                list(both.map(lambda _: self.ask(change, call), range(2)))
        else:
            self.ask(change, call)

    def operate(self) -> None:
        """Changes a hyperparameter, or goes back some versions."""
        request_id = new_request_id()

        def update() -> Told:
            self.run.update(request_id=request_id, **changes)
            return Told(None)

        def restore() -> Told:
            return Told(self.run.restore(version=version, request_id=request_id))

        if self.rng.random() < 0.7 or not self.restores:
            changes = self.rng.choice(HYPERPARAMETERS)
            self.ask(self.change(request_id, Hyperparameters.of(changes)), update)
            return
        info = self.try_once(self.run.info)
        if info is not None and info.version > 5:
            version = info.version - self.rng.randrange(5)
            self.ask(self.change(request_id, Restore(version)), restore)

    def change(self, request_id: str, content: Content) -> Change:
        """Returns a change that is about to be asked for."""
        change = Change(request_id, self.name, content, time.time())
        self.history.changes.append(change)
        return change

    def ask(self, change: Change, call: Call) -> None:
        """Asks for a change until it is acknowledged."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        refusals = len(self.history.refusals)
        while time.monotonic() < deadline:
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
        """Returns the answer of one call; None where it failed in a way that a job must live with."""
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

    Ends them when what they asked for is acknowledged. Where history is lost a version that an operator has seen may be
    gone: no `restores` then.
    """
    stopping = threading.Event()
    clients, working = [], []
    for number in range(count):
        name = f"job-{number}"
        patient, hasty = (bots.Client(addresses, timeout=t, job=name) for t in (TIMEOUT_SECONDS, HASTY_SECONDS))
        clients += [patient, hasty]
        runs = patient.run(DATASET, run), hasty.run(DATASET, run)
        working.append(Job(*runs, history, random.Random(f"{seed} {name}"), stopping, number == 0, restores))
    threads = [threading.Thread(target=job.work, name=job.name, daemon=True) for job in working]
    try:
        for thread in threads:
            thread.start()
        yield working
    finally:
        stopping.set()
        for thread in threads:
            thread.join(2 * PATIENCE_SECONDS)
        for client in clients:
            client.close()
        assert not any(thread.is_alive() for thread in threads)
