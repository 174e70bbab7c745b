"""Fixtures of the adapters' tests: a real service. Tests of one trainer's classes are in the folder of its name."""

from collections.abc import Iterator

import pytest

import bots
from tests.api.service import serving


@pytest.fixture
def address(redis_url: str) -> Iterator[str]:
    """Where a real server over an empty Redis is served."""
    with serving(redis_url) as service:
        yield service.address


@pytest.fixture
def client(address: str) -> Iterator[bots.Client]:
    """A client of the real server."""
    with bots.Client(address, job="trainer", timeout=20) as client:
        yield client
