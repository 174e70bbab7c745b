"""The life of datasets and runs: created, changed, forked, kept, restored, deleted."""

import hashlib
import struct
import time
from collections.abc import Generator

import numpy as np
import pytest

import bots
from tests.api.service import Service, serving


def test_creating_a_dataset_again_returns_it(service: Service) -> None:
    """Equal content under a name is the same dataset; other content is ALREADY_EXISTS."""
    weak, strong = np.array([0.1, 0.2]), np.array([0.5, 0.6])
    first = service.client.create_dataset("twice", weak=weak, strong=strong)
    assert service.client.create_dataset("twice", weak=weak, strong=strong).uid == first.uid
    with pytest.raises(bots.AlreadyExistsError) as refused:
        service.client.create_dataset("twice", weak=weak, strong=strong + 0.1)
    assert refused.value.reason == "DATASET_EXISTS"
    assert service.client.get_dataset("twice").fingerprint == first.fingerprint


def test_the_fingerprint_is_what_the_proto_defines(service: Service) -> None:
    """The fingerprint is computed here once more, from the words of the proto."""
    weak = np.array([0.25, np.nan], "<f4")
    strong = np.array([0.5, np.nan], "<f4")
    dataset = service.client.create_dataset("two", weak=weak, strong=strong, tags=["x", "y"], ids=["a", "bc"])
    nan = bytes.fromhex("0000c07f")
    expected = hashlib.sha256(b"bots.v1.Dataset" + struct.pack("<QdI", 2, 0.0, 2))
    for tag in (b"x", b"y"):
        expected.update(struct.pack("<I", 1) + tag)
    columns = {
        b"weak": struct.pack("<f", 0.25) + nan,
        b"strong": struct.pack("<f", 0.5) + nan,
        b"tag": struct.pack("<II", 0, 1),
        b"id": struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + b"bc",
    }
    for name, column in columns.items():
        expected.update(name + b"\0" + hashlib.sha256(column).digest())
    assert dataset.fingerprint == expected.hexdigest()
    assert (dataset.strata, dataset.referenced_tasks, dataset.tags) == (2, 1, {"x": 1, "y": 1})


def test_a_grid_rounds_references(service: Service) -> None:
    """With a grid, references a hair apart are one stratum."""
    rates = np.array([0.2500, 0.2501, 0.75])
    assert service.client.create_dataset("fine", weak=rates / 2, strong=rates).strata == 3
    assert service.client.create_dataset("coarse", weak=rates / 2, strong=rates, reference_grid=1 / 64).strata == 2


def test_datasets_are_listed_and_deleted(service: Service) -> None:
    """A dataset with runs stays unless told to take them along; then nothing of either is left."""
    for name in ("b", "a"):
        service.client.create_dataset(name, size=3)
    service.client.create_run("a", "policy")
    assert [dataset.name for dataset in service.client.list_datasets()] == ["a", "b"]
    with pytest.raises(bots.FailedPreconditionError) as refused:
        service.client.delete_dataset("a")
    assert refused.value.reason == "DATASET_HAS_RUNS"
    service.client.run("a", "policy").report([1], [1], [2])
    service.client.delete_dataset("a", delete_runs=True)
    service.client.delete_dataset("b")
    assert service.client.list_datasets() == []
    service.wait_until(lambda: service.state() == {})


def test_creating_a_run_again_returns_it(letters: Service) -> None:
    """Equal content is the same run, also after it has learned and changed; other content is ALREADY_EXISTS."""
    run = letters.client.create_run("letters", "again", target=0.3)
    run.report([1], [1], [4])
    run.update(target=0.4)
    again = letters.client.create_run("letters", "again", target=0.3)
    assert again.uid == run.uid
    assert again.info().version == 2
    assert again.info().hyperparameters.target == 0.4
    with pytest.raises(bots.AlreadyExistsError, match=r"target is 0\.3, not 0\.4"):
        letters.client.create_run("letters", "again", target=0.4)


def test_all_servers_change_at_the_same_version(letters: Service) -> None:
    """UpdateRun is an event: every server has the new hyperparameters from the same version on."""
    run = letters.client.run("letters", "policy")
    run.report([0], [4], [4])
    assert run.update(forgetting=0.5, target=0.2).version == 2
    run.report([0], [4], [4])
    with serving(letters.redis_url) as other:
        there = other.client.run("letters", "policy")
        assert there.info().hyperparameters.target == 0.2
        # prior 1; after the first report 5; then half of what is above the prior is forgotten, and 4 come.
        assert there.posteriors([0])[0][0] == pytest.approx(1 + 0.5 * 4 + 4)


