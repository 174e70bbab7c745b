"""Ids of tasks are found by hash and compared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots_server.core import task_ids
from bots_server.core.task_ids import DuplicateTaskId, TaskIds, UnknownTaskId, hash_ids, index_ids

NAMES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=16), unique=True)


def index(names: list[str]) -> TaskIds:
    return index_ids(np.array([name.encode() for name in names], dtype="S64"))


@given(NAMES.filter(len), st.data())
def test_every_id_is_found_where_it_is(names: list[str], data: st.DataObject) -> None:
    """Looking up ids gives their tasks, in the order asked, and names gives them back."""
    asked = data.draw(st.lists(st.sampled_from(range(len(names)))))
    found = index(names)
    tasks = found.find([names[task] for task in asked])
    assert tasks.tolist() == asked
    assert found.names(tasks) == [names[task] for task in asked]


@given(NAMES.filter(len), st.text(max_size=80))
def test_an_id_of_no_task_is_told_with_its_position(names: list[str], other: str) -> None:
    """An unknown id, also one that is empty, too long or ends in NUL, is an error that has its position."""
    if other in names:
        return
    with pytest.raises(UnknownTaskId) as unknown:
        index(names).find([names[0], other])
    assert unknown.value.args == (1, other)


def test_ids_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all hashes collide, ids are found by comparison, and equal ones are refused all the same."""
    monkeypatch.setattr(task_ids, "hash_ids", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    names = [f"task-{number}" for number in range(20)]
    found = index(names)
    assert found.find(names[::-1]).tolist() == list(range(19, -1, -1))
    with pytest.raises(UnknownTaskId):
        found.find(["task-20"])
    with pytest.raises(DuplicateTaskId):
        index([*names, "task-7"])


def test_an_id_that_two_tasks_have_is_refused() -> None:
    """Two equal ids are an error that names one."""
    with pytest.raises(DuplicateTaskId) as duplicate:
        index(["a", "b", "a"])
    assert duplicate.value.args == ("a",)


def test_the_hash_does_not_depend_on_the_width_of_the_array() -> None:
    """An id has one hash, whatever the longest id beside it."""
    names = [b"a", b"12345678", b"123456789"]
    np.testing.assert_array_equal(hash_ids(np.array(names, "S9")), hash_ids(np.array(names, "S64")))


def test_hashes_spread() -> None:
    """A hundred thousand like ids have no two equal hashes (by chance: 3e-10)."""
    names = np.array([f"math-{number}".encode() for number in range(100_000)])
    assert len(np.unique(hash_ids(names))) == 100_000
