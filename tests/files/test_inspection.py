"""inspect describes columns and suggests a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bots.files import inspect
from tests.files.written import FORMATS, write

ROWS: list[dict[str, Any]] = [
    {
        "task_id": 900 + row,
        "data_source": ["math", "code"][row % 2],
        "prompt": f"What is {row} + {row}? Think step by step, then answer.",
        "small": row / 20,
        "large": row / 10,
        "x": {"index": row},
    }
    for row in range(10)
]


@pytest.mark.parametrize("name", FORMATS)
def test_columns_show_what_they_look_like_and_the_command_to_type(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, ROWS)
    seen = inspect([file])
    assert (seen.files, seen.rows) == (1, 10)
    roles = {column.name: column.role for column in seen.columns}
    assert roles == {
        "task_id": "id",
        "data_source": "tag",
        "prompt": "text",
        "small": "pass rate",
        "large": "pass rate",
        "x.index": "id",
    }
    assert seen.line == (
        f"bots dataset create {name.partition('.')[0]} {file} --id task_id --tag data_source --text prompt "
        "--weak small --strong large"
    )
    assert [str(value) for value in seen.columns[0].examples] == ["900", "901", "902"]


def test_percent_and_difficulty_are_in_the_command(tmp_path: Path) -> None:
    rows = [{"difficulty": 12.5 * row} for row in range(5)]
    seen = inspect([write(tmp_path, "rows.parquet", rows)])
    assert seen.command[-5:] == ("--strong", "difficulty", "--scale", "100", "--reverse")


def test_the_rows_of_a_long_text_file_are_not_counted(tmp_path: Path) -> None:
    assert inspect([write(tmp_path, "rows.csv", [{"id": row} for row in range(1000)])]).rows is None
    assert inspect([write(tmp_path, "rows.parquet", [{"id": row} for row in range(1000)])]).rows == 1000
