"""The arranged dataset: members by (stratum, tag, task), in as little memory as it can."""

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from bots_server.core.strata import Strata
from bots_server.core.tasks import Tasks, arrange
from tests.strategies import Columns, columns


def holds(tasks: Tasks, stratum: NDArray[np.unsignedinteger], tag: NDArray[np.unsignedinteger] | None) -> None:
    """Asserts that the tasks are arranged by the given columns."""
    tag_of = np.zeros(len(stratum), np.int64) if tag is None else tag.astype(np.int64)
    np.testing.assert_array_equal(tasks.members, np.lexsort((tag_of, stratum)))
    np.testing.assert_array_equal(np.diff(tasks.stratum_start), np.bincount(stratum, minlength=len(tasks.strata)))
    assert (tasks.stratum_start[0], tasks.cell_start[-1]) == (0, len(tasks))
    sizes = np.diff(tasks.cell_start)
    assert (sizes > 0).all()
    np.testing.assert_array_equal(np.repeat(tasks.cell_stratum, sizes), stratum[tasks.members])
    np.testing.assert_array_equal(np.repeat(tasks.cell_tag, sizes), tag_of[tasks.members])
    cells = list(zip(tasks.cell_stratum.tolist(), tasks.cell_tag.tolist(), strict=True))
    assert cells == sorted(set(cells))
    cell = tasks.cell_of(np.arange(len(tasks)))
    np.testing.assert_array_equal(tasks.cell_stratum[cell], stratum)
    np.testing.assert_array_equal(tasks.cell_tag[cell], tag_of)


@given(columns())
def test_members_lie_by_stratum_then_tag_then_task(dataset: Columns) -> None:
    """Every stratum and every cell is one stretch of members, and no cell is empty."""
    tasks = dataset.arranged()
    assert len(tasks) == dataset.size
    holds(tasks, tasks.stratum, dataset.tag)
    assert tasks.tags == dataset.tags


@pytest.mark.parametrize("strata", [3, 65_536, 65_537])
@pytest.mark.parametrize("tags", [0, 256, 257])
def test_columns_are_narrow(strata: int, tags: int) -> None:
    """Columns take the narrowest type that holds them: at most 10 bytes a task for any strata and tags."""
    rng = np.random.default_rng(0)
    size = 200_000
    stratum = rng.integers(0, strata, size).astype(np.uint32)
    tag = rng.integers(0, tags, size).astype(np.uint32) if tags else None
    table = Strata(np.empty((strata, 0), np.float32), np.ones(strata), np.ones(strata))
    tasks = arrange(table, stratum, tag, [f"tag-{j}" for j in range(tags)])
    holds(tasks, stratum, tag)
    assert tasks.stratum.dtype == (np.uint16 if strata <= 65_536 else np.uint32)
    if tasks.tag is not None:
        assert tasks.tag.dtype == (np.uint8 if tags <= 256 else np.uint16)
    column_bytes = tasks.members.nbytes + tasks.stratum.nbytes + (0 if tasks.tag is None else tasks.tag.nbytes)
    assert column_bytes <= 10 * size


def test_strata_without_tasks_are_empty_stretches() -> None:
    """A stratum that no task has is empty, at the start, in the middle and at the end."""
    tasks = arrange(Strata(np.empty((5, 0), np.float32), np.ones(5), np.ones(5)), np.array([3, 1, 3]))
    assert tasks.stratum_start.tolist() == [0, 0, 1, 1, 3, 3]
    assert tasks.members.tolist() == [1, 0, 2]
    assert (tasks.cell_start.tolist(), tasks.cell_stratum.tolist()) == ([0, 1, 3], [1, 3])


def test_features_are_standardised() -> None:
    """Each has mean 0 and standard deviation 1 over the tasks that have it; missing and constant ones are 0."""
    nan = np.nan
    given_features = np.array([[1, 7, nan, 1e6], [3, 7, nan, 1e6], [nan, 7, nan, 1e6]], np.float32)
    tasks = arrange(
        Strata(np.empty((1, 0), np.float32), np.ones(1), np.ones(1)), np.zeros(3, int), features=given_features
    )
    assert tasks.features is not None
    assert tasks.features.tolist() == [[-1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert tasks.feature_names == ("feature 0", "feature 1", "feature 2", "feature 3")
