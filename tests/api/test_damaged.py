"""Damaged state: named by every call, passed over by listings and metrics, repaired by what the messages say."""

from typing import Any

import grpc
import pytest

import bots
from bots.v1 import task_selection_pb2 as pb
from tests.api.service import SECONDS, Run, Service, reason_of, serving


def redis_of(service: Service) -> Any:
    (client,) = service.redis.primaries()
    return client


def lose(service: Service, run: Run, suffix: str) -> None:
    """Deletes a key of a run."""
    (key,) = redis_of(service).keys(f"bots:*:run:{run.info().ref.uid}{suffix}")
    redis_of(service).delete(key)


def test_listings_and_metrics_pass_over_a_damaged_run(letters: Service, policy: Run) -> None:
    """A run without events is named by each call about it. The listing has it with its damage, the metrics count it."""
    good = letters.create("letters", "good")
    policy.report([1], [1])
    lose(letters, policy, ":events")
    lose(letters, letters.create("letters", "headless"), "")
    with serving(letters.redis_url) as other:
        run = other.run("letters", "policy")
        for call in (lambda: run.select(1), run.summary, run.events, lambda: run.report([1], [1]), run.checkpoint):
            with pytest.raises(grpc.RpcError) as caught:
                call("x") if call == run.checkpoint else call()  # type: ignore[call-arg]
            assert reason_of(caught.value) == "RUN_DAMAGED"
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS
            assert ":events lacks 1 events" in str(caught.value.details())
        other.run("letters", "good").select(1)
        listed = other.stub.ListRuns(pb.ListRunsRequest(dataset="letters"), timeout=SECONDS).runs
        damage = {one.ref.name: one.damage for one in listed}
        assert damage.keys() == {"policy", "good", "headless"}
        assert (damage["good"], damage["headless"].split()[-1]) == ("", "it")
        with bots.Client(other.address) as client:
            assert [one.name for one in client.list_runs("letters") if one.damage] == ["headless"]
        assert other.sample("bots_damaged_runs") == 1
        good.report([1], [1])
        assert other.sample("bots_run_version", dataset="letters", run="good") == 1
        for name in ("policy", "headless"):
            other.run("letters", name).delete()
    assert letters.create("letters", "policy").info().version == 0


def test_a_restore_heals_a_run(letters: Service, policy: Run) -> None:
    """After a restore from a checkpoint a run that lost its events or its head can be used as before."""
    for suffix in (":events", ""):
        policy.report([1], [1])
        policy.checkpoint(f"best{len(suffix)}")
        expected = policy.posteriors()
        lose(letters, policy, suffix)
        with serving(letters.redis_url) as other:
            run = other.run("letters", "policy")
            assert not run.restore(checkpoint=f"best{len(suffix)}").repeated_request
            assert all((one == two).all() for one, two in zip(run.posteriors(), expected, strict=True))
            assert run.report([1], [1]).version == run.info().version


def test_creating_a_dataset_again_repairs_it(letters: Service, policy: Run) -> None:
    """A dataset that lost its strata, or whose columns are damaged, is stored again and keeps its runs."""
    before = policy.posteriors()
    for part, change in (("strata", b""), ("columns:0", b"damaged")):
        (key,) = redis_of(letters).keys(f"bots:{{letters}}:*:{part}")
        redis_of(letters).set(key, change) if change else redis_of(letters).delete(key)
        with serving(letters.redis_url) as other:
            run = other.run("letters", "policy")
            with pytest.raises(grpc.RpcError, match="DATA_LOSS"):
                run.select(1)
            letters_again(other)
            assert all((one == two).all() for one, two in zip(run.posteriors(), before, strict=True))


def letters_again(service: Service) -> None:
    """Creates the dataset of the fixture again."""
    from tests.api.conftest import LETTERS, TAGS

    assert not service.dataset("letters", 26, ids=LETTERS, tags=TAGS).created
