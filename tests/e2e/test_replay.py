"""`bots replay`: the table is read exactly, and arms played through a real server are as effective as theory says."""

import importlib.util
import itertools
import math
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import bots as library
from bots.cli.private_server import private_server
from bots.replay.epochs import count_distinct, shuffled_epochs
from bots.replay.figures import figures
from bots.replay.simulation import ARMS, Arm, Columns, Setting, Trace, nearest, play, start
from bots.replay.style import SMOOTHED_STEPS, smooth
from bots.replay.table import PassRates, policy_at, read, squeeze
from tests.api.service import Service, serving

LIVECODEBENCH = Path(__file__).parents[3] / "shared" / "data" / "livecodebench_400x45.csv"
# Without rest, so that the ratio shows how well the arms predict.
SETTING = Setting(batch=16, rollouts=8, steps=60, rest=0.0)


def margin(outcomes: int) -> float:
    """Returns by how much the mean of so many outcomes in [0, 1] exceeds the mean of their conditional expectations
    with probability below 1e-9 (Azuma and Hoeffding; each may depend on those before).
    """
    return math.sqrt(math.log(1e9) / (2 * outcomes))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ------------------------------------------------------------------------------------------------ the table


def test_a_table_is_read_as_it_stands(tmp_path: Path) -> None:
    """Leading texts and running numbers are labels, all columns after them are models, whole numbers included."""
    table = read(written(tmp_path / "t.csv", "task,n,kind,small,large\na,7,x,0,0.25\nb,8,y,0.5,1\n"))
    assert table.labels == {"task": ["a", "b"], "n": ["7", "8"], "kind": ["x", "y"]}
    assert table.models == ("small", "large")
    assert table.rates.tolist() == [[0.0, 0.25], [0.5, 1.0]]
    assert len(table) == 2


