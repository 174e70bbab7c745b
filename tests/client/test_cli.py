"""The `bots` command, through the real server and a real Redis."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from rich.console import Console

import bots
from bots.cli import __main__ as command
from bots.cli import console
from bots.cli.connection import moved_to_front
from bots.v1 import task_selection_pb2 as pb
from tests.client.recorder import Recorder

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
def call(real_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bots:
    """Runs `bots` with arguments in this process, which is what the installed command does in its own."""
    monkeypatch.setenv("BOTS_SERVER", real_address)
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
def test_a_dataset_comes_from_a_file(call: Bots, real: bots.Client, tasks: Path, form: Callable[[Path], Path]) -> None:
    """CSV, Parquet and JSON lines of the same table make the same dataset; ids keep their zeros."""
    expected = real.create_dataset(
        "expected", weak=[0.25, None, 0.5], strong=[0.75, None, 1], ids=["007", "008", "009"], tags=["x", "y", "x"]
    )
    done = call("dataset", "create", "letters", form(tasks), *OPTIONS)
    assert (done.code, done.out) == (0, "letters: 3 tasks, 2 with weak, 2 with strong, 2 tags\n")
    assert real.get_dataset("letters").fingerprint == expected.fingerprint


def test_a_dataset_may_be_just_rows(call: Bots, real: bots.Client, tasks: Path) -> None:
    """Without options the rows of the file are counted; again is no error; a grid reaches the server."""
    for _ in range(2):
        assert call("dataset", "create", "rows", tasks).code == 0
    assert real.get_dataset("rows").size == 3
    assert call("dataset", "create", "coarse", tasks, *OPTIONS, "--grid", 0.25).code == 0
    assert real.get_dataset("coarse").reference_grid == 0.25


def test_datasets_are_listed_shown_and_deleted(call: Bots, tasks: Path) -> None:
    """What is there can be seen and removed; a dataset with runs goes only with them."""
    call("dataset", "create", "letters", tasks, *OPTIONS)
    (row,) = call("dataset", "list").rows
    assert (row["name"], row["tasks"], row["tags"], row["ids"]) == ("letters", "3", "2", "True")
    assert ["tag", "x", "2"] in [line.split() for line in call("dataset", "show", "letters").out.splitlines()]
    call("run", "create", "letters/one")
    refused = call("dataset", "delete", "letters", "--yes")
    assert refused.code == 78
    assert call("dataset", "delete", "letters", "--runs", "--yes").out == "letters is deleted\n"
    assert call("dataset", "list").rows == []


def test_runs_are_created_changed_and_deleted(call: Bots, real: bots.Client) -> None:
    """Model, policy and hyperparameters are options; a fork names dataset, run and version."""
    real.create_dataset("letters", size=26)
    made = call("run", "create", "letters/one", "--target", 0.25, "--greedy", "--policy", "qwen", "--json")
    assert json.loads(made.out)["hyperparameters"]["target"] == 0.25
    info = real.run("letters", "one").info()
    assert (info.hyperparameters.target, info.hyperparameters.greedy, info.policy) == (0.25, True, "qwen")
    assert call("run", "update", "letters/one", "--target", 0.75, "--no-greedy").code == 0
    assert real.run("letters", "one").info().hyperparameters.target == 0.75
    assert call("run", "create", "letters/two", "--fork-from", "one@0").code == 0
    assert call("run", "create", "letters/three", "--fork-from", "letters/one").code == 0
    one, three, two = call("run", "list", "letters").rows
    assert (one["name"], one["version"], one["target"], one["forked from"]) == ("one", "1", "0.75", "")
    assert (two["name"], two["target"], two["forked from"]) == ("two", "0.25", "letters/one@0")
    assert three["forked from"] == "letters/one@1"
    assert call("run", "delete", "letters/two", "--yes").code == 0
    assert len(call("run", "list", "letters").rows) == 2


@pytest.mark.parametrize("verb", ["create", "update"])
def test_every_hyperparameter_is_an_option(call: Bots, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bots run create` and `update` offer each hyperparameter that there is."""
    monkeypatch.setenv("COLUMNS", "200")
    said = call("run", verb, "--help").out
    for field in fields(bots.Hyperparameters):
        assert f"--{field.name.replace('_', '-')}" in said


