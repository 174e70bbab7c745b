"""`bots dataset create` and `bots dataset inspect`, with a client that only remembers what it is told to store."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bots.cli import __main__ as command
from bots.cli import datasets
from tests.files.written import ROWS, write


@dataclass(frozen=True)
class Stored:
    """What a service would say of a dataset."""

    name: str
    size: int
    tags: dict[str, int]
    references: dict[str, int]
    features: tuple[str, ...]
    created: bool = True
    create_time: None = None


@dataclass
class Service:
    """Remembers the arguments of create_dataset."""

    given: dict[str, Any] = field(default_factory=dict)

    def create_dataset(self, name: str, **given: Any) -> Stored:
        given.pop("progress")(given["size"])
        self.given = given
        return Stored(
            name,
            given["size"],
            dict.fromkeys(given["tags"] or (), 1),
            {reference: int((~np.isnan(rates)).sum()) for reference, rates in given["references"].items()},
            tuple(given["features"] or ()),
        )


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setattr(datasets, "client_of", lambda _: service)
    return service


@pytest.fixture
def call(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `bots dataset` with arguments."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["bots", "dataset", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


def test_create_stores_every_sort_of_column(tmp_path: Path, service: Service, call: Callable[..., Done]) -> None:
    file = write(tmp_path, "rows.parquet", ROWS, ".gz")
    options = ("--id", "x.index", "--tag", "tag", "--weak", "weak", "--reference", "mid=strong", "--feature", "size")
    done = call("create", "letters", file, *options, "--prior-alpha", 2, "--grid", 0.25)
    assert (done.code, done.err) == (0, "")
    assert done.out == "letters: 3 tasks, 2 with weak, 2 with mid, 2 tags, 1 feature\n"
    assert service.given["ids"] == ["5", "6", "7"]
    assert service.given["tags"] == ["2024-05-01", "math", "2024-05-01"]
    np.testing.assert_array_equal(service.given["references"]["weak"], [0.25, np.nan, 0.5])
    np.testing.assert_array_equal(service.given["references"]["mid"], [0.5, np.nan, 1.0])
    assert service.given["features"]["size"].tolist() == [3, 4, 5]
    assert (service.given["prior"], service.given["reference_grid"]) == ((2.0, 1.0), 0.25)


def test_create_without_options_counts_the_rows(tmp_path: Path, service: Service, call: Callable[..., Done]) -> None:
    assert call("create", "rows", write(tmp_path, "rows.csv", ROWS)).out == "rows: 3 tasks\n"
    assert service.given == {
        "size": 3,
        "ids": None,
        "tags": None,
        "references": {},
        "features": None,
        "prior": None,
        "reference_grid": 0.0,
    }


def test_texts_become_features(
    tmp_path: Path, service: Service, call: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_text(texts: list[str], progress: Callable[[int], object]) -> Any:
        progress(len(texts))
        return np.array([[row, len(text)] for row, text in enumerate(texts)], dtype=np.float32)

    monkeypatch.setitem(sys.modules, "bots.features", types.SimpleNamespace(from_text=from_text))
    done = call("create", "letters", write(tmp_path, "rows.jsonl", ROWS), "--text", "prompt", "--feature", "size")
    assert done.out == "letters: 3 tasks, 3 features\n"
    assert {name: column.tolist() for name, column in service.given["features"].items()} == {
        "size": [3, 4, 5],
        "text0": [0, 1, 2],
        "length": [10, 2, 7],
    }


def test_warnings_say_what_to_do_and_rows_left_out_are_counted(tmp_path: Path, call: Callable[..., Done]) -> None:
    file = write(tmp_path, "rows.csv", [{"id": row % 2, "w": 1 - row / 10} for row in range(4)])
    options = ("--id", "id", "--weak", "w", "--strong", "w", "--scale", 100, "--distinct", "first")
    done = call("create", "letters", file, *options)
    assert done.out == "letters: 2 tasks, 2 with weak, 2 with strong (2 rows of equal ids left out)\n"
    assert done.err.startswith("warning: weak (column w): no value is above 1: leave out --scale")
    told = json.loads(call("create", "letters", file, *options, "--json").out)
    assert (told["name"], told["size"], told["rows_left_out"], len(told["warnings"])) == ("letters", 2, 2, 2)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--id", "nothing"), 64, "column nothing: must be a column of the file: id, tag, weak"),
        (("--id", "tag"), 65, "line 5, column tag: got '2024-05-01', must be distinct"),
        (("--weak", "size"), 65, "line 2, column size: got '3', must be between 0 and 1"),
        (("--reference", "weak"), 64, "reference: got 'weak', must be NAME=COL"),
        (("--reference", "weak=size", "--weak", "weak"), 64, "reference: got weak, weak, must be distinct names"),
        (("--distinct", "first"), 64, "distinct: got 'first' without ids"),
        (("--scale", "auto"), 2, "--scale"),
    ],
)
def test_each_kind_of_error_has_its_exit_status(
    tmp_path: Path, service: Service, call: Callable[..., Done], options: tuple[str, ...], code: int, message: str
) -> None:
    done = call("create", "letters", write(tmp_path, "rows.csv", ROWS), *options)
    assert (done.code, done.out) == (code, "")
    assert message in " ".join(done.err.split())
    assert service.given == {}


def test_a_name_with_a_slash_is_refused_before_a_file_is_read(tmp_path: Path, call: Callable[..., Done]) -> None:
    done = call("create", "team/letters", tmp_path / "none.csv")
    assert done.code == 64
    assert done.err.startswith("error: name: got 'team/letters', must be 1 to 63 of a-z, 0-9,")
    done = call("create", "letters", tmp_path / "none.csv")
    assert done.code == 66
    assert done.err == f"error: {tmp_path}/none.csv: must exist (no such file or folder)\n"


def test_nothing_of_a_file_reaches_the_terminal_as_a_command(tmp_path: Path, call: Callable[..., Done]) -> None:
    file = write(tmp_path, "rows.jsonl", [{"\x1b[2J": "\x1b]0;owned\x07", "w": "\x1b[1m"}])
    for arguments in (("inspect", file), ("create", "a", file, "--id", "x"), ("create", "a", file, "--weak", "w")):
        done = call(*arguments)
        assert "\x1b" not in done.out + done.err
        assert "\\x1b" in done.out + done.err


def test_inspect_shows_columns_and_the_command_to_type(tmp_path: Path, call: Callable[..., Done]) -> None:
    file = write(tmp_path, "rows.parquet", ROWS)
    done = call("inspect", file)
    assert done.out.splitlines()[:3] == [
        "column,type,looks like,first values",
        "id,string,id,\"'007', '1e3', 'c'\"",
        "tag,string,tag,\"'2024-05-01', 'math', '2024-05-01'\"",
    ]
    assert done.err.startswith(f"next: bots dataset create rows {file} --id id --tag tag --text prompt --weak weak")
    told = json.loads(call("inspect", file, "--json").out)
    assert (told["files"], told["rows"], told["columns"][0]["role"]) == (1, 3, "id")
    assert told["command"][:4] == ["bots", "dataset", "create", "rows"]
