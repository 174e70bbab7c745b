"""Ids of tasks are found by hash and compared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots_server.core import task_ids
from bots_server.core.task_ids import DuplicateTaskId, TaskIds, hash_texts, index_ids, join, pack

NAMES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=24), unique=True)


def index(names: list[str]) -> TaskIds:
    return index_ids(pack([name.encode() for name in names]))


@given(NAMES.filter(len), st.data())
def test_every_id_is_found_where_it_is(names: list[str], data: st.DataObject) -> None:
    """Looking up ids gives their tasks, in the order asked, and names gives them back."""
    asked = data.draw(st.lists(st.sampled_from(range(len(names)))))
    found = index(names)
    tasks = found.find([names[task] for task in asked])
    assert tasks.tolist() == asked
    assert found.names(tasks) == [names[task] for task in asked]


@given(NAMES.filter(len), st.text(max_size=80))
def test_an_id_of_no_task_is_not_found(names: list[str], other: str) -> None:
    """Also one that is empty, very long or ends in NUL."""
    if other not in names:
        assert index(names).find([names[0], other]).tolist() == [0, -1]


def test_ids_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all hashes collide, ids are found by comparison, and equal ones are refused all the same."""
    monkeypatch.setattr(task_ids, "hash_texts", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    names = [f"task-{number}" for number in range(20)]
    found = index(names)
    assert found.find(names[::-1]).tolist() == list(range(19, -1, -1))
    assert found.find(["task-20", "task-3"]).tolist() == [-1, 3]
    with pytest.raises(DuplicateTaskId):
        index([*names, "task-7"])


def test_an_id_that_two_tasks_have_is_refused() -> None:
    """Two equal ids are an error that names the id and both tasks."""
    with pytest.raises(DuplicateTaskId) as duplicate:
        index(["a", "b", "a"])
    assert duplicate.value.args == ("a", 0, 2)


@given(st.lists(NAMES.filter(len), min_size=1, max_size=4))
def test_the_texts_beside_one_change_nothing(parts: list[list[str]]) -> None:
    """Joined parts have the texts of each, and a text has one hash, whatever lies beside it."""
    packed = [pack([name.encode() for name in names]) for names in parts]
    whole, names = join(packed), [name for part in parts for name in part]
    assert whole.read(np.arange(len(whole))) == names
    assert hash_texts(whole).tolist() == [int(hash_texts(pack([name.encode()]))[0]) for name in names]


def test_one_long_id_costs_its_own_bytes() -> None:
    """Ids are stored without padding to the longest."""
    short = [str(task) for task in range(10_000)]
    with_long = ["x" * 256, *short[1:]]
    sizes = [index(names).ids.text.nbytes for names in (short, with_long)]
    assert sizes[1] - sizes[0] == 255


def test_hashes_spread() -> None:
    """A hundred thousand like ids have no two equal hashes (by chance: 3e-10)."""
    names = pack([f"math-{number}".encode() for number in range(100_000)])
    assert len(np.unique(hash_texts(names))) == 100_000
