"""Fixtures that all tests share: a real Valkey on a private socket, empty at the start of each test."""

from collections.abc import Iterator

import pytest

from bots_server.store import Store, connect
from tests.valkey import Valkey, valkey


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One Valkey for all tests that do not hurt it."""
    with valkey() as server:
        yield server


@pytest.fixture
def redis_url(shared_valkey: Valkey) -> str:
    """The URL of an empty Redis."""
    with shared_valkey.client() as client:
        client.flushall()
    return shared_valkey.url


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    """A store over an empty Redis."""
    client = connect(redis_url, timeout_seconds=10)
    store = Store(client)
    yield store
    store.close()
