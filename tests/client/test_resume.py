"""A run's place in a trainer's own checkpoint, through the real server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import bots


def start(address: str, job: str = "ours", incarnation: str = "second") -> bots.Client:
    return bots.Client(address, job=job, incarnation=incarnation, timeout=20)


@pytest.fixture
def ours(real_address: str) -> Iterator[bots.Run]:
    """The run of a job called ours, with one report."""
    with start(real_address, incarnation="first") as client:
        client.create_dataset("letters", size=26)
        run = client.create_run("letters", "one")
        run.report([0, 1, 2], [1, 2, 3], 4)
        yield run


@pytest.fixture
def again(real_address: str, ours: bots.Run) -> Iterator[bots.Run]:
    """The same run as the job has it when it is started again."""
    with start(real_address) as client:
        yield client.run("letters", "one")


@pytest.fixture
def theirs(real_address: str, ours: bots.Run) -> Iterator[bots.Run]:
    """The same run as another job has it."""
    with start(real_address, job="theirs") as client:
        yield client.run("letters", "one")


def saved(run: bots.Run, **options: Any) -> dict[str, Any]:
    """Returns the state as it comes back from a trainer's checkpoint."""
    state: dict[str, Any] = json.loads(json.dumps(run.state_dict(**options)))
    return state


def did(resumed: bots.Resumed[bots.Run]) -> tuple[str, int | None]:
    return resumed.action, resumed.version


def test_a_run_that_is_where_the_state_was_stays(ours: bots.Run, again: bots.Run) -> None:
    """There is nothing to restore."""
    assert did(again.load_state_dict(saved(ours))) == ("current", 1)


@pytest.mark.parametrize("ttl_seconds", [None, 3600.0], ids=["from the history", "from a checkpoint"])
def test_a_run_of_this_job_alone_is_restored(ours: bots.Run, again: bots.Run, ttl_seconds: float | None) -> None:
    """Reports of the lost steps are taken back, and the hyperparameters with them."""
    then = ours.posteriors()
    state = saved(ours, ttl_seconds=ttl_seconds)
    assert [kept.version for kept in ours.checkpoints()] == ([] if ttl_seconds is None else [1])
    ours.report([3, 4], 4, 4)
    ours.update(target=0.9)
    assert did(again.load_state_dict(state)) == ("restored", 4)
    np.testing.assert_array_equal(again.posteriors(), then)
    assert again.info().hyperparameters.target == 0.5


def test_every_rank_loads_in_any_order_with_reports_between(real_address: str, ours: bots.Run) -> None:
    """The posterior is restored once, and nothing that was reported since is lost."""
    state = saved(ours)
    ours.report([3, 4], 4, 4)
    with start(real_address) as first, start(real_address) as second, start(real_address) as third:
        ranks = [client.run("letters", "one") for client in (first, second, third)]
        assert did(ranks[0].load_state_dict(state)) == ("restored", 3)
        ranks[0].report([7], 4, 4)
        reported = ranks[0].posteriors([7])
        assert did(ranks[1].load_state_dict(state)) == ("restored", 4)
        ranks[1].report([8], 4, 4)
        assert did(ranks[2].load_state_dict(state)) == ("restored", 5)
        assert [event.version for event in ours.events() if isinstance(event.kind, bots.RestoreEvent)] == [3]
        assert reported[0][0] > 1
        assert (ranks[2].posteriors([7, 8])[0] > 1).all()


def test_a_second_step_back_restores_again(ours: bots.Run, again: bots.Run) -> None:
    """The same state may be loaded twice in one life: each time the run goes back."""
    state = saved(ours)
    ours.report([3], 4, 4)
    assert did(again.load_state_dict(state)) == ("restored", 3)
    again.report([5], 4, 4)
    assert did(again.load_state_dict(state)) == ("restored", 5)
    assert again.posteriors([5])[0][0] == pytest.approx(again.posteriors([6])[0][0])


def test_a_key_means_a_new_batch_after_a_resume(ours: bots.Run, again: bots.Run) -> None:
    """Steps that are done again select anew."""
    state = saved(ours)
    before = again.select(4, key="step-1")
    again.load_state_dict(state)
    after = again.select(4, key="step-1")
    assert after.selection_id != before.selection_id
    assert again.select(4, key="step-1").selection_id == after.selection_id


def test_leases_of_the_dead_incarnation_end(ours: bots.Run, again: bots.Run) -> None:
    """The restarted job may select every task at once."""
    state = saved(ours)
    ours.select(20, lease_seconds=3600)
    ours.report([25], 1, 2)
    again.load_state_dict(state)
    assert len(again.select(26)) == 26


def test_a_run_that_others_changed_is_kept(
    ours: bots.Run, again: bots.Run, theirs: bots.Run, caplog: pytest.LogCaptureFixture
) -> None:
    """What other jobs have learned stays, and the log says who they are."""
    state = saved(ours)
    theirs.report([3], 4, 4)
    with caplog.at_level(logging.WARNING, "bots"):
        resumed = again.load_state_dict(state)
    assert (*did(resumed), resumed.others, resumed.run) == ("kept", 2, ("theirs",), again)
    assert "is kept: it changed since the state (theirs)" in caplog.text


def test_a_fork_is_the_run_that_is_returned(ours: bots.Run, again: bots.Run, theirs: bots.Run) -> None:
    """With fork_as the job goes on with a run of its own, and the object in hand stays what it was."""
    then = ours.posteriors()
    state = saved(ours)
    theirs.report([3], 4, 4)
    resumed = again.load_state_dict(state, fork_as="two")
    assert (resumed.action, resumed.run.name, again.name) == ("forked", "two", "one")
    np.testing.assert_array_equal(resumed.run.posteriors(), then)
    assert resumed.run.created


def test_a_state_of_another_run_is_refused(ours: bots.Run, again: bots.Run) -> None:
    """The message has field, value and rule; a state of a deleted run is a RUN_REPLACED."""
    state = saved(ours)
    with pytest.raises(bots.InvalidArgumentError, match=r"state\['run'\]: got 'two', must be 'one'"):
        again.load_state_dict(state | {"run": "two"})
    with pytest.raises(bots.FailedPreconditionError) as caught:
        again.load_state_dict(state | {"run_uid": "0" * 32})
    assert caught.value.reason == "RUN_REPLACED"
