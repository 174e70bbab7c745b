"""The loop of select and report, through the real server and a real Redis."""

from collections import Counter

import grpc
import numpy as np
import pytest
import scipy.stats

import bots
from bots.v1 import task_selection_pb2 as pb
from tests.api.service import Service, reason_of, serving
from tests.core.oracle import Oracle


def test_posteriors_after_300_random_reports_equal_the_oracle(service: Service) -> None:
    """The posterior equals the equations of the method to within 1e-4 in alpha and beta, for any history and any split
    of it into reports."""
    rng = np.random.default_rng(1)
    size = 500
    weak = (rng.integers(0, 9, size) / 16).astype(np.float32)
    strong = np.maximum(weak, (rng.integers(4, 17, size) / 16)).astype(np.float32)
    weak[::7] = strong[::7] = np.nan
    prior = np.where(np.arange(size) % 5 == 0, 3.5, 1.0)
    service.client.create_dataset("tasks", weak=weak, strong=strong, prior=(prior, 1.0))
    run = service.client.create_run(
        "tasks", "policy", rollouts_per_update=100, retention=bots.Retention(snapshot_interval=50)
    )
    oracle = Oracle(weak.astype(np.float64), strong.astype(np.float64), prior, np.ones(size), rollouts_per_update=100)
    for _ in range(300):
        outcomes = int(rng.integers(1, 12))
        tasks = rng.integers(0, size, outcomes)
        rollouts = rng.integers(1, 17, outcomes)
        successes = np.round(rng.random(outcomes) * rollouts * 4) / 4
        run.report(tasks, successes, rollouts)
        oracle.report(tasks.tolist(), successes.tolist(), rollouts.tolist())
    alpha, beta = run.posteriors()
    assert np.abs(alpha - oracle.alpha).max() < 1e-4
    assert np.abs(beta - oracle.beta).max() < 1e-4
    assert run.summary().capability == pytest.approx(oracle.kappa, rel=1e-9)


def test_a_selection_sees_every_report_acknowledged_before_it(letters: Service) -> None:
    """A selection sees every report acknowledged before it was asked (on the same Redis primary)."""
    with serving(letters.redis_url) as other:
        here = letters.client.run("letters", "policy")
        there = other.client.run("letters", "policy")
        for step in range(1, 6):
            reported = (here if step % 2 else there).report([step], [1], [4])
            assert reported == step
            assert here.select(2).version == step
            assert there.select(2).version == step
        np.testing.assert_array_equal(here.posteriors()[0], there.posteriors()[0])


def test_a_batch_knows_what_a_trainer_needs(letters: Service) -> None:
    """A batch has distinct tasks with their ids, means in (0, 1), draws, and the version it saw."""
    run = letters.client.run("letters", "policy")
    batch = run.select(5)
    assert batch.tasks.dtype == np.int64
    assert len(set(batch.tasks.tolist())) == 5
    assert batch.ids == [chr(ord("a") + task) for task in batch.tasks]
    assert ((batch.means > 0) & (batch.means < 1)).all()
    assert ((batch.draws > 0) & (batch.draws < 1)).all()
    assert batch.version == 0
    assert batch.report(np.array([0, 1, 2, 3, 4]), 4) == 1


def test_the_same_seed_version_and_eligible_set_is_the_same_batch(letters: Service) -> None:
    """Same seed, version and eligible set: same batch, also from another server and in another order of exclusion."""
    with serving(letters.redis_url) as other:
        one = letters.client.run("letters", "policy").select(6, seed=7, exclude=[3, 1, 2])
        two = other.client.run("letters", "policy").select(6, seed=7, exclude=[1, 2, 3])
    assert one.tasks.tolist() == two.tasks.tolist()
    np.testing.assert_array_equal(one.draws, two.draws)


def test_ids_work_wherever_an_index_does(letters: Service) -> None:
    """Reports, exclusion and posteriors by id are those by index."""
    run = letters.client.run("letters", "policy")
    run.report(["c", "a", "c"], [1, 2, 3], 4)
    alpha, beta = run.posteriors(["c", "a", "b"])
    by_index = run.posteriors([2, 0, 1])
    np.testing.assert_array_equal(alpha, by_index[0])
    np.testing.assert_array_equal(beta, by_index[1])
    assert alpha[0] + beta[0] > alpha[2] + beta[2]
    assert run.task_ids() == [chr(ord("a") + task) for task in range(26)]
    others = [chr(ord("a") + i) for i in range(26) if i not in (2, 5)]
    assert sorted(run.select(2, exclude=others).ids or []) == ["c", "f"]


