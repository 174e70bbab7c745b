"""GetServer: what answers, and what its Redis puts at risk."""

import time
from importlib.metadata import version

import grpc
import pytest

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import SECONDS, Service, reason_of, serving
from tests.valkey import valkey


def told(service: Service) -> pb.GetServerResponse:
    return service.stub.GetServer(pb.GetServerRequest(), timeout=SECONDS)


def test_server_tells_its_version_clocks_and_durability(service: Service) -> None:
    """The times lie between those of the caller before and after, as all are of one machine."""
    before = int(time.time() * 1000)
    answer = told(service)
    after = time.time() * 1000
    assert (answer.version, answer.durability) == (version("bots-server"), pb.DURABILITY_MEMORY)
    assert before <= answer.redis_time.ToMilliseconds() <= answer.time.ToMilliseconds() <= after


def test_risks_are_those_of_redis_now() -> None:
    """A change of Redis' configuration is in the next answer."""
    with valkey("--appendonly", "yes") as store, serving(store.url) as service, store.client() as redis:
        assert not told(service).risks
        redis.config_set("maxmemory-policy", "allkeys-lru")
        (risk,) = told(service).risks
        assert risk.startswith("maxmemory-policy is allkeys-lru: ")


def test_server_without_its_redis_is_unavailable() -> None:
    """With the reason, so that it is told from a server that is away."""
    with valkey() as store, serving(store.url, redis_timeout_seconds=0.5) as service:
        store.kill()
        with pytest.raises(grpc.RpcError) as error:
            told(service)
    assert isinstance(error.value, grpc.Call)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(error.value) == "STORE_UNAVAILABLE"