def test_the_loop_by_hand(call: Bots, real: bots.Client, tmp_path: Path) -> None:
    """Select, report and posteriors work from the shell, by index or id, from arguments or a file."""
    real.create_dataset("letters", ids=[chr(ord("a") + task) for task in range(26)])
    run = real.create_run("letters", "one")
    chosen = call("select", "letters/one", 4, "--seed", 1, "--lease-seconds", 60)
    assert [row["task"] for row in chosen.rows] == [str(ord(row["id"]) - ord("a")) for row in chosen.rows]
    assert len(chosen.rows) == 4
    selection = chosen.err.split()[-1]
    assert call("report", "letters/one", "3=1/4", "4=2.5/4", "--row", "--selection", selection).out == "version 1\n"
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
    assert call("posteriors", "letters/one", "--out", tmp_path / "p.parquet").code == 0
    table = pa.parquet.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["task", "id", "alpha", "beta", "mean"]
    assert table["id"].to_pylist()[:3] == ["a", "b", "c"]
    ids = call("select", "letters/one", 3, "--ids").out.split()
    assert len(ids) == 3
    assert all(task_id in "abcdefghijklmnopqrstuvwxyz" for task_id in ids)
    assert json.loads(call("select", "letters/one", 3, "--json", "--exclude", "a").out)["id"][:0] == []


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
    call: Bots, real: bots.Client, tmp_path: Path, form: Callable[[Path, list[str]], Path]
) -> None:
    """An id that looks like a number is an id all the same: 007 and 010 are not 7 and 10."""
    ids = ["007", "010", "7", "10"]
    real.create_dataset("agents", ids=ids)
    run = real.create_run("agents", "one")
    assert call("report", "agents/one", "--csv", form(tmp_path, ["007", "010"])).out == "version 1\n"
    (event,) = run.events()
    assert isinstance(event.kind, bots.ReportEvent)
    assert [ids[task] for task in event.kind.tasks] == ["007", "010"]


def test_a_number_is_an_id_if_the_dataset_has_ids(call: Bots, real: bots.Client) -> None:
    """Only --row says row number; a number that is no id is refused."""
    ids = ["900", "3", "17", "1", "007"]
    real.create_dataset("agents", ids=ids)
    run = real.create_run("agents", "one")
    for arguments in (["3=4/4"], ["007=4/4"], ["3=4/4", "--row"]):
        assert call("report", "agents/one", *arguments).code == 0
    credited = [event.kind.tasks.tolist() for event in run.events() if isinstance(event.kind, bots.ReportEvent)]
    assert credited == [[1], [4], [3]]
    refused = call("report", "agents/one", "7=4/4")
    assert (refused.code, refused.err) == (64, "error: ids[0]: got '7', must be an id of the dataset\n")


def test_options_of_the_connection_stand_anywhere(call: Bots, real: bots.Client, tmp_path: Path) -> None:
    """--server, --job, --token-file and the like are taken before and after the subcommand."""
    real.create_dataset("letters", size=26)
    real.create_run("letters", "one")
    (tmp_path / "token").write_text("secret\n")
    done = call("report", "letters/one", "3=1/4", "--job", "me", f"--token-file={tmp_path / 'token'}")
    assert done.out == "version 1\n"
    assert [event.job for event in real.run("letters", "one").events()] == ["me"]
    away = call("dataset", "list", "--server", "127.0.0.1:1", "--timeout", "0.3")
    assert away.code == 69
    assert away.err.startswith("error: 127.0.0.1:1 (no TLS): no answer within 0.3 s")
    assert moved_to_front(["report", "r", "--", "--job"]) == ["report", "r", "--", "--job"]


def test_tasks_are_retired_and_taken_back(call: Bots, real: bots.Client) -> None:
    """With the reason in the history."""
    real.create_dataset("letters", ids=["a", "b", "c"])
    real.create_run("letters", "one")
    assert call("run", "retire", "letters/one", "a", "b", "--reason", "broken verifier").out == "2 tasks are retired\n"
    assert call("run", "retire", "letters/one", "a", "--undo").out == "1 task is retired\n"
    events = [row["event"] for row in call("run", "events", "letters/one").rows]
    assert events == ["retired 2 tasks: broken verifier", "took back 1 task"]


def test_the_doctor_says_what_stands_between(call: Bots, real: bots.Client) -> None:
    """It tells address, versions and latency, and fails if the service does not answer."""
    found = json.loads(call("doctor", "--json").out)
    assert (found["answer"], found["proxy"], found["datasets"]) == ("yes", "none", 0)
    assert (found["server version"], found["durability"]) == (version("bots-server"), "memory")
    away = call("doctor", "--server", "127.0.0.1:1", "--timeout", "0.3")
    assert away.code == 69
    assert "answer        no" in away.out


