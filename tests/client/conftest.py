"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import bots
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
