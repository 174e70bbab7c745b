"""The loop of select and report, through the real server and a real Redis."""

from collections import Counter
from dataclasses import asdict

import grpc
import numpy as np
import pytest
import scipy.stats

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.hyperparameters import Hyperparameters
from tests.api.service import SECONDS, Run, Service, new_id, reason_of, serving
from tests.core.oracle import oracle

VOWELS = {0, 4, 8, 14, 20}


def test_posteriors_after_300_random_reports_equal_the_oracle(service: Service) -> None:
    """Guarantee 3, model interpolation, through the API: reports of partial outcomes of random tasks."""
    rng = np.random.default_rng(1)
    size = 500
    weak = (rng.integers(0, 9, size) / 16).astype(np.float32)
    strong = np.maximum(weak, (rng.integers(4, 17, size) / 16)).astype(np.float32)
    weak[::7] = strong[::7] = np.nan
    prior = np.where(np.arange(size) % 5 == 0, 3.5, 1.0)
    service.dataset("tasks", size, references={"weak": weak, "strong": strong}, prior=(prior, 1.0))
    run = service.create("tasks", "policy", rollouts_per_update=100)
    assert run.info().model == pb.EVIDENCE_MODEL_INTERPOLATION
    columns = {"weak": weak, "strong": strong, "prior_alpha": prior, "prior_beta": np.ones(size)}
    plain = oracle(columns, {**asdict(Hyperparameters()), "rollouts_per_update": 100})
    for _ in range(300):
        outcomes = int(rng.integers(1, 12))
        tasks = rng.integers(0, size, outcomes)
        rollouts = rng.integers(1, 17, outcomes)
        successes = np.round(rng.random(outcomes) * rollouts * 4) / 4
        run.report(tasks.tolist(), successes.tolist(), rollouts.tolist())
        plain.report(tasks.tolist(), successes.tolist(), rollouts.tolist())
    alpha, beta = run.posteriors()
    expected = plain.now().seen()
    assert np.abs(alpha - expected[0]).max() < 1e-4
    assert np.abs(beta - expected[1]).max() < 1e-4
    assert run.summary().interpolation.capability == pytest.approx(plain.now().kappa, rel=1e-6)


def test_parts_of_a_selection_are_one_update(letters: Service) -> None:
    """Guarantee 3: a selection that is reported in three parts, another in between, leaves what two reports leave."""
    whole, parts = (letters.create("letters", name, rest=0) for name in ("whole", "parts"))
    batches = [run.select(6, seed=3) for run in (whole, parts)]
    assert batches[0].tasks == batches[1].tasks
    other = whole.select(6, seed=4), parts.select(6, seed=4)
    whole.answer(batches[0], 2)
    whole.answer(other[0], 1)
    tasks, selection = batches[1].tasks, batches[1].selection_id
    parts.report(tasks[:2], [2, 2], selection_id=selection)
    parts.answer(other[1], 1)
    parts.report(tasks[2:5], [2, 2, 2], selection_id=selection)
    parts.report(tasks[5:], [2], selection_id=selection)
    np.testing.assert_array_equal(whole.posteriors(), parts.posteriors())
    assert whole.summary().updates == parts.summary().updates == 2


def test_selection_sees_every_report_acknowledged_before_it(letters: Service) -> None:
    """Guarantee 2, with the reports sent to either of two servers."""
    with serving(letters.redis_url) as other:
        here, there = letters.run("letters", "policy"), other.run("letters", "policy")
        for step in range(1, 6):
            assert (here if step % 2 else there).report([step], [1]).version == step
            assert here.select(2).version == step
            assert there.select(2).version == step
        np.testing.assert_array_equal(here.posteriors(), there.posteriors())


