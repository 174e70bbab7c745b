"""Checkpoints, restores and the list of events."""

import grpc
import numpy as np
import pytest

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import SECONDS, Run, Service, new_id, reason_of, serving


def test_restore_goes_back_and_the_version_goes_on(policy: Run) -> None:
    """To a checkpoint or to a version; every server sees it."""
    policy.report([1], [4])
    policy.checkpoint("one")
    one = policy.posteriors()
    policy.report([2], [0])
    two = policy.posteriors()
    assert policy.restore(checkpoint="one").version == 3
    np.testing.assert_array_equal(policy.posteriors(), one)
    assert policy.restore(version=2).version == 4
    np.testing.assert_array_equal(policy.posteriors(), two)
    kinds = [event.WhichOneof("kind") for event in policy.events().events]
    assert kinds == ["report", "report", "restore", "restore"]
    restored = policy.events().events[2].restore
    assert (restored.version, restored.checkpoint) == (1, "one")


def test_repeat_of_a_restore_is_its_first_answer_whatever_was_deleted_since(policy: Run) -> None:
    """The checkpoint that it went back to may be gone."""
    policy.report([1], [4])
    policy.checkpoint("one")
    fields = {"checkpoint": "one", "request_id": new_id()}
    first = policy.restore(**fields)
    request = pb.DeleteCheckpointRequest(run=policy.ref, name="one")
    policy.stub.DeleteCheckpoint(request, timeout=SECONDS)
    policy.report([2], [4])
    again = policy.restore(**fields)
    assert (first.version, first.repeated_request) == (2, False)
    assert (again.version, again.repeated_request, again.run_uid) == (2, True, first.run_uid)
    with pytest.raises(grpc.RpcError) as refused:
        policy.restore(version=1, request_id=fields["request_id"])
    assert reason_of(refused.value) == "REQUEST_ID_REUSED"


def test_restore_to_nothing_is_not_found(policy: Run) -> None:
    """A checkpoint or a version that does not exist."""
    for fields, reason in (({"checkpoint": "none"}, "CHECKPOINT_NOT_FOUND"), ({"version": 7}, "VERSION_NOT_FOUND")):
        with pytest.raises(grpc.RpcError) as refused:
            policy.restore(**fields)
        assert reason_of(refused.value) == reason


def test_restore_of_a_run_that_moved_on_is_refused(policy: Run) -> None:
    """VERSION_MISMATCH if the run's version is not the expected one."""
    policy.report([1], [4])
    with pytest.raises(grpc.RpcError, match="expected_version: got 0, must be the run's version, 1") as refused:
        policy.restore(version=0, expected_version=0)
    assert reason_of(refused.value) == "VERSION_MISMATCH"
    assert policy.restore(version=0, expected_version=1).version == 2


def test_restore_ends_all_leases(letters: Service) -> None:
    """Of every job."""
    policy = letters.run("letters", "policy")
    policy.select(5, lease_seconds=600, job="a", incarnation="1")
    policy.select(5, lease_seconds=600, job="b")
    ended = letters.sample("bots_leases_total", event="ended") or 0
    policy.restore(version=0)
    assert policy.summary().live_leases == 0
    assert letters.sample("bots_leases_total", event="ended") == ended + 10


def test_checkpoint_name_holds_one_version(policy: Run) -> None:
    """A repeat returns it, with the later of two ends; another version is ALREADY_EXISTS."""
    first = policy.checkpoint("one", ttl_seconds=60)
    again = policy.checkpoint("one", ttl_seconds=600)
    assert again.expire_time.ToMilliseconds() > first.expire_time.ToMilliseconds()
    assert (first.version, again.version, again.create_time) == (0, 0, first.create_time)
    policy.report([1], [4])
    with pytest.raises(grpc.RpcError) as refused:
        policy.checkpoint("one")
    assert reason_of(refused.value) == "CHECKPOINT_EXISTS"
    assert policy.checkpoint("one", version=0).version == 0


def test_checkpoints_are_listed_by_name_in_pages(policy: Run) -> None:
    """next_page_token leads on; an empty one ends the list."""
    for number in range(5):
        policy.checkpoint(f"c{number}")
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        request = pb.ListCheckpointsRequest(run=policy.ref, page_size=2, page_token=token)
        page = policy.stub.ListCheckpoints(request, timeout=SECONDS)
        listed += [checkpoint.name for checkpoint in page.checkpoints]
        token, pages = page.next_page_token, pages + 1
    assert listed == ["c0", "c1", "c2", "c3", "c4"]


def test_events_are_listed_oldest_first_in_pages(policy: Run) -> None:
    """Each with its version, time, job, request_id and content."""
    for number in range(5):
        policy.report([number], [1], job="rank-0", policy_step=number + 1, selection_policy_step=number)
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        page = policy.events(page_size=2, page_token=token)
        assert page.version == 5
        listed += list(page.events)
        token, pages = page.next_page_token, pages + 1
    assert [event.version for event in listed] == [1, 2, 3, 4, 5]
    assert [list(event.report.tasks) for event in listed] == [[0], [1], [2], [3], [4]]
    last = listed[-1]
    assert (last.job, last.report.policy_step, last.report.selection_policy_step) == ("rank-0", 5, 4)
    assert last.time.ToMilliseconds() > 1e12
    assert len(last.request_id) == 36
    assert [event.version for event in policy.events(after_version=3).events] == [4, 5]
    assert not policy.events(after_version=5).events


def test_server_that_comes_later_folds_to_the_same_bits(letters: Service) -> None:
    """From the newest snapshot and the events after it."""
    run = letters.create("letters", "long", model="EVIDENCE_MODEL_ITEM_RESPONSE")
    rng = np.random.default_rng(4)
    for _ in range(300):
        tasks = rng.choice(26, 3, replace=False)
        run.report(tasks.tolist(), rng.integers(0, 5, 3).tolist())
    letters.wait_until(lambda: letters.sample("bots_snapshots_total", outcome="stored"))
    with serving(letters.redis_url) as other:
        np.testing.assert_array_equal(other.run("letters", "long").posteriors(), run.posteriors())


def test_checkpoint_expires(letters: Service) -> None:
    """After ttl_seconds by Redis' clock."""
    run = letters.run("letters", "policy")
    run.checkpoint("short", ttl_seconds=0.05)
    request = pb.ListCheckpointsRequest(run=run.ref)
    letters.wait_until(lambda: not run.stub.ListCheckpoints(request, timeout=SECONDS).checkpoints)
    with pytest.raises(grpc.RpcError) as refused:
        run.restore(checkpoint="short")
    assert reason_of(refused.value) == "CHECKPOINT_NOT_FOUND"