def test_a_fork_starts_where_its_source_was(letters: Service) -> None:
    """A fork has its source's posterior and hyperparameters at the version, and goes its own way from there."""
    source = letters.client.run("letters", "policy")
    source.report([0, 1], [4, 1], [4, 4])
    at_one = source.posteriors()
    source.update(target=0.9)
    source.report([2], [4], [4])
    fork = letters.client.create_run("letters", "fork", fork_from=bots.ForkPoint("policy", 1))
    np.testing.assert_array_equal(fork.posteriors()[0], at_one[0])
    info = fork.info()
    assert (info.version, info.hyperparameters.target) == (0, 0.5)
    newest = letters.client.create_run("letters", "newest", fork_from="policy", forgetting=0.2)
    assert newest.info().hyperparameters.target == 0.9
    assert newest.info().hyperparameters.forgetting == 0.2
    letters.client.delete_run("letters", "policy")
    fork.report([5], [1], [4])
    with serving(letters.redis_url) as other:
        np.testing.assert_array_equal(other.client.run("letters", "fork").posteriors()[0], fork.posteriors()[0])
    assert letters.client.create_run("letters", "newest", fork_from="policy", forgetting=0.2).uid == newest.uid


def test_a_fork_applies_what_is_enough_for_its_own_updates(letters: Service) -> None:
    """A fork that takes smaller updates applies what its source has pending, and counts anew."""
    source = letters.client.create_run("letters", "source", rollouts_per_update=100)
    source.report([0, 1], [4, 1], [10, 10])
    fork = letters.client.create_run("letters", "eager", fork_from="source", rollouts_per_update=0)
    assert fork.summary().pending_rollouts == 0
    assert fork.summary().updates == 1
    assert fork.summary().total.reports == 0
    fork.report([1], [1], [1])
    # 1 + 1 of the first update, of which a tenth is forgotten, and the 1 of the second.
    assert fork.posteriors([1])[0][0] == pytest.approx(1 + 0.9 * 1 + 1)


def test_a_listing_keeps_no_run_in_memory(letters: Service) -> None:
    """ListRuns shows more runs than a server holds, and passes over one that is deleted meanwhile."""
    for number in range(4):
        letters.client.create_run("letters", f"run-{number}")
    with serving(letters.redis_url, max_replicas=2) as other:
        assert len(other.client.list_runs("letters")) == 5
        letters.client.delete_run("letters", "run-0")
        assert [run.name for run in other.client.list_runs("letters")] == ["policy", "run-1", "run-2", "run-3"]


def test_a_run_goes_back_to_a_checkpoint_and_to_a_version(letters: Service) -> None:
    """RestoreRun gives the kept posterior to the bit, and the version goes up."""
    run = letters.client.create_run(
        "letters", "kept", retention=bots.Retention(snapshot_interval=4, history=8, history_stride=4)
    )
    posteriors = []
    rng = np.random.default_rng(3)
    for version in range(1, 41):
        run.report(rng.choice(26, 2, replace=False), [1, 3], [4, 4])
        posteriors.append(run.posteriors())
        if version == 5:
            assert run.checkpoint("early").version == 5
    oldest = run.events(after_version=0)[0].version
    assert oldest > 5
    assert run.restore(checkpoint="early") == 41
    np.testing.assert_array_equal(run.posteriors()[0], posteriors[4][0])
    for version in (oldest, 37, 40):
        restored = run.restore(version=version)
        np.testing.assert_array_equal(run.posteriors()[0], posteriors[version - 1][0])
        with serving(letters.redis_url) as other:
            np.testing.assert_array_equal(
                other.client.run("letters", "kept").posteriors()[1], posteriors[version - 1][1]
            )
    with pytest.raises(bots.FailedPreconditionError) as refused:
        run.restore(version=restored, expected_version=restored - 1)
    assert refused.value.reason == "VERSION_MISMATCH"
    with pytest.raises(bots.NotFoundError) as gone:
        run.restore(version=2)
    assert gone.value.reason == "VERSION_NOT_FOUND"
    assert run.restore(version=restored, expected_version=restored) == restored + 1