def test_selection_has_columns_of_equal_length(policy: Run) -> None:
    """A selection has distinct tasks with their ids, means and draws between 0 and 1, and the version it saw."""
    batch = policy.select(5)
    assert len(set(batch.tasks)) == 5
    assert list(batch.ids) == [chr(ord("a") + task) for task in batch.tasks]
    assert all(0 < mean < 1 for mean in batch.means)
    assert all(0 < draw < 1 for draw in batch.draws)
    assert (batch.version, batch.resting_tasks) == (0, 0)
    assert not batch.HasField("lease_expire_time")
    assert policy.answer(batch).version == 1


def test_calls_need_no_deadline(policy: Run) -> None:
    """A caller without one waits as long as it takes."""
    batch = policy.stub.SelectBatch(pb.SelectBatchRequest(run=policy.ref, batch_size=2))
    policy.stub.ReportOutcomes(
        pb.ReportOutcomesRequest(run=policy.ref, tasks=batch.tasks, successes=[1, 1], rollouts=[4, 4])
    )
    assert policy.stub.GetRunSummary(pb.GetRunSummaryRequest(run=policy.ref)).summary.updates == 1


def test_equal_seed_version_and_eligible_set_give_equal_batches(letters: Service) -> None:
    """Also from another server and with the exclusions in another order."""
    with serving(letters.redis_url) as other:
        one = letters.run("letters", "policy").select(6, seed=7, excluded_tasks=[3, 1, 2])
        two = other.run("letters", "policy").select(6, seed=7, excluded_tasks=[1, 2, 3])
    assert one.tasks == two.tasks
    assert one.draws == two.draws


def test_ids_work_in_place_of_indices(policy: Run) -> None:
    """Reports, exclusions, posteriors, retirement and release by id are those by index."""
    request = pb.ReportOutcomesRequest(run=policy.ref, ids=["c", "a", "c"], successes=[1, 2, 3], rollouts=[4, 4, 4])
    policy.stub.ReportOutcomes(request, timeout=SECONDS)
    alpha, beta = policy.posteriors(ids=["c", "a", "b"])
    np.testing.assert_array_equal((alpha, beta), policy.posteriors(tasks=[2, 0, 1]))
    assert alpha[0] + beta[0] > alpha[2] + beta[2]
    chunks = list(policy.stub.GetPosteriors(pb.GetPosteriorsRequest(run=policy.ref, with_ids=True), timeout=SECONDS))
    assert [name for chunk in chunks for name in chunk.ids] == [chr(ord("a") + task) for task in range(26)]
    others = [chr(ord("a") + i) for i in range(26) if i not in (2, 5)]
    assert sorted(policy.select(2, excluded_ids=others).ids) == ["c", "f"]
    retire(policy, ids=["c"])
    assert list(policy.select(1, excluded_ids=others).ids) == ["f"]


def test_tags_quotas_and_weights_hold(policy: Run) -> None:
    """Quotas are met exactly, tags restrict, and weights draw numbers that add up."""
    quotas = pb.TagQuotas(tasks={"vowel": 4, "consonant": 2})
    assert len(VOWELS & set(policy.select(6, quotas=quotas).tasks)) == 4
    assert set(policy.select(5, any_of=pb.TagList(tags=["vowel"])).tasks) == VOWELS
    weights = pb.TagWeights(weights={"vowel": 2.5, "consonant": 0})
    assert set(policy.select(4, weights=weights).tasks) <= VOWELS
    filled = policy.select(9, quotas=pb.TagQuotas(tasks={"vowel": 8, "consonant": 1}), fill=True)
    assert len(set(filled.tasks)) == 9
    assert set(filled.tasks) >= VOWELS


def test_target_by_tag_is_selected_near(policy: Run) -> None:
    """With greedy selection each tag's tasks are those nearest to the tag's own target."""
    policy.report([0, 4, 1, 2], [4, 0, 4, 0], [4] * 4)
    batch = policy.select(
        2,
        quotas=pb.TagQuotas(tasks={"vowel": 1, "consonant": 1}),
        tag_targets={"vowel": 1.0, "consonant": 0.0},
        overrides=pb.Hyperparameters(greedy=True),
    )
    assert set(batch.tasks) == {0, 2}


