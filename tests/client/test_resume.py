"""A run's place in a trainer's own checkpoint: where this job alone has reported since, it is restored; where others
share it, it is kept as it is and said so, or forked on request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import bots
from tests.api.service import Service


@pytest.fixture
def ours(service: Service) -> bots.Run:
    """The run of a job called ours, with one report."""
    service.client.job = "ours"
    service.client.create_dataset("letters", size=26)
    run = service.client.create_run("letters", "one")
    run.report([0, 1, 2], [1, 2, 3], 4)
    return run


@pytest.fixture
def theirs(service: Service, ours: bots.Run) -> Iterator[bots.Run]:
    """The same run as another job has it."""
    with bots.Client(service.address, timeout=20, job="theirs") as client:
        yield client.run("letters", "one")


def again(run: bots.Run) -> bots.Run:
    """Returns the run as a job that is started again has it."""
    return run.client.run(run.dataset, run.name)


def saved(run: bots.Run, **options: Any) -> dict[str, Any]:
    """Returns the state as it comes back from a trainer's checkpoint."""
    state: dict[str, Any] = json.loads(json.dumps(run.state_dict(**options)))
    return state


def test_nothing_to_do_where_nothing_happened(ours: bots.Run) -> None:
    """Where the run is as the state was, it stays, whoever made it."""
    assert again(ours).load_state_dict(saved(ours)) == bots.Resumed("current", 1)


@pytest.mark.parametrize("ttl_seconds", [None, 3600.0], ids=["from the history", "from a checkpoint"])
def test_where_this_job_alone_has_reported_the_run_is_restored(ours: bots.Run, ttl_seconds: float | None) -> None:
    """Reports that the lost steps made are taken back, and the hyperparameters with them."""
    then = ours.posteriors()
    state = saved(ours, ttl_seconds=ttl_seconds)
    assert [kept.version for kept in ours.checkpoints()] == ([] if ttl_seconds is None else [1])
    ours.report([3, 4], 4, 4)
    ours.update(target=0.9)
    run = again(ours)
    assert run.load_state_dict(state) == bots.Resumed("restored", 4)
    np.testing.assert_array_equal(run.posteriors(), then)
    assert run.info().hyperparameters.target == 0.5


def test_a_state_outlives_its_checkpoint_as_long_as_the_history_has_it(ours: bots.Run) -> None:
    """Where the checkpoint has expired or was deleted, the version is taken from the history."""
    state = saved(ours)
    ours.delete_checkpoint(state["checkpoint"])
    ours.report(5, 1, 1)
    assert ours.load_state_dict(state) == bots.Resumed("restored", 3)


def test_a_job_may_be_renamed(ours: bots.Run) -> None:
    """Reports under the name in the state are this job's own, also where it has another name now."""
    state = saved(ours)
    ours.report(5, 1, 1)
    ours.client.job = "ours-restarted"
    assert again(ours).load_state_dict(state).action == "restored"


def test_where_others_have_reported_the_run_is_kept(
    ours: bots.Run, theirs: bots.Run, caplog: pytest.LogCaptureFixture
) -> None:
    """What others have learned is not taken back, and that is said."""
    state = saved(ours)
    ours.report(5, 1, 1)
    theirs.report(6, 1, 1)
    now = ours.posteriors()
    assert again(ours).load_state_dict(state) == bots.Resumed("kept", 3, ("theirs",))
    np.testing.assert_array_equal(ours.posteriors(), now)
    assert "kept as it is: shared since the state was taken (theirs)" in caplog.text


def test_where_others_have_reported_a_fork_is_made_on_request(ours: bots.Run, theirs: bots.Run) -> None:
    """With `fork_as` the job goes on from its state in a run of its own, and the shared one stays as it is."""
    state = saved(ours)
    then = ours.posteriors()
    theirs.report(6, 1, 1)
    now = theirs.posteriors()
    run = again(ours)
    assert run.load_state_dict(state, fork_as="two") == bots.Resumed("forked", 0, ("theirs",))
    assert run.name == "two"
    np.testing.assert_array_equal(run.posteriors(), then)
    run.report(7, 1, 1)
    np.testing.assert_array_equal(theirs.posteriors(), now)
    assert run.info().forked_from == bots.ForkPoint("one", 1, theirs.uid)


def test_every_rank_may_load_the_state(ours: bots.Run) -> None:
    """The second rank to load finds the run restored by its own job, and restores the same posterior."""
    then = ours.posteriors()
    state = saved(ours)
    ours.report(5, 1, 1)
    for _ in range(2):
        run = again(ours)
        assert run.load_state_dict(state).action == "restored"
        np.testing.assert_array_equal(run.posteriors(), then)


def test_a_race_is_run_again(ours: bots.Run, theirs: bots.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of another job between the look and the restore is not taken back."""
    state = saved(ours)
    ours.report(5, 1, 1)
    restore = bots.Run.restore

    def raced(run: bots.Run, **arguments: Any) -> int:
        theirs.report(6, 1, 1)
        return restore(run, **arguments)

    monkeypatch.setattr(bots.Run, "restore", raced)
    assert again(ours).load_state_dict(state) == bots.Resumed("kept", 3, ("theirs",))


def test_a_history_that_does_not_say_keeps_the_run(service: Service) -> None:
    """Where the events since the state are trimmed away, nobody can say whose they were: the run is kept."""
    service.client.create_dataset("letters", size=26)
    retention = bots.Retention(snapshot_interval=8, history=8, history_stride=8)
    run = service.client.create_run("letters", "short", retention=retention)
    run.report(0, 1, 1)
    state = saved(run)

    def trimmed() -> bool:
        for _ in range(8):
            run.report(1, 1, 1)
        return run.events()[0].version > 2

    service.wait_until(trimmed)
    assert again(run).load_state_dict(state) == bots.Resumed("kept", run.info().version)


def test_a_state_of_another_run_is_refused(ours: bots.Run) -> None:
    """A state says whose it is: of another name it is a ValueError, of a deleted run RUN_REPLACED."""
    state = saved(ours)
    other = ours.client.create_run("letters", "two")
    with pytest.raises(ValueError, match=r"state\['run'\]: 'one', must be 'two'"):
        other.load_state_dict(state)
    ours.client.delete_run("letters", "one")
    ours.client.create_run("letters", "one")
    with pytest.raises(bots.FailedPreconditionError) as refused:
        again(ours).load_state_dict(state)
    assert refused.value.reason == "RUN_REPLACED"


def test_a_state_taken_while_the_service_was_away_keeps_the_run(ours: bots.Run) -> None:
    """A state without a version has nothing to go back to."""
    state = saved(ours) | {"version": None, "checkpoint": None}
    ours.report(5, 1, 1)
    assert again(ours).load_state_dict(state) == bots.Resumed("kept", 2)
