"""Several seeds at once, a process each, so that two cores are both at work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from queue import Empty

from bots.client import Client
from bots.demo.training import ARMS, Arm, Setting, Trace, prepare, start_run, train
from bots.errors import BotsError

LOOK_SECONDS = 1.0  # between two looks whether a process has died without a word


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
    address: str, datasets: list[str], setting: Setting, advance: Callable[[Arm], object]
) -> list[Mapping[Arm, Trace]]:
    """Returns the traces of seeds 0, 1, ... with a dataset of that name each, which is created; in their order.

    advance      is told each step of an arm.
    Raises the service's error where there is one. RuntimeError: a process died; it has said why. None is left running,
    however this ends.
    """
    context = multiprocessing.get_context("spawn")
    news: Queue[Advance | Done] = context.Queue()
    processes = [
        context.Process(target=_train_seed, args=(address, dataset, setting, seed, news), daemon=True)
        for seed, dataset in enumerate(datasets)
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
    return [done[seed] for seed in sorted(done)]


def _train_seed(address: str, dataset: str, setting: Setting, seed: int, news: Queue[Advance | Done]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which then ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        problem = prepare(setting, seed)
        traces = {}
        with Client(address, timeout=60, job=f"demo-{seed}") as client:
            client.create_dataset(dataset, weak=problem.weak, strong=problem.strong)
            for arm in ARMS:
                run = start_run(client, dataset, arm)
                traces[arm] = train(problem, setting, run, seed, lambda arm=arm: news.put(Advance(arm)))  # type: ignore[misc]
        news.put(Done(seed, traces))
    except BotsError as error:
        news.put(Done(seed, error))


def _end_with_parent() -> None:
    """Ends this process when the command has ended without ending it: when that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Lets processes that start here multiply matrices with one thread: they are small, and threads would wait for each
    other most of the time. numpy reads the variables when it is imported, so not in this process any more.
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
