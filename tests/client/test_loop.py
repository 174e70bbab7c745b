"""A trainer's loop by the client, through the real server and a real Redis."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

import bots
from tests.api.service import serving
from tests.client.test_session import until
from tests.valkey import Valkey

LETTERS = [chr(ord("a") + task) for task in range(26)]
TAGS = ["vowel" if letter in "aeiou" else "consonant" for letter in LETTERS]


def test_the_session_of_the_design_page(real: bots.Client) -> None:
    """The ten lines that everybody starts with run as they stand."""
    weak, strong = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.9, np.nan])
    weak[2] = np.nan
    client = real
    dataset = client.create_dataset("guru-math", weak=weak, strong=strong)
    run = client.create_run("guru-math", "qwen-7b", target=0.5)
    batch = run.select(2)
    assert batch.report([1, 2], 4) == 1
    assert run.report(batch.tasks, [4, 4], 4) == 2
    alpha, beta = run.posteriors()
    assert alpha.dtype == beta.dtype == np.float64
    assert alpha.shape == beta.shape == (3,)
    assert (dataset.size, dataset.strata, dataset.references) == (3, 3, {"weak": 2, "strong": 2})
    assert batch.tasks.dtype == np.int64
    assert (len(batch), batch.version, batch.run_uid, batch.ids, batch.fallback) == (2, 0, run.uid, None, False)
    assert ((batch.means > 0) & (batch.means < 1)).all()
    assert ((batch.draws > 0) & (batch.draws < 1)).all()


def test_ids_do_wherever_indices_do(real: bots.Client) -> None:
    """Where a dataset has ids, they select, exclude, report and ask for posteriors."""
    real.create_dataset("letters", ids=LETTERS, tags=TAGS)
    run = real.create_run("letters", "policy")
    batch = run.select(26)
    assert batch.ids == [LETTERS[task] for task in batch.tasks]
    assert sorted(run.select(5, tags=["vowel"]).ids or ()) == list("aeiou")
    assert sorted(run.select(24, exclude=["a", "z"]).ids or ()) == LETTERS[1:-1]
    assert sorted(run.select(24, exclude=np.array([0, 25]), rows=True).ids or ()) == LETTERS[1:-1]
    assert run.report(["b", "a", "b"], [1, 0, 1], [4, 4, 2]) == 1
    assert run.report("c", 1, 1) == 2
    by_id = run.posteriors(["b", "a"])
    by_index = run.posteriors(np.array([1, 0]), rows=True)
    everything = run.posteriors()
    for some, same, every in zip(by_id, by_index, everything, strict=True):
        np.testing.assert_array_equal(some, same)
        np.testing.assert_allclose(some, every[[1, 0]], rtol=1e-12)
    assert by_id[0][0] > by_id[0][1]
    assert all(column.size == 0 for column in run.posteriors([]))


def test_tags_are_asked_for_by_count_or_weight(real: bots.Client) -> None:
    """Quotas and weights of tags reach the selection."""
    real.create_dataset("letters", tags=TAGS, size=26)
    run = real.create_run("letters", "policy")
    chosen = run.select(6, tag_quotas={"vowel": 4, "consonant": 2}).tasks
    assert sum(TAGS[task] == "vowel" for task in chosen) == 4
    assert all(TAGS[task] == "vowel" for task in run.select(5, tag_weights={"vowel": 1e12, "consonant": 1e-12}).tasks)
    with pytest.raises(bots.InvalidArgumentError, match="tag_quotas"):
        run.select(6, tag_quotas={"vowel": 4})


def test_a_large_dataset_arrives_as_it_is(real: bots.Client) -> None:
    """A dataset of several chunks comes back task by task: priors, ids and all."""
    size = 120_000
    prior = np.linspace(0.5, 50, 100)[np.arange(size) % 100]
    ids = [f"task-{task}" for task in range(size)]
    told: list[int] = []
    dataset = real.create_dataset("large", prior=(prior, 2.0), ids=ids, progress=told.append)
    assert (dataset.size, dataset.strata, dataset.has_ids) == (size, 100, True)
    assert len(told) > 1
    assert told[-1] == size
    run = real.create_run("large", "policy", model="interpolation")
    alpha, beta = run.posteriors()
    np.testing.assert_allclose(alpha, prior, rtol=1e-12)
    np.testing.assert_array_equal(beta, 2.0)
    batch = run.select(64)
    assert batch.ids == [ids[task] for task in batch.tasks]
    assert real.create_dataset("large", prior=(prior, 2.0), ids=ids) == dataset


def test_what_the_service_says_about_datasets(real: bots.Client) -> None:
    """Datasets are created, listed, shown with the number of their runs, and deleted."""
    client = real
    created = client.create_dataset("letters", ids=LETTERS, tags=TAGS, reference_grid=0.25)
    assert created.tags == {"consonant": 21, "vowel": 5}
    assert len(created.fingerprint) == 64
    assert created.create_time is not None
    assert created.create_time.tzinfo is not None
    client.create_run("letters", "one")
    assert client.get_dataset("letters").runs == 1
    (listed,) = client.list_datasets()
    assert dataclasses.replace(listed, created=True) == created
    with pytest.raises(bots.FailedPreconditionError) as refused:
        client.delete_dataset("letters")
    assert refused.value.reason == "DATASET_HAS_RUNS"
    client.delete_dataset("letters", delete_runs=True)
    with pytest.raises(bots.NotFoundError):
        client.get_dataset("letters")


def test_what_the_service_says_about_runs(real: bots.Client) -> None:
    """A run says what it learns by, what it keeps and where it comes from; changes are seen by all."""
    client = real
    client.create_dataset("letters", size=26)
    run = client.create_run("letters", "one", target=0.25, policy="qwen", model="interpolation")
    info = run.info()
    assert (info.name, info.version, info.forked_from) == ("one", 0, None)
    assert (info.hyperparameters.target, info.hyperparameters.forgetting) == (0.25, 0.1)
    assert (info.model, info.policy, run.created, run.joined_version) == ("interpolation", "qwen", True, 0)
    again = client.create_run("letters", "one", target=0.25, policy="qwen", model="interpolation")
    assert (again.created, again.uid) == (False, run.uid)
    with pytest.raises(bots.AlreadyExistsError, match="policy"):
        client.create_run("letters", "one", policy="llama")
    assert run.update(target=0.75, greedy=True).hyperparameters.greedy is True
    run.report([1, 2], 1, 4)
    fork = client.create_run("letters", "two", fork_from=bots.ForkPoint("one", 1))
    assert fork.info().forked_from == bots.ForkPoint("one", 1, "letters", run.uid, kept_tasks=26)
    assert fork.info().hyperparameters.target == 0.75
    assert client.create_run("letters", "three", fork_from="one").info().forked_from == bots.ForkPoint(
        "one", 2, "letters", run.uid, kept_tasks=26
    )
    assert [listed.name for listed in client.list_runs("letters")] == ["one", "three", "two"]
    client.delete_run("letters", "two")
    with pytest.raises(bots.RefusedError):
        fork.report(0, 1, 1)


def test_the_history_can_be_kept_read_and_gone_back_to(real: bots.Client) -> None:
    """Checkpoints keep versions, a restore goes back to one, and the events say who did what."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    run.report([3, 1, 3], [1, 0, 1], 4, policy_step=9, selection_policy_step=7)
    then = run.posteriors()
    kept = run.checkpoint("early", ttl_seconds=3600)
    assert (kept.name, kept.version) == ("early", 1)
    assert kept.expire_time is not None
    assert run.checkpoint("early", version=1).expire_time is None  # the longer of the two lives
    run.update(target=0.4)
    run.report(5, 4, 4)
    assert [listed.name for listed in run.checkpoints()] == ["early"]
    assert run.restore(checkpoint="early", expected_version=3) == 4
    np.testing.assert_array_equal(run.posteriors(), then)
    with pytest.raises(bots.FailedPreconditionError) as raced:
        run.restore(version=0, expected_version=3)
    assert raced.value.reason == "VERSION_MISMATCH"
    with pytest.raises(ValueError, match="exactly one"):
        run.restore()
    first, second, third, fourth = run.events()
    assert [event.version for event in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert {event.job for event in (first, second, third, fourth)} == {"ours"}
    assert isinstance(first.kind, bots.ReportEvent)
    assert (first.kind.tasks.tolist(), first.kind.successes.tolist()) == ([1, 3], [0, 2])
    assert (first.kind.rollouts.tolist(), first.kind.policy_step, first.kind.selection_policy_step) == ([4, 8], 9, 7)
    assert second.kind == bots.HyperparametersEvent(changes={"target": 0.4})
    assert fourth.kind == bots.RestoreEvent(version=1, checkpoint="early")
    assert [event.version for event in run.events(after_version=2)] == [3, 4]
    run.delete_checkpoint("early")
    assert list(run.checkpoints()) == []


def test_a_lease_keeps_others_away(real: bots.Client) -> None:
    """A batch under lease is nobody else's until it is reported or released."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    batch = run.select(20, lease_seconds=60)
    assert batch.lease_expire_time is not None
    others = run.select(20, allow_fewer=True, lease_seconds=60)
    assert len(others) == 6
    assert not set(batch.tasks) & set(others.tasks)
    assert others.release() == 6
    batch.report(1, 4)
    assert len(run.select(26)) == 26


def test_a_repeated_report_changes_nothing(real: bots.Client) -> None:
    """A repeat of its request_id changes nothing and returns the first answer; another content under it is refused."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    request_id = bots.new_request_id()
    assert run.report(0, 1, 1, request_id=request_id) == 1
    run.report(1, 1, 1)
    assert run.report(0, 1, 1, request_id=request_id) == 1
    assert run.info().version == 2
    with pytest.raises(bots.InvalidArgumentError) as refused:
        run.report(0, 0, 1, request_id=request_id)
    assert refused.value.reason == "REQUEST_ID_REUSED"


def test_bad_input_is_refused_with_field_value_and_rule(real: bots.Client) -> None:
    """Bad input is refused whole, with the field, the value and the rule in the message; nothing of it is stored."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    before = run.info().version
    with pytest.raises(bots.InvalidArgumentError, match=r"successes.*5.*must be"):
        run.report([0, 1], [1, 5], 4)
    with pytest.raises(bots.InvalidArgumentError, match=r"batch_size.*0.*must be"):
        run.select(0)
    assert run.info().version == before


def test_a_run_object_mixes_no_runs(real: bots.Client) -> None:
    """What a run object has seen stays one run: when another one has its name, every call says so."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    real.delete_run("letters", "one")
    real.create_run("letters", "one")
    calls = (
        lambda: run.report(0, 1, 1),
        lambda: run.select(1),
        lambda: run.release("0" * 32),
        run.info,
        run.summary,
        run.posteriors,
        run.task_ids,
        run.table,
        run.state_dict,
        lambda: run.update(target=0.9),
        lambda: run.retire([1]),
        lambda: run.checkpoint("keep", version=0),
        lambda: run.delete_checkpoint("keep"),
        lambda: list(run.checkpoints()),
        lambda: list(run.events()),
        lambda: run.restore(version=0),
        lambda: next(run.watch()),
    )
    for call in calls:
        with pytest.raises(bots.FailedPreconditionError) as refused:
            call()
        assert refused.value.reason == "RUN_REPLACED"


def test_a_summary_tells_the_run_at_a_glance(real: bots.Client) -> None:
    """The summary has a bin for every task, and the accuracy of what was reported."""
    real.create_dataset("letters", size=26, tags=TAGS)
    run = real.create_run("letters", "one")
    nothing = run.summary()
    assert isinstance(nothing.model, bots.ItemResponseSummary)
    assert nothing.capability is None
    assert nothing.last_report_time is None
    assert np.isnan(nothing.recent.effective_task_ratio)
    run.report([0, 1, 2, 3], [0, 2, 4, 3], 4)
    summary = run.summary()
    assert (len(summary.pass_rate_bins), sum(summary.pass_rate_bins)) == (20, 26)
    assert summary.total.effective_task_ratio == 0.5
    assert (summary.updates, summary.run.version) == (1, 1)
    assert {(tag.tag, tag.tasks) for tag in summary.tags} == {("vowel", 5), ("consonant", 21)}
    assert summary.last_report_time is not None


def test_a_watch_shows_every_change(real: bots.Client) -> None:
    """A watch yields the summary now and whenever the version has changed, and ends when its loop is left."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    versions = []
    for summary in run.watch(interval_seconds=0.1):
        versions.append(summary.run.version)
        if len(versions) == 3:
            break
        run.report(0, 1, 1)
    assert versions == [0, 1, 2]


def test_a_trainer_goes_on_while_the_service_is_away(redis_url: str) -> None:
    """Guarantee 6: the steps of an outage are uniform, and their outcomes are applied once when it is over."""
    with serving(redis_url) as service:
        client = bots.Client(service.address, timeout=0.5)
        client.create_dataset("letters", size=26)
        run = client.create_run("letters", "one")
        run.select(4).report(1, 4)
    away = [run.select(4) for _ in range(3)]
    assert all(batch.fallback for batch in away)
    assert [batch.report(1, 4) for batch in away] == [None, None, None]
    assert [batch[::2].report(1, 4) for batch in away[:1]] == [None]
    with serving(redis_url, port=service.server.port):
        until(lambda: run.stats.reports_pending == 0)
        assert not run.select(4).fallback
        reports = [event for event in run.events() if isinstance(event.kind, bots.ReportEvent)]
        assert [event.version for event in reports] == [1, 2, 3, 4, 5]
        for event, batch in zip(reports[1:4], away, strict=True):
            assert isinstance(event.kind, bots.ReportEvent)
            assert event.kind.tasks.tolist() == sorted(batch.tasks.tolist())
        assert run.summary().total.updates == 4  # the part of the last report belongs to the second
    client.close()


def test_threads_share_a_run(real: bots.Client) -> None:
    """Reports of many threads are all applied, each once."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    versions: list[int | None] = []

    def work() -> None:
        for _ in range(10):
            versions.append(run.select(4).report(1, 4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(version or 0 for version in versions) == list(range(1, 41))


def test_selections_go_on_while_redis_is_full(shared_valkey: Valkey, real: bots.Client) -> None:
    """Only what is stored waits: selections are the service's, and the reports are applied once there is room."""
    real.create_dataset("letters", size=26)
    run = real.create_run("letters", "one")
    run.select(4).report(1, 4)
    with shared_valkey.client() as redis:
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", 1)
        try:
            batches = [run.select(4) for _ in range(3)]
            assert [batch.report(1, 4) for batch in batches] == [None, None, None]
            assert not any(batch.fallback for batch in [*batches, run.select(4)])
            assert run.stats.reports_pending == 3
        finally:
            redis.config_set("maxmemory", 0)
    until(lambda: run.stats.reports_pending == 0)
    assert run.summary().total.updates == 4
