"""What attacks and fuzzing found: the smallest call of each defect that was mended."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import Service, reason_of, serving
from tests.fuzz.session import check_refusal


@pytest.fixture
def service(redis_url: str) -> Iterator[Service]:
    """A server over an empty Redis."""
    with serving(redis_url) as service:
        yield service


@pytest.mark.parametrize(
    "fields",
    [
        {"quotas": pb.TagQuotas(tasks={"x" * 20_000: 2})},
        {"weights": pb.TagWeights(weights={"😀" * 20_000: 2})},
        {"tag_targets": {"é" * 20_000: 0.5}},
    ],
    ids=["quotas", "weights", "tag_targets"],
)
def test_refusal_of_a_long_name_reaches_the_caller(service: Service, fields: dict[str, Any]) -> None:
    """The field in the message is cut: gRPC replaces a status that is too large by RESOURCE_EXHAUSTED."""
    service.dataset("tagged", 2, tags=["a", "b"])
    with pytest.raises(grpc.RpcError) as refused:
        service.create("tagged", "run").select(2, **fields)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    check_refusal(refused.value)


@pytest.mark.parametrize("lease", [{}, {"lease_seconds": 60.0}], ids=["unclaimed", "claimed"])
def test_refusal_with_many_short_tags_reaches_the_caller(service: Service, lease: dict[str, float]) -> None:
    """The message names a few of the tags that lack tasks, and counts the others."""
    tags = [f"{tag:04d}" + "é" * 30 for tag in range(1024)]
    service.dataset("tagged", 1024, tags=tags)
    with pytest.raises(grpc.RpcError) as refused:
        service.create("tagged", "run").select(2048, quotas=pb.TagQuotas(tasks=dict.fromkeys(tags, 2)), **lease)
    check_refusal(refused.value)
    assert reason_of(refused.value) == "TOO_FEW_ELIGIBLE"
    assert (refused.value.details() or "").endswith("has 1 of 2; and 1016 more)")


@pytest.mark.parametrize("after", [10**14 - 1, 10**14, 2**53])
def test_events_after_a_huge_version_are_none(service: Service, after: int) -> None:
    """A version above 1e14 is not written in scientific notation, which Redis does not read."""
    service.dataset("bare", 2)
    run = service.create("bare", "run")
    run.report([0], [1])
    assert not run.events(after_version=after).events


@pytest.mark.parametrize("token", ["9" * 64, str(2**53 + 1), "٣", "-1", "1.0"])
def test_page_token_that_is_no_version_is_refused(service: Service, token: str) -> None:
    """INVALID_ARGUMENT, not an error of Redis."""
    service.dataset("bare", 2)
    with pytest.raises(grpc.RpcError) as refused:
        service.create("bare", "run").events(page_token=token)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    check_refusal(refused.value)
