"""Every format and compression reads as the same columns."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from bots.files import read
from tests.files.written import COMPRESSIONS, FORMATS, ROWS, json_lines, parquet, write


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_as_the_same_columns(tmp_path: Path, name: str, compression: str) -> None:
    file = write(tmp_path, name, ROWS, compression)
    columns = read(
        [file], id="id", tag="tag", references={"weak": "weak", "strong": "strong"}, features=["size"], text="prompt"
    )
    assert (columns.size, columns.rows) == (3, 3)
    assert columns.ids == ["007", "1e3", "c"]
    assert columns.tags == ["2024-05-01", "math", "2024-05-01"]
    assert columns.texts == ['one,\n"two"', "é🙂", " three "]
    np.testing.assert_array_equal(columns.references["weak"], [0.25, np.nan, 0.5])
    np.testing.assert_array_equal(columns.references["strong"], [0.5, np.nan, 1.0])
    assert columns.features["size"].dtype == np.float32
    assert columns.features["size"].tolist() == [3, 4, 5]
    assert read([file], id="x.index").ids == ["5", "6", "7"]
    assert read([file]).size == 3


@pytest.mark.parametrize("name", FORMATS)
def test_the_content_tells_the_format_not_the_name(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, ROWS)
    renamed = file.rename(tmp_path / "data")
    assert read([renamed], id="id").ids == ["007", "1e3", "c"]


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(gzip.compress(json_lines(ROWS)))

    monkeypatch.setattr(sys, "stdin", Input)
    assert read(["-"], id="id").ids == ["007", "1e3", "c"]


def test_a_named_pipe_is_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(parquet(ROWS)))
    writer.start()
    assert read([pipe], id="id").ids == ["007", "1e3", "c"]
    writer.join()


@pytest.mark.parametrize("count", [3, 20_000])
def test_shards_read_in_order_from_a_folder_a_glob_and_a_list(tmp_path: Path, count: int) -> None:
    files = []
    for part in range(3):
        files.append(tmp_path / f"train-{part:05}-of-00003.parquet")
        files[-1].write_bytes(parquet([{"id": f"{part}-{row}"} for row in range(count)]))
    (tmp_path / "README.md").write_text("about")
    expected = [f"{part}-{row}" for part in range(3) for row in range(count)]
    for paths in ([tmp_path], [tmp_path / "train-*.parquet"], files, [str(tmp_path / "**" / "*.parquet")]):
        assert read(paths, id="id").ids == expected
    assert read(files[:0:-1], id="id").ids == [*expected[2 * count :], *expected[count : 2 * count]]


def test_a_saved_hugging_face_dataset_is_its_shards(tmp_path: Path) -> None:
    train = tmp_path / "train"
    train.mkdir()
    for part in range(2):
        write(train, "stream.arrow", [{"id": f"q{part}"}]).rename(train / f"data-{part:05}-of-00002.arrow")
    files = [{"filename": f"data-{part:05}-of-00002.arrow"} for part in range(2)]
    (train / "state.json").write_text(json.dumps({"_data_files": files, "_indices_data_files": None}))
    (train / "dataset_info.json").write_text("{}")
    assert read([train], id="id").ids == ["q0", "q1"]
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert read([tmp_path], id="id").ids == ["q0", "q1"]


ID_COLUMNS = {
    "integers": (pa.array([900, 3]), ["900", "3"]),
    "whole floats": (pa.array([900.0, 1234567.0]), ["900", "1234567"]),
    "64-bit hashes": (pa.array([2**63 + 5, 7], pa.uint64()), [str(2**63 + 5), "7"]),
    "dictionary": (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    "large strings": (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
    "bytes": (pa.array([b"a", "é".encode()]), ["a", "é"]),
    "UUIDs": (
        pa.array([bytes(range(16)), bytes(16)], pa.binary(16)),
        ["00010203-0405-0607-0809-0a0b0c0d0e0f", "00000000-0000-0000-0000-000000000000"],
    ),
    "dates": (pa.array([0, 1], pa.date32()), ["1970-01-01", "1970-01-02"]),
    "booleans": (pa.array([True, False]), ["true", "false"]),
}

if hasattr(pa, "string_view"):  # since pyarrow 16
    ID_COLUMNS["string views"] = (pa.array(["a", "b"], pa.string_view()), ["a", "b"])


@pytest.mark.parametrize("kind", ID_COLUMNS)
def test_typed_ids_become_text_by_a_stated_rule(tmp_path: Path, kind: str) -> None:
    column, expected = ID_COLUMNS[kind]
    pa.parquet.write_table(pa.table({"id": column}), tmp_path / "a.parquet")
    assert read([tmp_path / "a.parquet"], id="id").ids == expected


NUMBER_COLUMNS = {
    "decimals": (pa.array([Decimal(1), None], pa.decimal128(3, 2)), [1.0, np.nan]),
    "half precision": (pa.array([np.float16(0.5), None], pa.float16()), [0.5, np.nan]),
    "booleans": (pa.array([True, False]), [1.0, 0.0]),
    "texts": (pa.array(["0.5", "N/A"]), [0.5, np.nan]),
    "nothing": (pa.array([None, None]), [np.nan, np.nan]),
}


@pytest.mark.parametrize("kind", NUMBER_COLUMNS)
def test_typed_pass_rates_become_numbers(tmp_path: Path, kind: str) -> None:
    column, expected = NUMBER_COLUMNS[kind]
    pa.parquet.write_table(pa.table({"w": column}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(read([tmp_path / "a.parquet"], references={"weak": "w"}).references["weak"], expected)


TEXT_FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "BOM": ("a.csv", b"\xef\xbb\xbfid,w\na,1\n", ["a"]),
    "UTF-16": ("a.csv", "id,w\na,1\né,2\n".encode("utf-16"), ["a", "é"]),
    "Latin-1 in another column": ("a.csv", "id,t\na,é\n".encode("latin-1"), ["a"]),
    "leading zeros": ("a.csv", b",id\n0,007\n1,008\n", ["007", "008"]),
    "blank lines and CRLF": ("a.csv", b"id\r\na\r\n\r\nb\r\n", ["a", "b"]),
    "quoted commas": ("a.csv", b'id,x\n"a,""b""",1\n', ['a,"b"']),
    "no line break at the end": ("a.jsonl", b'{"id":"a"}\n{"id":"b"}', ["a", "b"]),
    "blank lines of JSON": ("a.jsonl", b'\xef\xbb\xbf{"id":"a"}\r\n\r\n{"id":"b"}\r\n', ["a", "b"]),
    "numbers of JSON": ("a.jsonl", b'{"id":7}\n{"id":1e3}\n{"id":12345678901234567890.50}\n{"id":"7x"}\n',
                        ["7", "1e3", "12345678901234567890.50", "7x"]),
    "other types in another column": ("a.jsonl", b'{"id":"a","m":[1,"x"]}\n{"id":"b","m":{"y":NaN}}\n', ["a", "b"]),
    "an empty array between spaces": ("a.json", b' [ {"id" : "a"} ,\n {"id":"b"} ] ', ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXT_FILES)
