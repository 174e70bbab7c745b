"""Bad input is one line that names file, row, column, value and rule."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from bots.files import DataError, inspect, read
from tests.files.written import COMPRESSIONS, FORMATS, ROWS, json_lines, parquet, separated, write


def refused(*paths: Path | str, **options: Any) -> DataError:
    """Returns the error of a read; it is one line."""
    with pytest.raises(DataError) as raised:
        read(paths, **options)
    assert len(str(raised.value).splitlines()) == 1
    return raised.value


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_column_lists_all_columns(tmp_path: Path, name: str) -> None:
    error = refused(write(tmp_path, name, ROWS), id="Index")
    assert (error.kind, error.column) == ("column", "Index")
    assert error.rule == (
        "must be a column of the file (did you mean 'x.index'?): id, tag, weak, strong, size, prompt, x.index"
    )


CELLS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "above 1": (1.5, {"references": {"weak": "c"}},
                "got 1.5, must be between 0 and 1; use --scale 100 for percentages, --scale N "
                "for counts of N rollouts"),
    "below 0": (-1.0, {"references": {"weak": "c"}},
                "got -1.0, must be between 0 and 1; leave the cell empty if the task was not measured"),
    "above the scale": (101.0, {"references": {"weak": "c"}, "scale": 100}, "got 101.0, must be between 0 and 100"),
    "no id": (None, {"id": "c"}, "is missing, must be text of 1 to 256 bytes"),
    "a fraction as id": (0.25, {"id": "c"}, "got 0.25, must be text or a whole number"),
    "infinite": (float("inf"), {"features": ["c"]}, "got inf, must be a finite 32-bit number"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CELLS)
def test_a_bad_cell_far_down_a_table_names_its_row(tmp_path: Path, kind: str) -> None:
    value, options, message = CELLS[kind]
    column = np.arange(20_000.0) if "id" in options else np.full(20_000, 0.5)
    cells = pa.array(column)
    cells = pa.concat_arrays([cells[:15_000], pa.array([value], pa.float64()), cells[15_001:]])
    file = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"c": cells}), file)
    error = refused(file, **options)
    assert str(error) == f"{file}, row 15001, column c: {message}"
    assert (error.path, error.row, error.unit, error.column, error.kind) == (str(file), 15_001, "row", "c", "data")


INVISIBLE = "must be without control characters such as line breaks and tabs, and invisible ones"
TEXTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "percent": ("12.5%", {"references": {"weak": "c"}}, "must be a number; for percentages use --scale 100"),
    "decimal comma": ("0,5", {"references": {"weak": "c"}}, "must be a number with a decimal point"),
    "word": ("hard", {"references": {"weak": "c"}}, "must be a number"),
    "underscore": ("1_0", {"features": ["c"]}, "must be a number"),
    "long id": ("é" * 129, {"id": "c"}, "must be text of 1 to 256 bytes, has 258"),
    "long tag": ("x" * 65, {"tag": "c"}, "must be text of 1 to 64 bytes, has 65"),
    "empty id": ("", {"id": "c"}, "must be text of 1 to 256 bytes, has 0"),
    "line break": ("a\nb", {"id": "c"}, INVISIBLE),
    "direction": ("a\u202eb", {"id": "c"}, INVISIBLE),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_bad_cell_of_a_text_file_names_its_line(tmp_path: Path, kind: str) -> None:
    """Lines are counted as an editor counts them: the prompts have two each."""
    value, options, rule = TEXTS[kind]
    rows = [{"prompt": "one\ntwo", "c": str(row / 10)} for row in range(5)]
    rows[3]["c"] = value
    for data, name, line in (separated(rows, ","), "a.csv", 8), (json_lines(rows), "a.jsonl", 4):
        (tmp_path / name).write_bytes(data)
        error = refused(tmp_path / name, **options)
        assert (error.row, error.unit, error.value, error.rule) == (line, "line", value, rule)


def test_cells_that_are_lists_or_objects_are_refused(tmp_path: Path) -> None:
    for name, unit in ("rows.parquet", "row"), ("rows.jsonl", "line"):
        file = write(tmp_path, name, [{"w": [1, 0], "x": {"a": 1}}])
        assert refused(file, references={"weak": "w"}).rule == "must be a number, not a list"
        error = refused(file, id="x")
        assert error.rule == "must be text or a number, not an object: name a field inside it, such as 'a' after a dot"
        assert (error.row, error.unit) == (1, unit)


FILES: dict[str, tuple[str, bytes, str]] = {
    "half a UTF-16 letter": ("a.csv", "id\na".encode("utf-16")[:-1], "must be UTF-8 or UTF-16 ("),
    "nested without end": ("a.jsonl", b'{"id":' * 100_000, "line 1: must be one JSON object a line"),
    "empty": ("a.csv", b"", "must not be empty"),
    "a header alone": ("a.csv", b"id\n", "must have at least one row"),
    "an empty array": ("a.json", b"[]", "must have at least one row"),
    "binary": ("a.csv", b"\x89PNG\x00\x00\x01", "must be Parquet, Arrow, CSV, TSV, JSON lines or a JSON array"),
    "text named Parquet": ("a.parquet", b"<html>", "its name says parquet, its content is other text"),
    "a pointer": ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
    "truncated Parquet": ("a.parquet", parquet(ROWS)[:-20], "damaged or truncated"),
    "truncated Arrow": ("a.arrow", FORMATS["rows.arrow"](ROWS)[:-20], "damaged or truncated"),
    "truncated stream": ("a.arrow", FORMATS["stream.arrow"](ROWS)[:-200], "damaged or truncated"),
    "a short row": ("a.csv", b"id,w\na,1\nb\n", "line 3: must have 2 cells as the header has, has 1"),
    "an open quote": ("a.csv", b'id,w\na,1\n"b,2\nc,3\n', "line 3: must be a row of CSV (unexpected end of data)"),
    "half a line": ("a.jsonl", b'{"id":"a"}\n{"id":"', "line 2: must be one JSON object a line"),
    "no object": ("a.jsonl", b'{"id":"a"}\n[1]\n', "line 2: got ['1'], must be an object"),
    "an indented object": ("a.json", b'{\n"id": ["a"]}\n', "line 1: must be one JSON object a line, or"),
    "an open array": ("a.json", b'[{"id":"a"},', "row 2: must be a JSON object"),
    "a broken element": ("a.json", b'[{"id":"a"},\n{"id" "b"}' + b" " * 99 + b"]", "row 2: must be a JSON object"),
    "no comma": ("a.json", b'[{"id":"a"} {"id":"b"}]', "row 1: must be followed by a comma or the end of the array"),
    "Latin-1": ("a.csv", "id\né\n".encode("latin-1"), "line 2, column id: got '\\udce9', must be UTF-8"),
    "half a surrogate": ("a.jsonl", b'{"id":"\\ud83d"}\n', "line 1, column id: got '\\ud83d', must be UTF-8"),
    "a column twice": ("a.csv", b"id,id\na,b\n", "column id: must be a name that one column has"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_not_as_it_should_be_is_one_line(tmp_path: Path, kind: str) -> None:
    name, data, expected = FILES[kind]
    (tmp_path / name).write_bytes(data)
    message = str(refused(tmp_path / name, id="id"))
    assert message.startswith(str(tmp_path / name))
    assert expected in message


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("compression", [compression for compression in COMPRESSIONS if compression])
def test_truncated_compression_is_told(tmp_path: Path, name: str, compression: str) -> None:
    file = write(tmp_path, name, [{"id": os.urandom(64).hex()} for _ in range(2000)], compression)
    file.write_bytes(file.read_bytes()[:-4000])
    error = refused(file, id="id")
    assert error.kind == "file"
    assert "damaged or truncated" in error.rule


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.csv", "rows.parquet", "stream.arrow"):
        file = write(tmp_path, name, ROWS)
        size = file.stat().st_size

        def grow(done: int, total: int, file: Path = file) -> None:
            with file.open("ab") as more:
                more.write(b"\n")

        error = refused(file, id="id", progress=grow)
        assert error.kind == "file"
        assert error.rule.startswith(f"must not change while it is read (it had {size} bytes and has ")


def test_what_cannot_be_opened_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(tmp_path / "none.csv").rule == "must exist (no such file or folder)"
    assert refused(tmp_path / "none-*.csv").rule == "must match at least one file"
    assert refused(tmp_path).rule.startswith("must hold files whose names end in .parquet, ")
    file = write(tmp_path, "rows.csv", ROWS)
    assert refused(file, tmp_path / "." / "rows.csv").rule == "must be named only once"

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    error = refused(file)
    assert (error.kind, error.rule) == ("file", "must be readable (permission denied)")


def of(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(parquet([{"id": name}]))


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "two splits": (
        lambda folder: of(folder, "test-00000-of-00001.parquet", "train-00000-of-00001.parquet"),
        "must hold one split, has test, train: name the files, such as '{folder}/**/train-*'",
    ),
    "a part is missing": (
        lambda folder: of(folder, "train-00000-of-00002.parquet"),
        "must hold all 2 parts of 'train', has 1: name the files instead",
    ),
    "two formats": (
        lambda folder: [write(folder, name, ROWS) for name in ("rows.csv", "rows.jsonl")],
        "must hold one format, has .csv, .jsonl: name the files, such as {folder}/*.csv",
    ),
    "a saved dataset without description": (
        lambda folder: (folder / "state.json").write_text("[]"),
        "must be one JSON object ('list' object has no attribute 'get')",
    ),
    "splits of a saved dataset": (
        lambda folder: (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}'),
        "must be one split of the dataset: {folder}/train, {folder}/test",
    ),
    "a saved dataset with an index": (
        lambda folder: (folder / "state.json").write_text(json.dumps({"_indices_data_files": [{"filename": "i"}]})),
        "must be saved without an index: call flatten_indices() before save_to_disk",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_is_not_one_table_is_refused(tmp_path: Path, kind: str) -> None:
    make, rule = FOLDERS[kind]
    make(tmp_path)
    error = refused(tmp_path)
    assert error.path.startswith(str(tmp_path))
    assert (error.kind, error.rule) == ("file", rule.format(folder=tmp_path))


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_folder_with_two_schemas_is_refused(tmp_path: Path, form: str) -> None:
    write(tmp_path, f"rows.{form}", [{"id": "a", "w": 1}]).rename(tmp_path / f"a.{form}")
    write(tmp_path, f"rows.{form}", [{"key": "b", "v": 1}]).rename(tmp_path / f"b.{form}")
    error = refused(tmp_path)
    assert error.path == str(tmp_path / f"b.{form}")
    assert (
        error.rule == f"must have the columns of {tmp_path}/a.{form}, differs in id, key, v, w: name the files instead"
    )


def test_repeated_ids_name_both_rows_and_how_many(tmp_path: Path) -> None:
    first = write(tmp_path, "rows.csv", [{"id": "a"}, {"id": "b"}])
    second = write(tmp_path, "rows.parquet", [{"id": "c"}, {"id": "b"}, {"id": "a"}])
    error = refused(first, second, id="id")
    assert str(error) == (
        f"{second}, row 2, column id: got 'b', must be distinct, {first}, line 3 has the same; "
        "2 rows repeat one of 3 ids: --distinct first keeps the first row of each"
    )


def test_the_first_of_equal_ids_is_kept(tmp_path: Path) -> None:
    rows = [{"id": f"q{row % 7}", "t": f"t{row}", "w": row / 100, "p": f"p{row}"} for row in range(100)]
    for name in ("rows.jsonl", "rows.parquet"):
        options: dict[str, Any] = {"id": "id", "tag": "t", "references": {"weak": "w"}, "features": ["w"], "text": "p"}
        columns = read([write(tmp_path, name, rows)], **options, distinct="first")
        assert (columns.size, columns.rows) == (7, 100)
        assert columns.ids == [f"q{row}" for row in range(7)]
        assert columns.tags == [f"t{row}" for row in range(7)]
        assert columns.texts == [f"p{row}" for row in range(7)]
        assert columns.references["weak"].tolist() == [row / 100 for row in range(7)]
        assert columns.features["w"].shape == (7,)


def test_too_many_tags_are_refused_at_the_first_too_many(tmp_path: Path) -> None:
    file = write(tmp_path, "rows.parquet", [{"t": f"t{row}"} for row in range(2000)])
    error = refused(file, tag="t")
    assert (error.row, error.value) == (1025, "t1024")


def test_arguments_are_checked_before_a_file_is_opened() -> None:
    arguments: list[dict[str, Any]] = [
        {"scale": "auto"},
        {"scale": 0},
        {"references": {"Bad Name": "w"}},
        {"references": {f"r{number}": "w" for number in range(9)}},
        {"distinct": "last", "id": "id"},
        {"distinct": "first"},
    ]
    for options in arguments:
        with pytest.raises(ValueError, match=r"^(scale|references|distinct): got .* must ") as raised:
            read(["none"], **options)
        assert not isinstance(raised.value, DataError)
    with pytest.raises(ValueError, match="files: got none"):
        read([])


def test_inspecting_bad_files_raises_the_same_errors(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(os.urandom(9000).hex().encode())[:2000])
    for path in (file, tmp_path / "none"):
        with pytest.raises(DataError):
            inspect([path])


def test_text_that_is_not_utf8_names_its_row(tmp_path: Path) -> None:
    latin = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", "é".encode("latin-1")]).buffers())
    file = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"id": latin, "w": [0.5, 1.0]}), file)
    error = refused(file, id="id")
    assert (error.row, error.rule) == (2, "must be UTF-8 text, or 16 bytes of a UUID")
    assert refused(file, text="id").row == 2
    assert read([file], references={"weak": "w"}).size == 2
    (tmp_path / "a.csv").write_bytes("id\na\né\n".encode("latin-1"))
    assert refused(tmp_path / "a.csv", text="id").row == 3
