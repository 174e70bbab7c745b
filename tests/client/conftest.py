"""Fixtures of the client's tests: a recorder in place of the service, and the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import bots
from tests.api.service import Service, serving
from tests.client.recorder import Recorder, served


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def address(recorder: Recorder) -> Iterator[str]:
    """Where the recorder is served."""
    with served(recorder) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[bots.Client]:
    """A client of the recorder."""
    with bots.Client(address, job="tester") as client:
        yield client


@pytest.fixture
def service(redis_url: str) -> Iterator[Service]:
    """A real server over an empty Redis, and a client of it."""
    with serving(redis_url) as service:
        yield service
