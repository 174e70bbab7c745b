"""Runs the trainings, a process a core, each written to its file when it is done: what is there is not run again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

import bots
from tests.finetune import start
from tests.finetune.job import Job
from tests.finetune.setting import TRL
from tests.finetune.trace import Trace
from tests.finetune.training import Training

OTHER = 1000  # added to the seed of the rollouts of a second training of the same problem


def run_all(jobs: Iterable[Job], address: str, prefix: str, processes: int, finished: Callable[[Job], object]) -> None:
    """Runs jobs in their order, `processes` at once; calls `finished` after each. No process is left running.

    prefix  of the names of the datasets that are created.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare) as pool:
        futures = {pool.submit(run, job, address, prefix): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                finished(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _prepare() -> None:
    """Makes a process compute with one thread, as several make a model this small several times slower."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command handles Ctrl-C and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Ends this process when the command has ended without ending it, because it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run(job: Job, address: str, prefix: str) -> None:
    """Runs one job and writes its trace."""
    problem = start.problem(job.setting, job.seed, start.read(start.file_of(job.weights, "start")))
    if job.arm.way == "service":
        dataset = f"{prefix}{job.arm.slug}-{job.seed}-{job.pair or 'one'}"
        with bots.Client(address, job=dataset, timeout=60, strict=True) as client:
            traces = _selected(job, problem, client, dataset)
            client.delete_dataset(dataset, delete_runs=True)
    else:
        traces = _trained([Training(problem, job.setting, job.arm, None, job.seed)])
    for trace, file in zip(reversed(traces), (job.other_file, job.file)[-len(traces) :], strict=True):
        trace.save(file, job.about)  # at last the one by which the job is known to be done


def _selected(job: Job, problem: start.Problem, client: bots.Client, dataset: str) -> list[Trace]:
    """Returns the traces of the trainings of a job for which the service selects."""
    if job.arm == TRL:
        from tests.finetune import trl_arm

        return [trl_arm.train(client, dataset, problem, job.setting, job.arm, job.seed)]

    def references() -> dict[str, start.Floats]:
        return start.reference_rates(job.setting, job.seed, job.weights, problem.tasks)

    client.create_dataset(dataset, **start.columns(job.arm, problem.tasks, references))
    rest = bots.Hyperparameters(rest=job.arm.rest)
    run = client.create_run(dataset, "policy", model=job.arm.model, hyperparameters=rest)
    seeds = {"": [job.seed], "apart": [job.seed + OTHER], "shared": [job.seed, job.seed + OTHER]}[job.pair]
    return _trained([Training(problem, job.setting, job.arm, run, seed, leased=job.pair == "shared") for seed in seeds])


def _trained(trainings: Sequence[Training]) -> list[Trace]:
    """Returns the traces of trainings that take turns."""
    for _ in range(trainings[0].setting.steps):
        for training in trainings:
            training.round()
    return [training.trace() for training in trainings]


def default_processes() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