def test_the_doctor_warns_of_risks_and_of_clocks(
    call: Bots, recorder: Recorder, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each risk of Redis, and for each clock that differs by more than 5 seconds."""
    now = float(int(time.time()))
    answer = pb.GetServerResponse(version="1.2.3", durability=pb.DURABILITY_FSYNC, risks=["it is a replica", "no file"])
    answer.time.FromSeconds(int(now) - 60)
    answer.redis_time.FromSeconds(int(now))
    recorder.answers["GetServer"] = lambda request, context: answer
    monkeypatch.setattr(time, "time", lambda: now)
    done = call("doctor", "--server", address)
    assert done.code == 0
    assert "server version  1.2.3" in done.out
    assert "durability      fsync" in done.out
    assert "Redis clock     +0.0 s from" in done.out
    assert done.err.splitlines() == [
        "warning: it is a replica",
        "warning: no file",
        "warning: the server clock is 60 s behind this machine's",
    ]
    assert len(json.loads(call("doctor", "--server", address, "--json").out)["warnings"]) == 3


def test_every_listing_is_json_on_request(call: Bots, real: bots.Client) -> None:
    """What is printed is one JSON value, or one a line."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    run.report([1], 1, 2)
    run.checkpoint("early")
    for arguments in (["run", "list", "letters"], ["run", "checkpoints", "letters/one"]):
        assert len(json.loads(call(*arguments, "--json").out)) == 1
    assert json.loads(call("run", "show", "letters/one", "--json").out)["run"]["version"] == 1
    assert json.loads(call("run", "events", "letters/one", "--json").out)["kind"]["tasks"] == [1]
    assert json.loads(call("report", "letters/one", "3=1/4", "--json").out) == {"version": 2}


def test_outcomes_in_a_parquet_file_may_be_by_index(call: Bots, real: bots.Client, tmp_path: Path) -> None:
    """A Parquet file of outcomes does what the CSV file does; without `task` and `id` it says what it wants."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    file = tmp_path / "outcomes.parquet"
    columns = {"task": [5, 6], "successes": [1.0, 0.0], "rollouts": [4, 4]}
    pa.parquet.write_table(pa.table(columns), file)
    assert call("report", "letters/one", "--csv", file).out == "version 1\n"
    (event,) = run.events()
    assert isinstance(event.kind, bots.ReportEvent)
    assert (event.kind.tasks.tolist(), event.kind.successes.tolist()) == ([5, 6], [1, 0])
    del columns["task"]
    pa.parquet.write_table(pa.table(columns), file)
    assert call("report", "letters/one", "--csv", file).err == f"error: {file}: no column 'id' or 'task'\n"


def test_the_history_from_the_shell(call: Bots, real: bots.Client) -> None:
    """Checkpoints are made, listed, gone back to and deleted; the events tell it."""
    real.create_dataset("letters", size=26)
    real.create_run("letters", "one")
    call("--job", "me", "report", "letters/one", "3=1/4")
    assert call("run", "checkpoint", "letters/one", "early", "--ttl-seconds", 60).out == "early: version 1\n"
    call("run", "update", "letters/one", "--target", 0.3)
    assert call("run", "restore", "letters/one", "early").out == "letters/one: version 3\n"
    assert call("run", "restore", "letters/one", "--version", 0).out == "letters/one: version 4\n"
    assert [row["name"] for row in call("run", "checkpoints", "letters/one").rows] == ["early"]
    assert [(row["job"], row["event"]) for row in call("run", "events", "letters/one").rows] == [
        ("me", "report of 1 task: 1 of 4 rollouts"),
        ("cli", "changed target=0.3"),
        ("cli", "restored version 1 (early)"),
        ("cli", "restored version 0"),
    ]
    assert call("run", "undo", "letters/one", 2).code == 78
    call("report", "letters/one", "4=1/4")
    assert call("run", "undo", "letters/one", 5).out == "letters/one: version 6\n"
    assert call("run", "events", "letters/one", "--after", 5).rows[0]["event"] == "undid version 5"
    assert call("run", "delete-checkpoint", "letters/one", "early").code == 0
    assert call("run", "checkpoints", "letters/one").rows == []


def test_an_outlier_is_shown_in_the_history(call: Bots, real: bots.Client) -> None:
    """By how much it is outside."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    for _ in range(16):
        run.report(range(8), [4] * 8, [8] * 8)
    run.summary()  # the server has seen them now
    run.report([9], [4000], [8000])
    (row,) = call("run", "events", "letters/one", "--after", 16).rows
    assert row["event"].startswith("report of 1 task: 4,000 of 8,000 rollouts (outlier: pass rates ")
    assert row["event"].endswith("rollouts 1e+03 times the usual)")


def test_leases_from_the_shell(call: Bots, real: bots.Client) -> None:
    """They are listed, and end by selection, by job, or all."""
    real.create_dataset("letters", size=26)
    real.create_run("letters", "one")
    for job in ("a", "b", "c"):
        call("--job", job, "select", "letters/one", 4, "--lease-seconds", 600)
    held = call("run", "leases", "letters/one").rows
    assert sorted((row["job"], row["tasks"]) for row in held) == [("a", "4"), ("b", "4"), ("c", "4")]
    assert all(590 < float(row["seconds left"]) <= 600 for row in held)
    mine = next(row["selection"] for row in held if row["job"] == "a")
    for arguments in (["--selection", mine], ["--held-by", "b"], ["--all"]):
        assert call("run", "release", "letters/one", *arguments).out == "4 leases ended\n"
    assert call("run", "leases", "letters/one").rows == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["dataset", "show", "nowhere"], 66, "nowhere"),
        (["run", "release", "letters/one"], 64, "exactly one of --selection, --held-by and --all"),
        (["run", "undo", "letters/one", "9"], 66, "version: got 9, must be between 1 and 0"),
        (["run", "create", "letters/two", "--target", "7"], 64, "target"),
        (["run", "create", "letters/one", "--target", "0.3"], 73, "asked for differently"),
        (["run", "update", "letters/one"], 64, "hyperparameters"),
        (["run", "show", "letters"], 64, "run: got 'letters', must be written DATASET/RUN"),
        (["select", "letters/one", "1000"], 78, "batch_size"),
        (["select", "letters/one", "0"], 64, "batch_size: got 0, must be between 1 and 10000"),
        (["report", "letters/one", "3"], 64, "got '3', must be TASK=SUCCESSES/ROLLOUTS"),
        (["report", "letters/one", "3=1/x"], 64, "got '3=1/x', must be TASK=SUCCESSES/ROLLOUTS"),
        (["report", "letters/one", "3=5/4"], 64, "successes"),
        (["report", "letters/one", "x=1/4"], 64, "task: got 'x', must be a row number: the dataset has no ids"),
        (["report", "letters/one"], 64, "report: got both or neither"),
        (["posteriors", "letters/one", "--out", "p.txt"], 64, "must end in .csv, .parquet or .npz"),
        (["run", "restore", "letters/one"], 64, "exactly one of checkpoint and version"),
        (["run", "restore", "letters/one", "--version", "9"], 66, "version"),
        (["select", "letters/one", "1", "--token", "a", "--token-file", "no"], 64, "token"),
        (["select", "letters/one", "1", "--token-file", "no"], 66, "error: no: No such file or directory"),
    ],
)
def test_errors_are_one_clear_line(
    call: Bots, real: bots.Client, arguments: list[str], status: int, message: str
) -> None:
    """An error is one line on the standard error, and the exit status tells its kind; never a traceback."""
    real.create_dataset("letters", size=26)
    real.create_run("letters", "one", target=0.5)
    done = call(*arguments)
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert (done.code, done.out) == (status, "")