def test_parquet_and_json_lines_are_read_alike(tmp_path: Path) -> None:
    """A table says the same in every format."""
    table = {"task": ["a", "b"], "small": [0.0, 0.5], "large": [0.25, 1.0]}
    pa.parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    lines = '{"task": "a", "small": 0, "large": 0.25}\n{"task": "b", "small": 0.5, "large": 1}\n'
    for path in (tmp_path / "t.parquet", written(tmp_path / "t.jsonl", lines)):
        assert read(path).models == ("small", "large")
        assert read(path).rates.tolist() == [[0.0, 0.25], [0.5, 1.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task,a,b\nx,0.1,0.2\ny,0.3,1.5\n", "column b, row 2: got 1.5, must be between 0 and 1"),
        ("task,a,b\nx,0.1,0.2\ny,-0.3,0.5\n", "column a, row 2: got -0.3, must be between 0 and 1"),
        ("task,a,b\nx,0.1,\ny,0.3,0.5\n", "column b, row 1: got nothing, must be between 0 and 1"),
        ("task,a,b\nx,0.1,nan\ny,0.3,0.5\n", "column b, row 1: got nothing, must be between 0 and 1"),
        ("task,a,note,b\nx,0.1,good,0.5\n", "column note: got text, must be a model's pass rates"),
        ("task,a\nx,0.1\n", "got 1 columns of pass rates, must be at least 2, each a model"),
        ("task,kind\nx,y\n", "got 0 columns of pass rates, must be at least 2, each a model"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The error names the column, the row and the rule."""
    with pytest.raises(ValueError, match=re.escape(message)):
        read(written(tmp_path / "t.csv", text))


def test_another_ending_is_refused(tmp_path: Path) -> None:
    """The ending of a file says its format."""
    with pytest.raises(ValueError, match=re.escape("must end in .csv, .parquet or .jsonl")):
        read(written(tmp_path / "t.txt", "a,b\n0,1\n"))


def test_a_reference_is_a_name_or_a_place() -> None:
    """References are named, or counted from 1 at the weak end and from -1 at the strong."""
    table = PassRates(("tiny", "small", "large", "7"), np.zeros((1, 4)), {})
    assert [table.place(model) for model in ("tiny", "1", "-1", "-4", "large", "4")] == [0, 0, 3, 0, 2, 3]
    assert table.place("7") == 3
    for model in ("0", "5", "-5", "huge"):
        with pytest.raises(ValueError, match="must be a model of the table, 1 to 4, or -1 to -4"):
            table.place(model)


def test_tags_are_a_column_or_the_first_whose_texts_repeat() -> None:
    """Without a name, the first column with several texts, each for two tasks on average, is the tags."""
    labels = {"task": ["a", "b", "c", "d"], "set": ["s"] * 4, "kind": ["x", "y", "x", "y"]}
    table = PassRates(("small", "large"), np.zeros((4, 2)), labels)
    assert table.tags(None) == labels["kind"]
    assert table.tags("task") == labels["task"]
    assert PassRates(("small", "large"), np.zeros((4, 2)), {"task": labels["task"]}).tags(None) is None
    with pytest.raises(ValueError, match=re.escape("tags: got 'level', must be a column before the models")):
        table.tags("level")


def test_the_policy_goes_along_the_models() -> None:
    """The policy starts as the weakest model, ends as the strongest, and is between two models in proportion."""
    rates = np.array([[0.0, 0.5, 0.75], [1.0, 0.0, 0.5]])
    assert policy_at(rates, 0, 5).tolist() == [0.0, 1.0]
    assert policy_at(rates, 1, 5).tolist() == [0.25, 0.5]
    assert policy_at(rates, 2, 5).tolist() == [0.5, 0.0]
    assert policy_at(rates, 3, 5).tolist() == [0.625, 0.25]
    assert policy_at(rates, 4, 5).tolist() == [0.75, 0.5]
    assert policy_at(rates, 0, 1).tolist() == [0.0, 1.0]


def test_squeezing_keeps_proportions() -> None:
    """Squeezing maps 0, 1/2 and 1 onto the margin, 1/2 and 1 less the margin."""
    assert squeeze(np.array([0.0, 0.5, 1.0]), 0.125).tolist() == [0.125, 0.5, 0.875]


# ------------------------------------------------------------------------------------------------ the figures


def trace(ratio: list[float], distinct: list[int], correlation: list[float]) -> Trace:
    return Trace(np.array(ratio), np.array(distinct), np.array(correlation))


def test_figures_are_means_over_steps_and_seeds() -> None:
    """The ratio is the mean of the seeds' means, its error their standard deviation over sqrt(seeds)."""
    seeds = [trace([0.0, 0.5], [2, 3], [math.nan, 0.5]), trace([0.5, 1.0], [2, 4], [math.nan, 1.0])]
    row = figures(seeds, 8)
    assert (row.ratio.mean, row.distinct.mean, row.coverage.mean, row.correlation.mean) == (0.5, 3.5, 0.4375, 0.75)
    assert row.ratio.error == pytest.approx(0.25, rel=1e-12)  # seeds' means 0.25 and 0.75


def test_an_arm_without_posterior_has_no_correlation() -> None:
    """One seed has no standard error, the oracle no posterior."""
    row = figures([trace([0.5], [1], [math.nan])], 2)
    assert row.ratio.mean == 0.5
    assert np.isnan([row.ratio.error, row.correlation.mean]).all()


def test_an_epoch_has_every_task_once() -> None:
    """Each epoch is all tasks, but for those that do not fill a batch, in a new order."""
    batches = list(itertools.islice(shuffled_epochs(np.random.default_rng(0), 30, 7), 8))
    first, second = np.concatenate(batches[:4]), np.concatenate(batches[4:])
    assert len(set(first.tolist())) == len(set(second.tolist())) == 28
    assert set(first.tolist()) | set(second.tolist()) <= set(range(30))
    assert first.tolist() != second.tolist()


def test_distinct_tasks_are_counted_once() -> None:
    """A task that is selected again does not count."""
    assert count_distinct([np.array([1, 2]), np.array([2, 3]), np.array([1, 3])]).tolist() == [2, 3, 3]


def test_smoothing_keeps_a_constant() -> None:
    """A constant stays constant, also at the ends and with fewer steps than the window."""
    for steps in (1, 3, SMOOTHED_STEPS, 4 * SMOOTHED_STEPS):
        assert smooth(np.full(steps, 0.25)) == pytest.approx(np.full(steps, 0.25), rel=1e-12)


def test_the_oracle_takes_the_nearest() -> None:
    """The oracle takes the pass rates nearest to the target; of equally near ones each is taken at some time."""
    rates = np.array([0.5, 0.1, 0.75, 0.25, 0.9])
    rng = np.random.default_rng(0)
    taken = [frozenset(nearest(rng, rates, 0.5, 2).tolist()) for _ in range(64)]
    # With a fair choice, one side is missing in 64 draws with probability 2 ** -63.
    assert set(taken) == {frozenset({0, 2}), frozenset({0, 3})}


# ------------------------------------------------------------------------------------------------ through a server


def graded(tasks: int) -> np.ndarray:
    """Returns `[tasks, 5]` pass rates of a policy that grows, on tasks from trivial to hopeless."""
    difficulty = np.linspace(-12, 12, tasks)
    ability = np.linspace(-3, 3, 5)
    return np.asarray(1 / (1 + np.exp(difficulty[:, None] - ability)))


def effective(rates: np.ndarray, rollouts: int) -> np.ndarray:
    """Returns the probability that a task's observed pass rate is strictly between 0 and 1."""
    return np.asarray(1 - rates**rollouts - (1 - rates) ** rollouts)


def played(client: library.Client, arm: Arm, rates: np.ndarray, columns: Columns, setting: Setting, seed: int) -> Trace:
    """Returns the trace of a fresh run of an arm."""
    run = start(client, f"table-{ARMS.index(arm)}", arm, columns, setting, seed)
    return play(rates, setting, arm, run, seed, lambda: None)


def test_arms_are_ordered_by_what_they_know(redis_url: str) -> None:
    """A shuffled epoch is as effective as expected, both models are more, and none is more than the oracle."""
    rates = graded(300)
    outcomes = SETTING.steps * SETTING.batch
    by_step = np.array([effective(policy_at(rates, step, SETTING.steps), SETTING.rollouts) for step in range(60)])
    expected = by_step.mean()
    best = np.sort(by_step, axis=1)[:, -SETTING.batch :].mean()
    columns = Columns(300, rates[:, 0], rates[:, -1], ["easy"] * 150 + ["hard"] * 150)
    with serving(redis_url) as service, library.Client(service.address, timeout=20, strict=True) as client:
        traces = {arm: played(client, arm, rates, columns, SETTING, 0) for arm in ARMS}
    ratio = {arm: trace.ratio.mean() for arm, trace in traces.items()}
    # A task's place in a permutation moves another one: McDiarmid with differences of 2.
    assert abs(ratio[Arm("uniform")] - expected) < 2 * margin(outcomes)
    for arm in ARMS[1:-1]:
        assert ratio[arm] > expected + margin(outcomes), arm
        assert ratio[arm] < best + margin(outcomes), arm
        assert np.nanmean(traces[arm].correlation) > 0.5
    assert ratio[Arm("oracle")] > best - margin(outcomes)
    assert best > 0.9


def test_rest_makes_coverage(redis_url: str) -> None:
    """With rest 1 no task comes back before half an epoch of others, so more tasks are evaluated."""
    rates = graded(300)
    columns = Columns(300, rates[:, 0], rates[:, -1], None)
    distinct = {}
    with serving(redis_url) as service, library.Client(service.address, timeout=20, strict=True) as client:
        for rest in (0.0, 1.0):
            setting = replace(SETTING, steps=16, rest=rest)
            run = start(client, f"rest-{rest:g}", Arm("interpolation", references=True), columns, setting, 0)
            distinct[rest] = play(rates, setting, Arm("interpolation"), run, 0, lambda: None).distinct[-1]
    assert distinct[0.0] < distinct[1.0]
    # 256 evaluations; for the first 150 and some no task has rested long enough to come back.
    assert distinct[1.0] >= 150


def test_a_seed_gives_the_same_trace(redis_url: str) -> None:
    """Same table, setting and seed: the same ratios and the same posteriors."""
    rates = graded(60)
    setting = replace(SETTING, steps=10)
    columns = Columns(60, rates[:, 0], rates[:, -1], None)
    arm = Arm("item_response", references=True)
    traces = []
    with serving(redis_url) as service, library.Client(service.address, timeout=20, strict=True) as client:
        for dataset in ("one", "two"):
            run = start(client, dataset, arm, columns, setting, 3)
            traces.append(play(rates, setting, arm, run, 3, lambda: None))
    assert traces[0].ratio.tolist() == traces[1].ratio.tolist()
    assert traces[0].distinct.tolist() == traces[1].distinct.tolist()
    assert traces[0].correlation.tolist() == traces[1].correlation.tolist()


@pytest.mark.skipif(not LIVECODEBENCH.exists(), reason=f"no {LIVECODEBENCH}")
def test_the_real_table_gives_known_ratios(redis_url: str) -> None:
    """On 200 steps of LiveCodeBench the ratios without rest are the known ones, to within chance."""
    table = read(LIVECODEBENCH)
    assert table.rates.shape == (400, 45)
    setting = replace(SETTING, rollouts=16, steps=200)
    columns = Columns(400, table.rates[:, table.place("5")], table.rates[:, table.place("-5")], table.tags(None))
    assert columns.tags is not None
    assert set(columns.tags) == {"easy", "medium", "hard"}
    known = {
        Arm("uniform"): 0.43,
        Arm("interpolation"): 0.49,
        Arm("interpolation", references=True): 0.74,
        Arm("oracle"): 0.99,
    }
    with serving(redis_url) as service, library.Client(service.address, timeout=20, strict=True) as client:
        for arm, ratio in known.items():
            traces = [played(client, arm, squeeze(table.rates, 0.02), columns, setting, seed) for seed in range(2)]
            # The known ratios are rounded to 0.01.
            assert abs(figures(traces, 400).ratio.mean - ratio) < 2 * margin(2 * 200 * 16) + 0.005, arm


# ------------------------------------------------------------------------------------------------ the command


def bots(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the `bots` command as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "bots.cli", *map(str, arguments)], capture_output=True, text=True, timeout=250
    )


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A small table."""
    rows = [f"t{task},{','.join(f'{rate:.4f}' for rate in rates)}" for task, rates in enumerate(graded(40))]
    return written(tmp_path / "table.csv", "\n".join(["task,a,b,c,d,e", *rows]) + "\n")


def test_replay_needs_nothing_but_a_table(table: Path, tmp_path: Path) -> None:
    """With a table alone the command starts a server of its own, prints the arms and writes the picture."""
    picture = tmp_path / "new" / "replay.png"
    done = bots(
        "replay", table, "--weak", 1, "--strong", -1, "--batch", 4, "--steps", 6, "--seeds", 2, "--out", picture
    )
    assert done.returncode == 0, done.stderr
    for word in ("5 models", "interpolation + references", "item_response", "oracle", "does not react to training"):
        assert word in done.stdout
    assert is_png(picture)


def test_replay_leaves_nothing_on_a_server(table: Path, tmp_path: Path, redis_url: str) -> None:
    """On a given server it deletes the datasets that it made."""
    options = ("--weak", "b", "--strong", "d", "--batch", 4, "--steps", 3, "--seeds", 1, "--out", tmp_path / "r.png")
    with serving(redis_url) as service, library.Client(service.address) as client:
        done = bots("replay", table, "--server", service.address, *options)
        assert done.returncode == 0, done.stderr
        assert list(client.list_datasets()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weak", "-1", "--strong", "1"), "models go from weakest to strongest"),
        (("--weak", "1", "--strong", "6"), "reference: got '6', must be a model of the table"),
        (("--weak", "1", "--strong", "-1", "--batch", "41"), "batch: got 41, must be at most 40"),
    ],
)
def test_a_wrong_option_is_one_line(table: Path, options: tuple[str, ...], message: str) -> None:
    """Wrong options are one line of error, before any server starts."""
    done = bots("replay", table, *options)
    assert done.returncode == os.EX_USAGE
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------ the private server


def listening(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_private_server_ends_with_its_command() -> None:
    """It serves inside the context and not after it."""
    with private_server() as address:
        assert listening(address)
    assert not listening(address)


def test_a_private_server_ends_when_its_command_is_killed() -> None:
    """A command that is killed leaves no server behind."""
    script = """
import time
from bots.cli.private_server import private_server
with private_server() as address:
    print(address, flush=True)
    time.sleep(250)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        address = command.stdout.readline().strip()
        assert listening(address)
        os.kill(command.pid, signal.SIGKILL)
    Service.wait_until(lambda: not listening(address), 60)


def test_without_bots_server_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """If bots-server is not installed, the message says so."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"bots-server.* is not installed here"), private_server():
        pass