def test_text_files_keep_ids_as_written(tmp_path: Path, kind: str) -> None:
    name, data, expected = TEXT_FILES[kind]
    (tmp_path / name).write_bytes(data)
    assert read([tmp_path / name], id="id").ids == expected


def test_rows_of_several_megabytes_are_read(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": f"q{row}", "prompt": "x" * 5_000_000 * (row == 1)} for row in range(3)]
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "stream.arrow"):
        columns = read([write(tmp_path, name, rows)], id="id", text="prompt")
        assert columns.ids == ["q0", "q1", "q2"]
        assert [len(text) for text in columns.texts or ()] == [0, 5_000_000, 0]


def test_csv_prompts_with_line_breaks_are_read_beyond_a_block(tmp_path: Path) -> None:
    rows = [{"id": f"q{row}", "prompt": f'one {row}\n\ntwo, "{"x" * 200}"'} for row in range(20_000)]
    file = write(tmp_path, "rows.csv", rows)
    assert file.stat().st_size > 4 << 20
    columns = read([file], id="id", text="prompt")
    assert columns.ids == [row["id"] for row in rows]
    assert columns.texts == [row["prompt"] for row in rows]


def test_a_top_level_column_with_dots_comes_before_a_struct(tmp_path: Path) -> None:
    table = pa.table({"qwen2.5-72b": [0.5], "x": [{"y.z": 0.25, "y": {"z": 0.75}}]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"qwen2.5-72b": 0.5, "x": {"y.z": 0.25, "y": {"z": 0.75}}}')
    for file in ("a.parquet", "a.jsonl"):
        rates = read([tmp_path / file], references={"a": "qwen2.5-72b", "b": "x.y.z"}).references
        assert (rates["a"].tolist(), rates["b"].tolist()) == ([0.5], [0.25])


def test_conversations_are_texts(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "Think."}, {"role": "user", "content": "1 + 1?"}]
    for name in ("rows.parquet", "rows.jsonl"):
        assert read([write(tmp_path, name, [{"prompt": prompt}])], text="prompt").texts == ["Think.\n1 + 1?"]


def test_progress_ends_at_the_size_of_all_files(tmp_path: Path) -> None:
    files = [write(tmp_path, name, ROWS) for name in FORMATS]
    calls: list[tuple[int, int]] = []
    read(files, progress=lambda done, total: calls.append((done, total)))
    total = sum(file.stat().st_size for file in files)
    assert calls == sorted(calls)
    assert calls[-1] == (total, total)
