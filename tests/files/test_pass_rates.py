"""Pass rates in other scales and directions, and the signs of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bots.files import Columns, read
from tests.files.written import write


def rates(folder: Path, weak: list[Any], strong: list[Any] | None = None, name: str = "w", **options: Any) -> Columns:
    rows = [{name: value} for value in weak]
    references = {"weak": name}
    if strong is not None:
        rows = [row | {"s": value} for row, value in zip(rows, strong, strict=True)]
        references["strong"] = "s"
    return read([write(folder, "rows.csv", rows)], references=references, **options)


def test_percentages_and_counts_are_scaled(tmp_path: Path) -> None:
    assert rates(tmp_path, ["12.5%", 100, ""], scale=100).references["weak"][:2].tolist() == [0.125, 1.0]
    assert rates(tmp_path, [4, 16], scale=16).references["weak"].tolist() == [0.25, 1.0]


def test_difficulties_are_reversed(tmp_path: Path) -> None:
    columns = rates(tmp_path, [25, 100], name="difficulty", scale=100, reverse=True)
    assert columns.references["weak"].tolist() == [0.75, 0.0]
    assert columns.warnings == ()


def test_a_rate_beyond_its_bound_by_rounding_is_at_its_bound(tmp_path: Path) -> None:
    assert rates(tmp_path, [1.0000001, -0.0000001]).references["weak"].tolist() == [1.0, 0.0]


def test_one_reference_alone_is_enough(tmp_path: Path) -> None:
    assert rates(tmp_path, [0.5, 0.25]).warnings == ()


WARNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "exchanged": (
        {"weak": [0.9, 0.8, 0.1], "strong": [0.1, 0.2, 0.3]},
        "weak is above strong on 2 of 3 tasks: exchange --weak and --strong, or use --reverse if the columns are "
        "difficulties",
    ),
    "all 0 or 1": (
        {"weak": [0, 1]},
        "weak (column w): all 2 values are 0 or 1: use the mean of several rollouts for each task",
    ),
    "constant": ({"weak": [0.5, 0.5]}, "weak (column w): all 2 values are 0.5: they do not tell tasks apart"),
    "nothing": ({"weak": ["NA", ""]}, "weak (column w): no task has a value"),
    "fractions already": (
        {"weak": [0.5, 0.75], "scale": 100},
        "weak (column w): no value is above 1: leave out --scale if they are fractions already",
    ),
    "difficulty": (
        {"weak": [0.5, 0.75], "name": "llm_difficulty"},
        "weak (column llm_difficulty): the name says difficulty: use --reverse if larger values are harder",
    ),
}


@pytest.mark.parametrize("kind", WARNINGS)
def test_a_likely_mistake_is_a_warning_that_says_what_to_do(tmp_path: Path, kind: str) -> None:
    options, warning = WARNINGS[kind]
    assert rates(tmp_path, **options).warnings == (warning,)