def test_too_few_eligible_tasks_fail_with_the_counts(policy: Run) -> None:
    """Fewer tasks than asked for are FAILED_PRECONDITION with the counts, or the tasks there are with allow_fewer."""
    with pytest.raises(grpc.RpcError) as refused:
        policy.select(27)
    assert reason_of(refused.value) == "TOO_FEW_ELIGIBLE"
    assert "batch_size: got 27, must be at most" in (refused.value.details() or "")
    with pytest.raises(grpc.RpcError, match=r"asked for: 26, of these excluded 10.*eligible 16"):
        policy.select(20, excluded_tasks=range(10))
    assert set(policy.select(20, excluded_tasks=range(10), allow_fewer=True).tasks) == set(range(10, 26))
    held = policy.select(20, lease_seconds=60)
    with pytest.raises(grpc.RpcError, match="leased: 20"):
        policy.select(7)
    release(policy, held)
    assert len(policy.select(26).tasks) == 26


def test_tag_with_too_few_tasks_is_named_and_nothing_is_leased(policy: Run) -> None:
    """If a quota cannot be met, the call fails at once and names the tag; or it takes the tasks there are."""
    quotas = pb.TagQuotas(tasks={"vowel": 7, "consonant": 3})
    for lease_seconds in (None, 60):
        with pytest.raises(grpc.RpcError, match="tag 'vowel' has 5 of 7"):
            policy.select(10, quotas=quotas, lease_seconds=lease_seconds)
    assert policy.summary().live_leases == 0
    assert len(policy.select(10, quotas=quotas, lease_seconds=60, allow_fewer=True).tasks) == 8
    assert policy.summary().live_leases == 8


def test_evaluated_tasks_rest_and_come_back_if_too_few_are_left(policy: Run) -> None:
    """With `rest` 1 an evaluated task is selected last, and the answer says how many were still resting."""
    policy.update(rest=1)
    policy.report(range(10), [1] * 10)
    batch = policy.select(16)
    assert set(batch.tasks) == set(range(10, 26))
    assert batch.resting_tasks == 0
    batch = policy.select(20, lease_seconds=60)
    assert set(batch.tasks) >= set(range(10, 26))
    assert batch.resting_tasks == 4
    assert policy.summary().resting_tasks == 10


def test_retired_tasks_are_not_selected_until_taken_back(policy: Run) -> None:
    """RetireTasks is an event of the history; `undo` takes tasks back; a repeat is the first answer."""
    request_id = new_id()
    for _ in range(2):
        answer = retire(policy, tasks=[3, 4, 4], reason="broken verifier", request_id=request_id)
        assert (answer.version, answer.retired_tasks) == (1, 2)
    with pytest.raises(grpc.RpcError, match="retired 2"):
        policy.select(25)
    assert not {3, 4} & set(policy.select(24).tasks)
    assert retire(policy, tasks=[3], undo=True).retired_tasks == 1
    assert 3 in policy.select(25).tasks
    first, second = policy.events().events
    assert (list(first.retire.tasks), first.retire.undo, first.retire.reason) == ([3, 4], False, "broken verifier")
    assert (list(second.retire.tasks), second.retire.undo) == ([3], True)


def test_selection_frequencies_equal_the_oracles(policy: Run) -> None:
    """Guarantee 4: chi-square over 3,000 picks of one task, error probability 1e-9."""
    policy.report([0, 1, 2, 25], [4, 0, 2, 1])
    picks = Counter(policy.select(1, seed=seed).tasks[0] for seed in range(3000))
    alpha, beta = policy.posteriors()
    rng = np.random.default_rng(2)
    nearest = np.abs(rng.beta(alpha, beta, (200_000, 26)) - 0.5).argmin(axis=1)
    expected = np.bincount(nearest, minlength=26) / len(nearest) * 3000
    statistic = sum((picks[task] - expected[task]) ** 2 / expected[task] for task in range(26))
    # The oracle's own sample adds 3,000 / 200,000 to the variance.
    assert statistic / (1 + 3000 / 200_000) < scipy.stats.chi2.isf(1e-9, df=25)


