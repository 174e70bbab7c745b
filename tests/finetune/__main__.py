"""Finetunes a small transformer by GRPO, on tasks that the service selects and on others, and reports the difference.

    python -m tests.finetune              every arm, 10 seeds: about an hour on 2 cores
    python -m tests.finetune --quick      3 arms, 3 seeds, from the start that is committed: 3 minutes
    python -m tests.finetune --choose-lr  learning rates for uniform selection, on other seeds

A training that is done is kept in the output folder and not run again, so the command may be stopped at any time.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bots.cli.console import complain, out, say
from bots.cli.private_server import server_at
from bots.replay.scratch import scratch_datasets
from tests.finetune import report, start
from tests.finetune.job import Job
from tests.finetune.jobs import default_processes, run_all
from tests.finetune.setting import ARMS, QUICK, QUICK_ARMS, QUICK_CHECKED, RATES, SHARED, TRL, UNIFORM, Arm, Setting

LEAST_GAIN = 1.5  # of the effective task ratio over uniform's, in the quick run
CHOICE_SEEDS = range(100, 103)  # for the learning rate; no other training has them


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if the quick run does not show a larger effective task ratio."""
    given = _parser().parse_args(arguments)
    setting = QUICK if given.quick else Setting()
    weights = start.COMMITTED if given.quick else given.out / "weights"
    if not given.quick:
        _make_start(weights)
    seeds = range(given.first_seed, given.first_seed + (given.seeds or (3 if given.quick else 10)))
    if given.choose_lr:
        jobs = [
            _job(UNIFORM, seed, dataclasses.replace(setting, learning_rate=rate), weights, given.out / f"rate-{rate:g}")
            for seed in CHOICE_SEEDS
            for rate in RATES
        ]
    else:
        arms = [arm for arm in (QUICK_ARMS if given.quick else ARMS) if not given.arms or arm.name in given.arms]
        jobs = [_job(arm, seed, setting, weights, given.out / "traces") for seed in seeds for arm in arms]
        if not given.quick and not given.arms:
            pairs = [(seed, pair) for seed in seeds for pair in ("shared", "apart")]
            jobs += [_job(SHARED, seed, setting, weights, given.out / pair, pair) for seed, pair in pairs]
            if importlib.util.find_spec("trl") is None:
                say("the arm by TRL is left out: TRL is not installed")
            else:
                jobs.append(_job(TRL, seeds[0], setting, weights, given.out / "traces"))
    if not given.report:
        _run(jobs, given.server, given.processes)
    if given.choose_lr:
        say(report.rates(jobs))
        return 0
    findings = report.write(given.out, jobs)
    say(findings.table)
    say(f"written: {given.out}/report.md, report.json, curves.png, summary.png")
    return _checked(findings) if given.quick and not given.arms else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small run that checks the effective task ratio")
    parser.add_argument("--choose-lr", action="store_true", help="compare learning rates for uniform selection")
    parser.add_argument("--report", action="store_true", help="report on the trainings that are done, and run none")
    parser.add_argument("--seeds", type=int, help="number of paired seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="other seeds repeat the benchmark independently")
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="these alone")
    parser.add_argument("--processes", type=int, default=default_processes(), help="trainings at once")
    parser.add_argument("--server", help="select through this server; else through a private one")
    parser.add_argument("--out", type=Path, default=Path("out/finetune"), help="folder of traces and report")
    return parser


def _job(arm: Arm, seed: int, setting: Setting, weights: Path, folder: Path, pair: str = "") -> Job:
    return Job(arm=arm, seed=seed, setting=setting, weights=weights, file=folder / f"{arm.slug}-{seed}.npz", pair=pair)


def _make_start(weights: Path) -> None:
    weights.mkdir(parents=True, exist_ok=True)
    if all(start.file_of(weights, name).exists() for name in start.STEPS):
        return
    with _progress() as progress:
        bar = progress.add_task("pretraining", total=start.TOTAL)
        start.make(weights, lambda step: progress.update(bar, completed=step))


def _run(jobs: Sequence[Job], server: str | None, processes: int) -> None:
    left = [job for job in jobs if not job.done]
    say(f"{len(jobs)} trainings, {len(jobs) - len(left)} of them done; {processes} at once")
    if not left:
        return
    with server_at(server) as address, scratch_datasets(address, "finetune") as prefix, _progress() as progress:
        bar = progress.add_task("trainings", total=len(left))

        def finished(job: Job) -> None:
            progress.advance(bar)
            if not out.is_terminal:
                say(f"{job.arm.name}, seed {job.seed} {job.pair}".rstrip())

        run_all(left, address, prefix, processes, finished)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=out,
    )


def _checked(findings: report.Findings) -> int:
    """Returns the exit status of a quick run: 0 if selection has LEAST_GAIN times the ratio of uniform selection."""
    ratio, uniform = (findings.ratios[arm.name] for arm in (QUICK_CHECKED, UNIFORM))
    if ratio >= LEAST_GAIN * uniform:
        return 0
    complain(
        f"effective task ratio of {QUICK_CHECKED.name}: got {ratio:.3f}, must be at least {LEAST_GAIN} times that of "
        f"uniform selection ({uniform:.3f})"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