def test_checkpoints_are_listed_expire_and_are_deleted(letters: Service) -> None:
    """A checkpoint's name holds one version; it goes by its time or by a call."""
    run = letters.client.run("letters", "policy")
    run.checkpoint("b")
    run.report([0], [1], [1])
    run.checkpoint("a", ttl_seconds=60)
    assert [(c.name, c.version) for c in run.checkpoints()] == [("a", 1), ("b", 0)]
    assert run.checkpoint("b", version=0).version == 0
    with pytest.raises(bots.AlreadyExistsError) as refused:
        run.checkpoint("b")
    assert refused.value.reason == "CHECKPOINT_EXISTS"
    run.checkpoint("brief", ttl_seconds=0.05)
    letters.wait_until(lambda: len(run.checkpoints()) == 2)
    run.delete_checkpoint("a")
    assert [c.name for c in run.checkpoints()] == ["b"]


def test_events_tell_the_history(letters: Service) -> None:
    """ListEvents gives what happened, oldest first, a page at a time."""
    begin = time.time()
    run = letters.client.run("letters", "policy")
    run.report([3, 1, 3], [1, 2, 0.5], 4, policy_step=7, selection_policy_step=5)
    run.update(target=0.25)
    run.restore(version=0)
    report, change, restore = run.events()
    assert (report.version, change.version, restore.version) == (1, 2, 3)
    assert isinstance(report.kind, bots.ReportEvent)
    assert report.kind.tasks.tolist() == [1, 3]
    assert report.kind.successes.tolist() == [2, 1.5]
    assert report.kind.rollouts.tolist() == [4, 8]
    assert isinstance(change.kind, bots.HyperparametersEvent)
    assert isinstance(restore.kind, bots.RestoreEvent)
    assert restore.kind.version == 0
    assert abs(report.time.timestamp() - begin) < 60
    assert [event.version for event in run.events(after_version=1, limit=1)] == [2]


def test_a_summary_adds_up(letters: Service) -> None:
    """The summary's numbers are those of the posteriors."""
    run = letters.client.run("letters", "policy")
    rng = np.random.default_rng(5)
    for _ in range(30):
        run.report(rng.choice(26, 4, replace=False), rng.integers(0, 5, 4), 4)
    summary = run.summary()
    alpha, beta = run.posteriors()
    means = alpha / (alpha + beta)
    assert list(summary.pass_rate_bins) == np.histogram(means, 20, (0, 1))[0].tolist()
    assert summary.mean_pass_rate == pytest.approx(means.mean())
    assert summary.solved == pytest.approx((means > 0.9).mean())
    assert summary.unsolvable == pytest.approx((means < 0.1).mean())
    assert summary.solved + summary.unsolvable + summary.in_reach == pytest.approx(1)
    assert summary.total.reports == 30
    assert summary.total.rollouts == 480
    assert {tag.tag: tag.tasks for tag in summary.tags} == {"vowel": 5, "consonant": 21}
    assert 20 < summary.tried_tasks < 32


def test_watching_a_run_shows_each_new_version(letters: Service) -> None:
    """WatchRun gives the summary at once and again after a report."""
    run = letters.client.run("letters", "policy")
    watching = run.watch(0.1)
    assert next(watching).run.version == 0
    run.report([0], [1], [1])
    assert next(watching).run.version == 1


@pytest.mark.parametrize("interval_seconds", [0.1, 3600.0])
def test_the_number_of_watchers_is_bounded(letters: Service, interval_seconds: float) -> None:
    """One watcher more than the server serves at once is RESOURCE_EXHAUSTED, and there is room again soon after one
    left, however long its interval."""
    with serving(letters.redis_url, max_streams=1) as other:
        run = other.client.run("letters", "policy")
        watching = run.watch(interval_seconds)
        next(watching)
        with pytest.raises(bots.ResourceExhaustedError) as refused:
            next(run.watch(0.1))
        assert refused.value.reason == "TOO_MANY_STREAMS"
        assert isinstance(watching, Generator)
        watching.close()

        def watches() -> bool:
            try:
                return next(run.watch(0.1)).run.version == 0
            except bots.ResourceExhaustedError:
                return False

        other.wait_until(watches)
