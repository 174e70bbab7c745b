"""Fixtures of the client's tests: a recorder in place of the service, and the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import bots
from tests.api.service import serving
from tests.client.recorder import Recorder, served, steady


@pytest.fixture
def recorder() -> Recorder:
    """A service that answers every call, with a dataset of 100 tasks "t0" .. "t99"."""
    return steady()


@pytest.fixture
def address(recorder: Recorder) -> Iterator[str]:
    """Where the recorder is served."""
    with served(recorder) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[bots.Client]:
    """A client of the recorder."""
    with bots.Client(address, job="tester", timeout=2) as client:
        yield client


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run of the recorder's, whose tasks the client knows."""
    client.create_dataset("d", ids=[f"t{task}" for task in range(100)], tags=["even", "odd"] * 50)
    return client.create_run("d", "r")


@pytest.fixture
def real_address(redis_url: str) -> Iterator[str]:
    """Where a real server over an empty Redis is served."""
    with serving(redis_url) as service:
        yield service.address


@pytest.fixture
def real(real_address: str) -> Iterator[bots.Client]:
    """A client of the real server."""
    with bots.Client(real_address, job="ours", timeout=20) as client:
        yield client
