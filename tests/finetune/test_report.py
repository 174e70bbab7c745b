"""The figures and the report, on traces made by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.finetune import report
from tests.finetune.figures import best_at, calibration_error, figures, whole_time
from tests.finetune.job import Job
from tests.finetune.setting import ARMS, INTERPOLATION, SHARED, TAGS, UNIFORM, Arm, Setting, without_rest
from tests.finetune.trace import BINS, Trace, load

SETTING = Setting(tasks=20, held_out=5, steps=4, batch=2, rollouts=4, evaluate_every=1)


def trace(accuracy: list[float], successes: list[list[int]], **fields: object) -> Trace:
    """Returns a trace of 4 rounds of 2 tasks."""
    count = len(accuracy)
    made = Trace(
        measured=SETTING.measured,
        updates=np.arange(count),
        accuracy=np.array(accuracy),
        greedy=np.array(accuracy),
        cells=np.zeros((count, 5, 6)),
        fidelity=np.full(count, 0.5),
        available=np.full(count, 0.25),
        tasks=np.array([[0, 1], [2, 3], [0, 1], [4, 5]]),
        successes=np.array(successes, dtype=float),
        predicted=np.full((4, 2), np.nan),
        implicit=np.full((count, 2), np.nan),
        first=np.full((count, 2), np.nan),
        calibration=np.full((BINS, 3), np.nan),
        capability=np.full(count, np.nan),
        select_seconds=1.0,
        report_seconds=1.0,
        seconds=20.0,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


BASELINE = trace([0.1, 0.2, 0.3, 0.4, 0.4], [[0, 4], [4, 4], [2, 0], [0, 1]])
SELECTED = trace([0.1, 0.3, 0.5, 0.6, 0.5], [[2, 2], [1, 4], [2, 3], [0, 1]])


def test_figures_are_differences_of_equal_seeds() -> None:
    """Gains are paired; the effective task ratio, the pass rate and the distinct tasks are the arm's own."""
    found = figures({UNIFORM: {0: BASELINE, 1: BASELINE}, TAGS: {0: SELECTED, 1: SELECTED, 2: SELECTED}}, TAGS, SETTING)
    assert found.seeds == 3
    assert found.gain.mean == pytest.approx(0.1)
    assert found.best_gain["50 %"].mean == pytest.approx(0.2)
    assert found.best_gain["100 %"].mean == pytest.approx(0.2)
    assert found.ratio.mean == pytest.approx(6 / 8)
    assert found.pass_rate.mean == pytest.approx(15 / 32)
    assert found.distinct.mean == 6
    assert found.share.mean == pytest.approx(0.1)
    assert found.time_to_baseline.mean == pytest.approx(0.5)
    assert found.censored == 0


def test_seed_that_never_reaches_the_baseline_counts_as_the_whole_training() -> None:
    """Uniform selection is best after 3 of 4 rounds, so the whole training is 4/3 of its time."""
    found = figures({UNIFORM: {0: SELECTED}, TAGS: {0: BASELINE}}, TAGS, SETTING)
    assert whole_time(SELECTED) == pytest.approx(4 / 3)
    assert found.time_to_baseline.mean == pytest.approx(4 / 3)
    assert found.censored == 1


def test_reference_rollouts_are_counted_for_arms_that_need_them() -> None:
    """Two references, each with its rollouts of every task."""
    assert INTERPOLATION.reference_cost(SETTING) == 2 * 20 * SETTING.reference_rollouts
    assert TAGS.reference_cost(SETTING) == 0


def test_best_at_looks_at_the_first_part() -> None:
    """After a quarter of the rounds the second measurement is the last."""
    assert best_at(SELECTED, 0.25) == 0.3
    assert best_at(SELECTED, 1.0) == 0.6


def test_calibration_error_weighs_by_outcomes() -> None:
    """A tenth without outcomes does not count."""
    bins = np.full((BINS, 3), np.nan)
    bins[:, 0] = 0
    bins[2], bins[7] = (3, 0.25, 0.35), (1, 0.75, 0.35)
    assert calibration_error(replace(SELECTED, calibration=bins)) == pytest.approx((3 * 0.1 + 0.4) / 4)
    assert np.isnan(calibration_error(SELECTED))


def test_arms_have_names_of_their_own() -> None:
    """Names and the names of files are distinct; every selected arm is run with and without rest."""
    assert len({arm.slug for arm in ARMS}) == len(ARMS)
    assert {without_rest(arm) for arm in ARMS if arm.way == "service" and arm.rest is None} < set(ARMS)


def job(arm: Arm, seed: int, folder: Path, pair: str = "") -> Job:
    """Returns a job whose trace is in a folder."""
    return Job(
        arm=arm, seed=seed, setting=SETTING, weights=folder, file=folder / f"{arm.slug}-{seed}{pair}.npz", pair=pair
    )


def test_report_has_every_arm_that_is_done(tmp_path: Path) -> None:
    """Tables, JSON and pictures are written from the files; a job without a file is left out."""
    jobs = [job(arm, seed, tmp_path) for arm in (UNIFORM, TAGS, without_rest(TAGS)) for seed in range(2)]
    for each in jobs[:-2]:
        (BASELINE if each.arm == UNIFORM else SELECTED).save(each.file, each.about)
    found = report.write(tmp_path / "report", jobs)
    assert found.ratios == {UNIFORM.name: pytest.approx(2 / 8), TAGS.name: pytest.approx(6 / 8)}
    assert found.table.count(f"| {TAGS.name} |") == 4
    assert without_rest(TAGS).name not in found.table
    values = json.loads((tmp_path / "report" / "report.json").read_text())
    assert values["arms"][TAGS.name]["gain"] == {"mean": 0.1, "low": 0.1, "high": 0.1}
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000
    assert (tmp_path / "report" / "summary.png").stat().st_size > 5_000


def test_shared_run_is_compared_with_two_of_equal_seeds(tmp_path: Path) -> None:
    """The pair apart is the arm's own training and a second one; the shared pair is in two files of one job."""
    alone, apart, shared = (job(SHARED, 0, tmp_path, pair) for pair in ("", "apart", "shared"))
    alone.file.parent.mkdir(exist_ok=True)
    BASELINE.save(alone.file, alone.about)
    SELECTED.save(apart.file, apart.about)
    SELECTED.save(shared.file, shared.about)
    SELECTED.save(shared.other_file, shared.about)
    found = report.sharing([alone, apart, shared], SETTING)
    assert found["apart"]["held-out accuracy at the end"].mean == pytest.approx(0.45)
    assert found["difference"]["held-out accuracy at the end"].mean == pytest.approx(0.05)
    assert report.sharing([alone, shared], SETTING) == {}


def test_trace_of_another_setting_is_refused(tmp_path: Path) -> None:
    """A file that another setting wrote is neither used nor overwritten."""
    wanted = job(TAGS, 0, tmp_path)
    SELECTED.save(wanted.file, wanted.about | {"seed": 7})
    with pytest.raises(ValueError, match="another setting"):
        assert wanted.done


def test_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Arrays, numbers and what the trace is about."""
    SELECTED.save(tmp_path / "trace.npz", {"seed": 1})
    found, about = load(tmp_path / "trace.npz")
    assert about == {"seed": 1}
    assert found.seconds == SELECTED.seconds
    assert found.tasks.tolist() == SELECTED.tasks.tolist()
