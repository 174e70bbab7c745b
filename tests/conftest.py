"""What all tests share: a real Valkey on a private socket, Hypothesis' profiles, and that no process is left behind."""

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bots_server.store import Store, connect
from tests.valkey import Valkey, valkey

# The number of examples of a property: --hypothesis-profile chooses. No deadline: a busy machine breaks no law.
for profile, count in {"quick": 30, "nightly": 3000}.items():
    settings.register_profile(
        profile, max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
    )
settings.load_profile("quick")

_SESSION = "TEST_SESSION"  # in the environment of every process of a session, by which its processes are known


def pytest_xdist_auto_num_workers() -> int:
    """Returns two processes for each core: tests spend half their time waiting for servers."""
    return min(16, 2 * (os.cpu_count() or 1))


def pytest_configure(config: pytest.Config) -> None:
    """Marks the processes that this one is going to start, unless a controller has marked this one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored in the background
    if not hasattr(config, "workerinput"):
        os.environ[_SESSION] = uuid.uuid4().hex


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends what a test process that died has left behind (Linux)."""
    if hasattr(config, "workerinput"):
        return
    mark = f"{_SESSION}={os.environ[_SESSION]}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended by now, or is somebody else's
            if mark in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)


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