def test_characters_that_are_not_seen_are_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal and in messages, as those that turn the direction of text; data in a pipe stays as it is."""
    name = "a\u202eb\u200d\x1b[2J"
    console.say(name)
    console.show(("id",), [(name,)])
    piped = capsys.readouterr().out
    assert piped == f"{name}\nid\n{name}\n"
    monkeypatch.setattr(console, "out", Console(force_terminal=True, color_system=None, width=100))
    console.say(name)
    console.show(("id",), [(name,)])
    console.show_one([("id", name)])
    console.warn(name)
    console.complain(name)
    said = capsys.readouterr()
    assert (said.out + said.err).count(r"a\u202eb\u200d\x1b[2J") == 5
    assert all(line.isprintable() for line in (said.out + said.err).splitlines())


def test_a_server_that_is_away_is_one_clear_line() -> None:
    """The installed command says what it tried, within its deadline."""
    environment = os.environ | {"BOTS_SERVER": "127.0.0.1:1", "BOTS_TIMEOUT": "0.3"}
    done = subprocess.run(
        [sys.executable, "-m", "bots.cli", "dataset", "list"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 69
    assert done.stdout == ""
    assert done.stderr.startswith("error: 127.0.0.1:1 (no TLS): ")
    assert len(done.stderr.splitlines()) == 1


def test_a_watch_ends_with_ctrl_c(real_address: str, real: bots.Client) -> None:
    """`bots watch` shows the run and ends without a traceback when it is interrupted."""
    real.create_dataset("letters", size=26)
    real.create_run("letters", "watched").report(0, 1, 4)
    environment = os.environ | {"BOTS_SERVER": real_address, "COLUMNS": "120", "FORCE_COLOR": "1"}
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
