"""The `bots` command, through the real server and a real Redis."""

from __future__ import annotations

import csv
import gzip
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from rich.console import Console

import bots
from bots.cli import __main__ as command
from bots.cli.glance import glance
from bots.cli.watch import Rate
from tests.api.service import Service

ROWS = "name,kind,small,large\n007,x,0.25,0.75\n008,y,,\n009,x,0.5,1\n"


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out)))


Bots = Callable[..., Done]


@pytest.fixture
def call(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bots:
    """Runs `bots` with arguments in this process, which is what the installed command does in its own."""
    monkeypatch.setenv("BOTS_SERVER", service.address)
    monkeypatch.setenv("BOTS_TIMEOUT", "20")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["bots", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A CSV of three tasks."""
    file = tmp_path / "tasks.csv"
    file.write_text(ROWS)
    return file


OPTIONS = ("--weak", "small", "--strong", "large", "--id", "name", "--tag", "kind")


def as_csv(tasks: Path) -> Path:
    return tasks


def as_gzip(tasks: Path) -> Path:
    file = tasks.with_suffix(".csv.gz")
    file.write_bytes(gzip.compress(tasks.read_bytes()))
    return file


def as_parquet(tasks: Path) -> Path:
    file = tasks.with_suffix(".parquet")
    small, large = pa.array([0.25, None, 0.5], pa.float32()), pa.array([0.75, None, 1.0], pa.float32())
    columns = {
        "name": ["007", "008", "009"],
        "kind": ["x", "y", "x"],
        "small": small,
        "large": large,
        "more": [[1]] * 3,
    }
    pa.parquet.write_table(pa.table(columns), file)
    return file


def as_json_lines(tasks: Path) -> Path:
    file = tasks.with_suffix(".jsonl")
    file.write_text(
        '{"name": "007", "kind": "x", "small": 0.25, "large": 0.75, "more": {"deep": []}}\n'
        '{"name": "008", "kind": "y"}\n'
        '{"name": "009", "kind": "x", "small": 0.5, "large": 1}\n'
    )
    return file


@pytest.mark.parametrize("form", [as_csv, as_gzip, as_parquet, as_json_lines])
def test_a_dataset_comes_from_a_file(call: Bots, service: Service, tasks: Path, form: Callable[[Path], Path]) -> None:
    """CSV, Parquet and JSON lines of the same table make the same dataset; ids keep their zeros."""
    expected = service.client.create_dataset(
        "expected", weak=[0.25, None, 0.5], strong=[0.75, None, 1], ids=["007", "008", "009"], tags=["x", "y", "x"]
    )
    done = call("dataset", "create", "letters", form(tasks), *OPTIONS)
    assert (done.code, done.out) == (0, "letters: 3 tasks, 2 referenced, 3 strata\n")
    assert service.client.get_dataset("letters").fingerprint == expected.fingerprint


def test_a_dataset_may_be_just_rows(call: Bots, service: Service, tasks: Path) -> None:
    """Without options the rows of the file are counted; again is no error; a grid reaches the server."""
    for _ in range(2):
        assert call("dataset", "create", "rows", tasks).code == 0
    assert service.client.get_dataset("rows").size == 3
    assert call("dataset", "create", "coarse", tasks, *OPTIONS, "--grid", 0.25).code == 0
    assert service.client.get_dataset("coarse").reference_grid == 0.25


def test_datasets_are_listed_shown_and_deleted(call: Bots, tasks: Path) -> None:
    """What is there can be seen and removed; a dataset with runs goes only with them."""
    call("dataset", "create", "letters", tasks, *OPTIONS)
    (row,) = call("dataset", "list").rows
    assert (row["name"], row["tasks"], row["tags"], row["ids"]) == ("letters", "3", "2", "True")
    assert "tag x            2" in call("dataset", "show", "letters").out
    call("run", "create", "letters/one")
    refused = call("dataset", "delete", "letters", "--yes")
    assert refused.code == 1
    assert call("dataset", "delete", "letters", "--runs", "--yes").out == "letters is deleted\n"
    assert call("dataset", "list").rows == []


def test_runs_are_created_changed_and_deleted(call: Bots, service: Service) -> None:
    """Hyperparameters and what is kept are options; a fork names run and version."""
    service.client.create_dataset("letters", size=26)
    made = call("run", "create", "letters/one", "--target", 0.25, "--greedy", "--history", 500)
    assert made.code == 0
    info = service.client.run("letters", "one").info()
    assert (info.hyperparameters.target, info.hyperparameters.greedy, info.retention.history) == (0.25, True, 500)
    assert call("run", "update", "letters/one", "--target", 0.75, "--no-greedy").code == 0
    assert service.client.run("letters", "one").info().hyperparameters.target == 0.75
    assert call("run", "create", "letters/two", "--fork-from", "one@0").code == 0
    one, two = call("run", "list", "letters").rows
    assert (one["name"], one["version"], one["target"], one["forked from"]) == ("one", "1", "0.75", "")
    assert (two["name"], two["target"], two["forked from"]) == ("two", "0.25", "one@0")
    assert call("run", "delete", "letters/two", "--yes").code == 0
    assert len(call("run", "list", "letters").rows) == 1


@pytest.mark.parametrize("verb", ["create", "update"])
def test_every_hyperparameter_is_an_option(call: Bots, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bots run create` and `update` offer each hyperparameter that there is."""
    monkeypatch.setenv("COLUMNS", "200")
    said = call("run", verb, "--help").out
    for field in fields(bots.Hyperparameters):
        assert f"--{field.name.replace('_', '-')}" in said


def test_the_loop_by_hand(call: Bots, service: Service, tmp_path: Path) -> None:
    """Select, report and posteriors work from the shell, by index or id, from arguments or a file."""
    service.client.create_dataset("letters", ids=[chr(ord("a") + task) for task in range(26)])
    run = service.client.create_run("letters", "one")
    chosen = call("select", "letters/one", 4, "--seed", 1, "--lease-seconds", 60)
    assert [row["task"] for row in chosen.rows] == [str(ord(row["id"]) - ord("a")) for row in chosen.rows]
    assert len(chosen.rows) == 4
    selection = chosen.err.split()[-1]
    assert call("report", "letters/one", "3=1/4", "4=2.5/4", "--selection", selection).out == "version 1\n"
    assert call("report", "letters/one", "a=1/4", "b=4/4").out == "version 2\n"
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_text("task,successes,rollouts\n5,1,4\n6,0,4\n")
    assert call("report", "letters/one", "--csv", outcomes).out == "version 3\n"
    outcomes.write_text("id,successes,rollouts\ng,1,4\n")
    assert call("report", "letters/one", "--csv", outcomes).out == "version 4\n"
    alpha, beta = run.posteriors()
    assert call("posteriors", "letters/one", "--out", tmp_path / "p.npz").out.endswith("26 tasks\n")
    with np.load(tmp_path / "p.npz") as written:
        np.testing.assert_array_equal(written["alpha"], alpha)
        np.testing.assert_array_equal(written["beta"], beta)
    assert call("posteriors", "letters/one", "--out", tmp_path / "p.csv").code == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [float(row["alpha"]) for row in rows] == alpha.tolist()
    assert [int(row["task"]) for row in rows] == list(range(26))
    assert len(run.select(26)) == 26  # the lease is released


def outcomes_csv(folder: Path, ids: list[str]) -> Path:
    file = folder / "outcomes.csv"
    file.write_text("\n".join(["id,successes,rollouts", *(f"{task_id},4,4" for task_id in ids)]))
    return file


def outcomes_parquet(folder: Path, ids: list[str]) -> Path:
    file = folder / "outcomes.parquet"
    pa.parquet.write_table(pa.table({"rollouts": [4] * len(ids), "id": ids, "successes": [4.0] * len(ids)}), file)
    return file


def outcomes_json_lines(folder: Path, ids: list[str]) -> Path:
    file = folder / "outcomes.jsonl"
    file.write_text("\n".join(f'{{"id": "{task_id}", "successes": 4, "rollouts": 4}}' for task_id in ids))
    return file


@pytest.mark.parametrize("form", [outcomes_csv, outcomes_parquet, outcomes_json_lines])
def test_outcomes_in_a_file_are_credited_to_the_ids_as_written(
    call: Bots, service: Service, tmp_path: Path, form: Callable[[Path, list[str]], Path]
) -> None:
    """An id that looks like a number is an id all the same: 007 and 010 are not 7 and 10."""
    ids = ["007", "010", "7", "10"]
    service.client.create_dataset("agents", ids=ids)
    run = service.client.create_run("agents", "one")
    assert call("report", "agents/one", "--csv", form(tmp_path, ["007", "010"])).out == "version 1\n"
    (event,) = run.events()
    assert isinstance(event.kind, bots.ReportEvent)
    assert [ids[task] for task in event.kind.tasks] == ["007", "010"]


def test_outcomes_in_a_parquet_file_may_be_by_index(call: Bots, service: Service, tmp_path: Path) -> None:
    """A Parquet file of outcomes does what the CSV file does; without `task` and `id` it says what it wants."""
    service.client.create_dataset("letters", size=26)
    run = service.client.create_run("letters", "one")
    file = tmp_path / "outcomes.parquet"
    columns = {"task": [5, 6], "successes": [1.0, 0.0], "rollouts": [4, 4]}
    pa.parquet.write_table(pa.table(columns), file)
    assert call("report", "letters/one", "--csv", file).out == "version 1\n"
    (event,) = run.events()
    assert isinstance(event.kind, bots.ReportEvent)
    assert (event.kind.tasks.tolist(), event.kind.successes.tolist()) == ([5, 6], [1, 0])
    del columns["task"]
    pa.parquet.write_table(pa.table(columns), file)
    assert call("report", "letters/one", "--csv", file).err == f"error: {file}: no column 'task' or 'id'\n"


def test_the_history_from_the_shell(call: Bots, service: Service) -> None:
    """Checkpoints are made, listed, gone back to and deleted; the events tell it."""
    service.client.create_dataset("letters", size=26)
    service.client.create_run("letters", "one")
    call("--job", "me", "report", "letters/one", "3=1/4")
    assert call("run", "checkpoint", "letters/one", "early", "--ttl-seconds", 60).out == "early: version 1\n"
    call("run", "update", "letters/one", "--target", 0.3)
    assert call("run", "restore", "letters/one", "early").out == "letters/one: version 3\n"
    assert call("run", "restore", "letters/one", "--version", 0).out == "letters/one: version 4\n"
    assert [row["name"] for row in call("run", "checkpoints", "letters/one").rows] == ["early"]
    assert [(row["job"], row["event"]) for row in call("run", "events", "letters/one").rows] == [
        ("me", "report of 1 tasks: 1 of 4 rollouts"),
        ("cli", "changed target=0.3"),
        ("cli", "restored version 1 (early)"),
        ("cli", "restored version 0"),
    ]
    assert call("run", "delete-checkpoint", "letters/one", "early").code == 0
    assert call("run", "checkpoints", "letters/one").rows == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset", "show", "nowhere"], "nowhere"),
        (["dataset", "create", "x", "no.csv"], "No such file"),
        (
            ["dataset", "create", "x", "{tasks}", "--weak", "tiny"],
            "no column 'tiny'; there are name, kind, small, large",
        ),
        (["dataset", "create", "x", "{tasks}", "--weak", "kind", "--strong", "large"], "kind"),
        (["dataset", "create", "x", "tasks.xlsx"], "must end in .csv"),
        (["dataset", "create", "X!", "{tasks}"], "[a-z0-9]"),
        (["run", "create", "letters/one", "--target", "7"], "target"),
        (["run", "update", "letters/one"], "hyperparameters"),
        (["run", "show", "letters"], "run: 'letters', must be written DATASET/RUN"),
        (["select", "letters/one", "1000"], "batch_size"),
        (["report", "letters/one", "3"], "'3': must be TASK=SUCCESSES/ROLLOUTS"),
        (["report", "letters/one", "3=1/x"], "'3=1/x': must be TASK=SUCCESSES/ROLLOUTS"),
        (["report", "letters/one", "3=5/4"], "successes"),
        (["report", "letters/one"], "give outcomes"),
        (["posteriors", "letters/one", "--out", "p.txt"], "must end in .csv or .npz"),
        (["run", "restore", "letters/one"], "exactly one of checkpoint and version"),
    ],
)
def test_errors_are_one_clear_line(
    call: Bots, service: Service, tasks: Path, arguments: list[str], message: str
) -> None:
    """What goes wrong is one line on the standard error and exit status 1, never a traceback."""
    service.client.create_dataset("letters", size=26)
    if arguments[:2] != ["run", "create"]:
        service.client.create_run("letters", "one")
    done = call(*(argument.format(tasks=tasks) if "{" in argument else argument for argument in arguments))
    assert done.code == 1
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_server_that_is_away_is_one_clear_line() -> None:
    """The installed command says whom it could not reach, and within its deadline."""
    environment = os.environ | {"BOTS_SERVER": "127.0.0.1:1", "BOTS_TIMEOUT": "0.3"}
    done = subprocess.run(
        [sys.executable, "-m", "bots.cli", "dataset", "list"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: 127.0.0.1:1: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_watch_ends_with_ctrl_c(service: Service) -> None:
    """`bots watch` shows the run and ends without a traceback when it is interrupted."""
    service.client.create_dataset("letters", size=26)
    service.client.create_run("letters", "watched").report(0, 1, 4)
    environment = os.environ | {"BOTS_SERVER": service.address, "COLUMNS": "120", "FORCE_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "bots.cli", "watch", "letters/watched"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        seen = b""
        deadline = time.monotonic() + 60
        while b"effective task ratio" not in seen:
            assert time.monotonic() < deadline
            seen += os.read(process.stdout.fileno(), 65536)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors
    assert process.returncode != 0


def drawn(summary: bots.Summary, width: int = 80) -> str:
    """Returns the glance as text."""
    console = Console(file=io.StringIO(), width=width)
    console.print(glance(summary, 12.5, datetime.now(timezone.utc)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_glance_has_the_histogram_and_the_figures(service: Service) -> None:
    """The histogram has one bar a bin, each bin that is not empty is seen, and what is not known yet is a dash."""
    service.client.create_dataset("letters", weak=[0.1] * 26, strong=[0.9] * 26)
    run = service.client.create_run("letters", "one", target=0.5)
    text = drawn(run.summary())
    assert "letters/one" in text
    assert next(line.split() for line in text.splitlines() if "capability" in line)[-1] == "-"
    run.report([0, 1, 2, 3], [0, 2, 4, 3], 4)
    summary = replace(run.summary(), pass_rate_bins=(1_000, *[0] * 18, 1))
    text = drawn(summary)
    bars = [line for line in text.splitlines() if line.strip()[:4].replace(".", "").isdigit()]
    assert [line.count("█") for line in bars] == [24, *[0] * 18, 1]
    assert [line for line in bars if "◄" in line] == [bars[10]]
    assert "50.0%" in next(line for line in text.splitlines() if "effective task ratio" in line)
    assert "s ago" in next(line for line in text.splitlines() if "last report" in line)
    assert "12.5" in next(line for line in text.splitlines() if "reports per minute" in line)


def test_the_rate_is_of_the_last_minute() -> None:
    """Reports per minute are counted over the last minute, and unknown at first."""
    rate = Rate()
    assert rate.after(0, 100) is None
    assert rate.after(30, 110) == 20
    assert rate.after(60, 120) == 20
    assert rate.after(120, 120) == 0