def test_quotas_weights_and_tags_hold(letters: Service) -> None:
    """Quotas are met exactly, tags restrict, and weights draw counts that add up."""
    run = letters.client.run("letters", "policy")
    vowels = {0, 4, 8, 14, 20}
    assert len(vowels & set(run.select(6, tag_quotas={"vowel": 4, "consonant": 2}).tasks.tolist())) == 4
    assert set(run.select(5, tags=["vowel"]).tasks.tolist()) == vowels
    assert set(run.select(4, tag_weights={"vowel": 2.5}).tasks.tolist()) <= vowels


def test_too_few_eligible_tasks_fail_with_the_counts(letters: Service) -> None:
    """Fewer eligible tasks than asked is FAILED_PRECONDITION with the counts, or what there is with allow_fewer."""
    run = letters.client.run("letters", "policy")
    with pytest.raises(bots.FailedPreconditionError, match=r"batch_size = 27.*eligible 26") as refused:
        run.select(27)
    assert refused.value.reason == "TOO_FEW_ELIGIBLE"
    with pytest.raises(bots.FailedPreconditionError, match=r"eligible 16.*excluded 10"):
        run.select(20, exclude=range(10))
    assert set(run.select(20, exclude=range(10), allow_fewer=True).tasks.tolist()) == set(range(10, 26))
    held = run.select(20, lease_seconds=60)
    with pytest.raises(bots.FailedPreconditionError, match=r"eligible 6.*leased 20"):
        run.select(7)
    held.release()
    assert len(run.select(26)) == 26


def test_a_tag_with_too_few_tasks_is_named_and_the_rest_is_left_alone(letters: Service) -> None:
    """Where a quota cannot be met the call fails at once, names the tag and leases nothing; or takes what there is."""
    run = letters.client.run("letters", "policy")
    quotas = {"vowel": 7, "consonant": 3}
    for lease_seconds in (None, 60):
        with pytest.raises(bots.FailedPreconditionError, match="tag 'vowel' lacks 2 of 7"):
            run.select(10, tag_quotas=quotas, lease_seconds=lease_seconds)
    batch = run.select(10, tag_quotas=quotas, lease_seconds=60, allow_fewer=True)
    assert len(batch) == 8
    assert run.summary().live_leases == 8


def test_tasks_cool_after_their_evaluation(letters: Service) -> None:
    """A task is not selected in the `cooldown` updates after its evaluation, and is again after them."""
    run = letters.client.run("letters", "policy")
    run.update(cooldown=2)
    run.report([0, 1], 1, 4)
    with pytest.raises(bots.FailedPreconditionError, match=r"eligible 24.*cooling 2"):
        run.select(26)
    run.report([2], 1, 4)
    run.report([3], 1, 4)
    assert {0, 1} <= set(run.select(24).tasks.tolist())


def test_selection_frequencies_equal_the_oracles(letters: Service) -> None:
    """Selection has exactly the distribution of drawing every task: chi-square over 3,000 picks of one at 1e-9."""
    run = letters.client.run("letters", "policy")
    run.report([0, 1, 2, 25], [4, 0, 2, 1], [4, 4, 4, 4])
    picks = Counter(int(run.select(1, seed=seed).tasks[0]) for seed in range(3000))
    alpha, beta = run.posteriors()
    rng = np.random.default_rng(2)
    nearest = np.abs(rng.beta(alpha, beta, (200_000, 26)) - 0.5).argmin(axis=1)
    expected = np.bincount(nearest, minlength=26) / len(nearest) * 3000
    statistic = sum((picks[task] - expected[task]) ** 2 / expected[task] for task in range(26))
    # The oracle's own sample adds 3,000 / 200,000 to the variance.
    assert statistic / (1 + 3000 / 200_000) < scipy.stats.chi2.isf(1e-9, df=25)


def test_a_repeated_report_changes_nothing_and_returns_the_first_answer(letters: Service) -> None:
    """An acknowledged report is stored at the configured durability and applied exactly once, in an order all servers
    agree on; a repeat of its request_id changes nothing and returns the first answer, or is refused when too old to
    know."""
    run = letters.client.run("letters", "policy")
    request_id = bots.new_request_id()
    assert run.report([1], [2], [4], request_id=request_id) == 1
    run.report([2], [2], [4])
    before = run.posteriors()
    with serving(letters.redis_url) as other:
        assert other.client.run("letters", "policy").report([1], [2], [4], request_id=request_id) == 1
    np.testing.assert_array_equal(before[0], run.posteriors()[0])
    fresh = letters.client.run("letters", "policy")  # knows no uid yet
    assert fresh.report([1], [2], [4], request_id=request_id) == 1
    with pytest.raises(bots.InvalidArgumentError) as refused:
        run.report([1], [3], [4], request_id=request_id)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    for _ in range(1_001):  # the run remembers 1,000
        run.report([3], [1], [4])
    with pytest.raises(bots.FailedPreconditionError) as old:
        run.report([1], [2], [4], request_id=request_id)
    assert old.value.reason == "REQUEST_TOO_OLD"


