"""Trains several seeds at once, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from queue import Empty

from bots.client import Client
from bots.demo.training import ARMS, Arm, Setting, Trace, prepare, start_run, train
from bots.errors import BotsError

LOOK_SECONDS = 1.0  # between two checks whether a process has died


@dataclass(frozen=True)
class Advance:
    """One step of an arm is done."""

    arm: Arm


@dataclass(frozen=True, eq=False)
class Done:
    """A seed is done: its traces, or the service's error."""

    seed: int
    traces: Mapping[Arm, Trace] | BotsError


def train_seeds(
    address: str, prefix: str, seeds: Sequence[int], setting: Setting, advance: Callable[[Arm], object]
) -> list[Mapping[Arm, Trace]]:
    """Returns the traces of the seeds, in their order.

    prefix   of the names of the datasets that are created.
    advance  called with the arm after each step.

    Raises the service's error if a call fails, RuntimeError if a process dies (its own output says why). No process is
    left running.
    """
    context = multiprocessing.get_context("spawn")
    news: Queue[Advance | Done] = context.Queue()
    processes = [
        context.Process(target=_train_seed, args=(address, f"{prefix}{seed}", setting, seed, news), daemon=True)
        for seed in seeds
    ]
    done: dict[int, Mapping[Arm, Trace]] = {}
    try:
        with _one_thread_each():
            for process in processes:
                process.start()
        while len(done) < len(processes):
            try:
                heard = news.get(timeout=LOOK_SECONDS)
            except Empty:
                dead = [process for process in processes if process.exitcode]
                if dead:
                    raise RuntimeError(f"a training process died with exit code {dead[0].exitcode}") from None
                continue
            if isinstance(heard, Advance):
                advance(heard.arm)
            elif isinstance(heard.traces, BotsError):
                raise heard.traces
            else:
                done[heard.seed] = heard.traces
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
        news.close()
    return [done[seed] for seed in seeds]


def _train_seed(address: str, prefix: str, setting: Setting, seed: int, news: Queue[Advance | Done]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command handles Ctrl-C and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        problem = prepare(setting, seed)
        traces = {}
        with Client(address, timeout=60, job=f"demo-{seed}", strict=True) as client:
            for arm in ARMS:
                run = start_run(client, f"{prefix}-{arm}", arm, problem)
                traces[arm] = train(problem, setting, run, seed, lambda arm=arm: news.put(Advance(arm)))  # type: ignore[misc]
        news.put(Done(seed, traces))
    except BotsError as error:
        news.put(Done(seed, error))


def _end_with_parent() -> None:
    """Ends this process when the command has ended without ending it, because it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Makes processes that start in this context multiply matrices with one thread: the matrices are small, and threads
    would mostly wait for each other. numpy reads the variables when it is imported, so this process is not affected.
    """
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
