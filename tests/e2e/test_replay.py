"""`bots replay`: the table is read exactly, and what is played through a real server is as good as theory says."""

import importlib.util
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

from bots.cli.private_server import private_server
from bots.replay.figures import figures
from bots.replay.plots import SMOOTHED_STEPS, smooth
from bots.replay.simulation import Arm, Setting, Trace, nearest, play, start, true_capability
from bots.replay.table import PassRates, policy_at, read, squeeze
from tests.api.service import Service, serving

LIVECODEBENCH = Path(__file__).parents[3] / "shared" / "data" / "livecodebench_400x45.csv"
SETTING = Setting(batch=16, rollouts=8, steps=60, target=0.5, forgetting=0.1, implicit_weight=0.1)


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
    """Leading texts and running numbers are skipped, all columns after them are models, whole numbers included."""
    table = read(written(tmp_path / "t.csv", "task,n,kind,small,large\na,7,x,0,0.25\nb,8,y,0.5,1\n"))
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
        ("task,a,b\nx,0.1,0.2\ny,0.3,1.5\n", "column b, row 2: 1.5, must be a pass rate in [0, 1]"),
        ("task,a,b\nx,0.1,0.2\ny,-0.3,0.5\n", "column a, row 2: -0.3, must be a pass rate in [0, 1]"),
        ("task,a,b\nx,0.1,\ny,0.3,0.5\n", "column b, row 1: nothing, must be a pass rate in [0, 1]"),
        ("task,a,b\nx,0.1,nan\ny,0.3,0.5\n", "column b, row 1: nothing, must be a pass rate in [0, 1]"),
        ("task,a,note,b\nx,0.1,good,0.5\n", "column note: not numbers, must be a model's pass rates"),
        ("task,a\nx,0.1\n", "1 columns of pass rates, must be at least 2, each a model"),
        ("task,kind\nx,y\n", "0 columns of pass rates, must be at least 2, each a model"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """What is no pass rate is named with its column, row and the rule."""
    with pytest.raises(ValueError, match=re.escape(message)):
        read(written(tmp_path / "t.csv", text))


def test_another_ending_is_refused(tmp_path: Path) -> None:
    """A file is known by its ending."""
    with pytest.raises(ValueError, match=re.escape("must end in .csv, .parquet or .jsonl")):
        read(written(tmp_path / "t.txt", "a,b\n0,1\n"))


def test_a_reference_is_a_name_or_a_place() -> None:
    """References are named, or counted from 1 at the weak end and from -1 at the strong."""
    table = PassRates(("tiny", "small", "large", "7"), np.zeros((1, 4)))
    assert [table.place(model) for model in ("tiny", "1", "-1", "-4", "large", "4")] == [0, 0, 3, 0, 2, 3]
    assert table.place("7") == 3
    for model in ("0", "5", "-5", "huge"):
        with pytest.raises(ValueError, match="must be a model of the table, or 1 to 4, or -1 to -4"):
            table.place(model)


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


def trace(ratio: list[float], error: list[float], correlation: list[float]) -> Trace:
    nothing = np.zeros(0)
    return Trace(np.array(ratio), np.array(error), np.array(correlation), nothing, nothing, nothing)


def test_figures_are_means_over_steps_and_seeds() -> None:
    """The ratio is the mean of the seeds' means, its error their standard deviation over sqrt(seeds)."""
    row = figures([trace([0.0, 0.5], [0.5, 0.25], [math.nan, 0.5]), trace([0.5, 1.0], [0.25, 0.0], [math.nan, 1.0])])
    assert (row.ratio, row.absolute_error, row.correlation) == (0.5, 0.25, 0.75)
    assert row.ratio_error == pytest.approx(0.25, rel=1e-12)  # seeds' means 0.25 and 0.75


def test_what_is_not_known_is_nan() -> None:
    """One seed has no standard error, the oracle no posterior."""
    row = figures([trace([0.5], [], [])])
    assert row.ratio == 0.5
    assert np.isnan([row.ratio_error, row.absolute_error, row.correlation]).all()


def test_smoothing_keeps_a_constant() -> None:
    """A constant stays what it is, at the ends too and where there are fewer steps than the window."""
    for steps in (1, 3, SMOOTHED_STEPS, 4 * SMOOTHED_STEPS):
        assert smooth(np.full(steps, 0.25)) == pytest.approx(np.full(steps, 0.25), rel=1e-12)


def test_the_oracle_takes_the_nearest() -> None:
    """The oracle takes the pass rates nearest to the target; of equally near ones each is taken at some time."""
    rates = np.array([0.5, 0.1, 0.75, 0.25, 0.9])
    rng = np.random.default_rng(0)
    taken = [frozenset(nearest(rng, rates, 0.5, 2).tolist()) for _ in range(64)]
    # With a fair choice, one side is missing in 64 draws with probability 2 ** -63.
    assert set(taken) == {frozenset({0, 2}), frozenset({0, 3})}


def test_true_capability_is_0_at_the_weak_and_1_at_the_strong_reference() -> None:
    """Capability is where the mean pass rate stands between those of the references."""
    rates = np.array([[0.0, 0.5, 1.0], [0.25, 0.5, 0.75]])
    setting = replace(SETTING, steps=11)
    assert true_capability(rates, rates[:, 0], rates[:, 2], setting) == pytest.approx([0.0, 0.5, 1.0], rel=1e-12)


# ------------------------------------------------------------------------------------------------ through a server


def graded(tasks: int) -> np.ndarray:
    """Returns `[tasks, 5]` pass rates of a policy that grows, on tasks from trivial to hopeless."""
    difficulty = np.linspace(-12, 12, tasks)
    ability = np.linspace(-3, 3, 5)
    return np.asarray(1 / (1 + np.exp(difficulty[:, None] - ability)))


def effective(rates: np.ndarray, rollouts: int) -> np.ndarray:
    """Returns the probability that a task's observed pass rate is strictly between 0 and 1."""
    return np.asarray(1 - rates**rollouts - (1 - rates) ** rollouts)


def test_the_arms_come_in_the_order_of_what_they_know(redis_url: str) -> None:
    """Uniform batches are as effective as expected, BOTS' are more, and none are more than the oracle's."""
    rates = graded(300)
    outcomes = SETTING.steps * SETTING.batch
    by_step = np.array([effective(policy_at(rates, step, SETTING.steps), SETTING.rollouts) for step in range(60)])
    expected = by_step.mean()
    best = np.sort(by_step, axis=1)[:, -SETTING.batch :].mean()
    arms: tuple[Arm, ...] = ("uniform", "BOTS", "oracle")
    with serving(redis_url) as service:
        service.client.create_dataset("graded", weak=rates[:, 0], strong=rates[:, -1])
        ratio = {}
        for arm in arms:
            run = start(service.client, "graded", arm, SETTING, 0)
            ratio[arm] = play(rates, SETTING, run, 0, lambda: None).ratio.mean()
    assert abs(ratio["uniform"] - expected) < margin(outcomes)
    assert ratio["BOTS"] > expected + margin(outcomes)
    assert ratio["BOTS"] < best + margin(outcomes)
    assert ratio["oracle"] > best - margin(outcomes)
    assert best > 0.9


def test_a_seed_gives_the_same_trace(redis_url: str) -> None:
    """Same table, setting and seed: the same ratios and the same posteriors."""
    rates = graded(60)
    setting = replace(SETTING, steps=10)
    traces = []
    with serving(redis_url) as service:
        for dataset in ("one", "two"):
            service.client.create_dataset(dataset, weak=rates[:, 0], strong=rates[:, -1])
            traces.append(play(rates, setting, start(service.client, dataset, "BOTS", setting, 3), 3, lambda: None))
    assert traces[0].ratio.tolist() == traces[1].ratio.tolist()
    assert traces[0].absolute_error.tolist() == traces[1].absolute_error.tolist()
    assert traces[0].histogram.sum(axis=1) == pytest.approx([1.0, 1.0], rel=1e-12)
    assert math.isnan(traces[0].capability[0])
    assert not math.isnan(traces[0].capability[1])


@pytest.mark.skipif(not LIVECODEBENCH.exists(), reason=f"no {LIVECODEBENCH}")
def test_the_real_table_gives_what_is_known_of_it(redis_url: str) -> None:
    """On 200 steps of LiveCodeBench the arms' ratios are 0.43, 0.49, 0.74 and 0.99, to within what chance explains."""
    table = read(LIVECODEBENCH)
    assert table.rates.shape == (400, 45)
    weak, strong = table.rates[:, table.place("5")], table.rates[:, table.place("-5")]
    setting = replace(SETTING, rollouts=16, steps=200)
    known: dict[Arm, float] = {"uniform": 0.43, "explicit only": 0.49, "BOTS": 0.74, "oracle": 0.99}
    with serving(redis_url) as service:
        service.client.create_dataset("livecodebench", weak=weak, strong=strong)
        for arm, ratio in known.items():
            runs = [start(service.client, "livecodebench", arm, setting, seed) for seed in range(2)]
            traces = [
                play(squeeze(table.rates, 0.02), setting, run, seed, lambda: None) for seed, run in enumerate(runs)
            ]
            # What is known is rounded to 0.01.
            assert abs(figures(traces).ratio - ratio) < margin(2 * 200 * 16) + 0.005, arm


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
    for word in ("5 models", "uniform", "explicit only", "BOTS", "oracle"):
        assert word in done.stdout
    assert is_png(picture)


def test_replay_leaves_nothing_on_a_server(table: Path, tmp_path: Path, redis_url: str) -> None:
    """Through a given server it plays under a name of its own, and takes that away."""
    options = ("--weak", "b", "--strong", "d", "--batch", 4, "--steps", 3, "--seeds", 1, "--out", tmp_path / "r.png")
    with serving(redis_url) as service:
        done = bots("replay", table, "--server", service.address, *options)
        assert done.returncode == 0, done.stderr
        assert service.client.list_datasets() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weak", "-1", "--strong", "1"), "models go from weakest to strongest"),
        (("--weak", "1", "--strong", "6"), "reference: '6', must be a model of the table"),
        (("--weak", "1", "--strong", "-1", "--batch", "41"), "batch: 41, must be at most the 40 tasks"),
    ],
)
def test_a_wrong_option_is_one_line(table: Path, options: tuple[str, ...], message: str) -> None:
    """What cannot be played is said in one line, before any server starts."""
    done = bots("replay", table, *options)
    assert done.returncode == 1
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
    """Where bots-server is not installed, the message says what to do."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"bots-server.* is not installed here"), private_server():
        pass