def test_a_repeated_selection_is_the_first_answer(letters: Service) -> None:
    """A repeat of a selection's request_id returns the first answer, also when the run has gone on."""
    request = pb.SelectBatchRequest(
        dataset="letters", run="policy", batch_size=20, lease_seconds=60, request_id=bots.new_request_id()
    )
    first = letters.stub.SelectBatch(request, timeout=10)
    letters.client.run("letters", "policy").report([1], [2], [4], complete=False)
    again = letters.stub.SelectBatch(request, timeout=10)
    assert again == first
    request.batch_size = 3
    with pytest.raises(grpc.RpcError) as refused:
        letters.stub.SelectBatch(request, timeout=10)
    assert reason_of(refused.value) == "REQUEST_ID_REUSED"


def test_live_selections_share_no_task(letters: Service) -> None:
    """No two live selections of a run share a task; a complete report, a release or the clock frees them."""
    run = letters.client.run("letters", "policy")
    one, two = run.select(10, lease_seconds=60), run.select(10, lease_seconds=60)
    assert not set(one.tasks) & set(two.tasks)
    assert len(set(one.tasks) | set(two.tasks) | set(run.select(6, allow_fewer=True).tasks)) == 26
    one.report(1, 4, complete=False)
    assert len(run.select(26, allow_fewer=True)) == 6
    one.report(1, 4)
    assert len(run.select(26, allow_fewer=True)) == 16
    assert two.release() == 10
    assert two.release() == 0
    run.select(26, lease_seconds=0.05)
    letters.wait_until(lambda: len(run.select(26, allow_fewer=True)) == 26)


def test_a_run_that_was_replaced_takes_no_report(letters: Service) -> None:
    """A report for a deleted run is FAILED_PRECONDITION, also when a run of the same name is there again."""
    with serving(letters.redis_url) as other:
        old = letters.client.run("letters", "policy")
        batch = old.select(2)
        other.client.run("letters", "policy").select(2)
        letters.client.delete_run("letters", "policy")
        with pytest.raises(bots.FailedPreconditionError) as gone:
            batch.report(1, 4)
        assert gone.value.reason == "RUN_REPLACED"
        letters.client.create_run("letters", "policy")
        for server in (letters, other):
            with pytest.raises(bots.FailedPreconditionError) as refused:
                bots.Run(server.client, "letters", "policy", uid=old.uid).report([0], 1, 4)
            assert refused.value.reason == "RUN_REPLACED"
        assert other.client.run("letters", "policy").select(2).version == 0


def test_a_server_that_comes_later_answers_from_the_snapshot(letters: Service) -> None:
    """A cold server folds the newest snapshot and the events after it, to the same bits."""
    run = letters.client.create_run(
        "letters", "long", retention=bots.Retention(snapshot_interval=8, history=16, history_stride=8)
    )
    rng = np.random.default_rng(4)
    for _ in range(100):
        tasks = rng.choice(26, 3, replace=False)
        run.report(tasks, rng.integers(0, 5, 3), 4)
    first = run.events(after_version=0)[0].version
    assert first > 1  # the history is trimmed behind a snapshot
    with serving(letters.redis_url) as other:
        there = other.client.run("letters", "long").posteriors()
    here = run.posteriors()
    np.testing.assert_array_equal(here[0], there[0])
    np.testing.assert_array_equal(here[1], there[1])


def test_names_that_mean_something_else_now_are_looked_up_again(letters: Service) -> None:
    """A server whose replica of a deleted run and dataset is gone too finds the new ones of the same names."""
    with serving(letters.redis_url, max_replicas=1) as other:
        other.client.run("letters", "policy").select(1)
        other.client.create_run("letters", "another").select(1)  # puts the first out of memory
        letters.client.delete_dataset("letters", delete_runs=True)
        letters.client.create_dataset("letters", size=5)
        letters.client.create_run("letters", "policy").checkpoint("kept")
        assert len(other.client.run("letters", "policy").select(5)) == 5
        assert [c.name for c in other.client.run("letters", "policy").checkpoints()] == ["kept"]