def test_repeated_report_changes_nothing_and_returns_the_first_answer(letters: Service) -> None:
    """Guarantee 1: on every server, whatever job repeats it and in whatever order of its entries."""
    run, request_id = letters.run("letters", "policy"), new_id()
    first = run.report([1, 2], [2, 3], request_id=request_id, job="rank-0")
    run.report([2], [2])
    before = run.posteriors()
    with serving(letters.redis_url) as other:
        again = other.run("letters", "policy").report([2, 1], [3, 2], request_id=request_id, job="rank-1")
    assert (first.version, first.repeated_request) == (1, False)
    assert (again.version, again.repeated_request) == (1, True)
    np.testing.assert_array_equal(before, run.posteriors())
    with pytest.raises(grpc.RpcError) as refused:
        run.report([1, 2], [3, 3], request_id=request_id)
    assert reason_of(refused.value) == "REQUEST_ID_REUSED"


def test_repeated_selection_is_the_first_answer(policy: Run) -> None:
    """Also if the run has gone on since."""
    request = pb.SelectBatchRequest(run=policy.ref, batch_size=20, lease_seconds=60, request_id=new_id())
    first = policy.stub.SelectBatch(request, timeout=SECONDS)
    policy.report([1], [2])
    assert policy.stub.SelectBatch(request, timeout=SECONDS) == first
    request.batch_size = 3
    with pytest.raises(grpc.RpcError) as refused:
        policy.stub.SelectBatch(request, timeout=SECONDS)
    assert reason_of(refused.value) == "REQUEST_ID_REUSED"


def test_live_selections_share_no_task(letters: Service) -> None:
    """No two live selections of a run share a task; a report, a release or the clock frees them."""
    run = letters.run("letters", "policy")
    one, two = run.select(10, lease_seconds=60), run.select(10, lease_seconds=60)
    assert not set(one.tasks) & set(two.tasks)
    assert len({*one.tasks, *two.tasks, *run.select(6, allow_fewer=True).tasks}) == 26
    run.answer(one)
    assert len(run.select(26, allow_fewer=True).tasks) == 16
    assert release(run, two) == 10
    assert release(run, two) == 0
    run.select(26, lease_seconds=0.05)
    letters.wait_until(lambda: len(run.select(26, allow_fewer=True).tasks) == 26)


def test_report_of_a_part_frees_that_part_alone(policy: Run) -> None:
    """A report ends the leases on the tasks that it reports; ReleaseSelection those it names."""
    batch = policy.select(8, lease_seconds=600)
    policy.report(batch.tasks[:2], [1, 1], selection_id=batch.selection_id)
    assert policy.summary().live_leases == 6
    assert release(policy, batch, tasks=batch.tasks[2:5]) == 3
    assert policy.summary().live_leases == 3


def test_new_incarnation_of_a_job_ends_the_leases_of_its_earlier_ones(policy: Run) -> None:
    """Those of other jobs stay."""
    policy.select(5, lease_seconds=600, job="a", incarnation="1")
    policy.select(5, lease_seconds=600, job="b", incarnation="1")
    batch = policy.select(5, lease_seconds=600, job="a", incarnation="2")
    assert policy.summary().live_leases == 10
    policy.answer(batch)
    assert policy.summary().live_leases == 5


def retire(run: Run, **fields: object) -> pb.RetireTasksResponse:
    return run.stub.RetireTasks(pb.RetireTasksRequest(run=run.ref, **fields), timeout=SECONDS)  # type: ignore[arg-type]


def release(run: Run, batch: pb.SelectBatchResponse, **fields: object) -> int:
    request = pb.ReleaseSelectionRequest(run=run.ref, selection_id=batch.selection_id, **fields)  # type: ignore[arg-type]
    return run.stub.ReleaseSelection(request, timeout=SECONDS).released
