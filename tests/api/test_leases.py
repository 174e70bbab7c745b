"""Leases listed, and ended by whoever may."""

import grpc
import pytest

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import SECONDS, Run, Service, serving


def test_leases_are_listed_in_pages(policy: Run) -> None:
    """By selection, with job, tasks that are left, and the time that is left."""
    made = [policy.select(3, lease_seconds=600 + number, job=f"job-{number}") for number in range(5)]
    policy.answer(made[2])
    policy.report(made[3].tasks[:1], [1], selection_id=made[3].selection_id)
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        page = policy.leases(page_size=2, page_token=token)
        listed += list(page.leases)
        token, pages = page.next_page_token, pages + 1
    expected = {made[number].selection_id: number for number in (0, 1, 3, 4)}
    assert [one.selection_id for one in listed] == sorted(expected)
    for one in listed:
        number = expected[one.selection_id]
        assert (one.job, one.tasks) == (f"job-{number}", 2 if number == 3 else 3)
        assert number + 580 < one.remaining_seconds <= number + 600


def test_leases_of_a_job_or_of_the_run_end(letters: Service) -> None:
    """Whoever asks; a selection's own end by ReleaseSelection. What ended is counted."""
    run = letters.run("letters", "policy")
    first = run.select(4, lease_seconds=600, job="a", incarnation="1")
    run.select(4, lease_seconds=600, job="a", incarnation="1")
    run.select(5, lease_seconds=600, job="b")
    run.select(6, lease_seconds=600)
    request = pb.ReleaseSelectionRequest(run=run.ref, selection_id=first.selection_id)
    assert run.stub.ReleaseSelection(request, timeout=SECONDS).released == 4
    assert [run.end_leases(job=job) for job in ("a", "a", "")] == [4, 0, 6]
    assert [run.end_leases() for _ in range(2)] == [5, 0]
    assert run.summary().live_leases == 0
    assert letters.sample("bots_leases_total", event="ended") == 15
    assert len(run.select(26, lease_seconds=600).tasks) == 26


def test_lease_is_at_most_as_long_as_the_operator_allows(letters: Service) -> None:
    """max_lease_seconds."""
    with serving(letters.redis_url, max_lease_seconds=10.0) as other:
        run = other.run("letters", "policy")
        rule = "lease_seconds: got 10.5, must be above 0 and at most 10"
        with pytest.raises(grpc.RpcError, match=rule):
            run.select(1, lease_seconds=10.5)
        assert run.select(1, lease_seconds=10).HasField("lease_expire_time")
