"""The time that a call has left bounds every wait on Redis."""

from __future__ import annotations

import threading
import time

import pytest

from bots_server.errors import DeadlineExceeded, NotDurable
from bots_server.store import Durability, Level, Store, connect, remaining, within
from tests.store import records
from tests.valkey import replicated, valkey


def test_nothing_is_sent_after_the_deadline(store: Store) -> None:
    """A call whose time is over raises DeadlineExceeded before its first command, and changes nothing."""
    run = records.run(store)
    with within(0), pytest.raises(DeadlineExceeded):
        records.append(store, run)
    assert store.history.sync(run, 0, b"").version == 0
    assert remaining() is None


def test_a_long_read_ends_at_the_deadline(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of many commands stops at its deadline between two of them."""
    run = records.run(store)
    for _ in range(1500):
        records.append(store, run)
    now = iter([0.0, 1.0, 3.0])
    monkeypatch.setattr("bots_server.store.deadline.monotonic", lambda: next(now))
    with within(2), pytest.raises(DeadlineExceeded):  # the second page begins after 3 s
        store.history.events(run, 0, 1500)


def test_the_deadline_is_of_one_thread(store: Store) -> None:
    """A deadline bounds the calls of its own thread alone."""
    run = records.run(store)
    done: list[int] = []
    with within(0):
        thread = threading.Thread(target=lambda: done.append(records.append(store, run).version))
        thread.start()
        thread.join()
    assert done == [1]


def test_the_wait_for_replicas_ends_at_the_deadline() -> None:
    """A wait for durability takes no longer than the call has left, and the error has the time that was waited."""
    durability = Durability(level=Level.REPLICA, timeout_seconds=20)
    with replicated(1) as (primary, (replica,)):
        store = Store(connect(primary.url, timeout_seconds=30), durability=durability)
        run = records.run(store)
        replica.pause()
        start = time.monotonic()
        with within(0.2), pytest.raises(NotDurable, match=r"on 0 of 1 replicas within 0\.[12]\d* s"):
            records.append(store, run)
        assert time.monotonic() - start < 10
        replica.resume()
        store.close()


def test_a_broken_connection_is_not_made_again_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attempt at a command is not made if the time is over after the first."""
    with valkey() as server:
        retries: list[None] = []
        store = Store(connect(server.url, on_retry=lambda: retries.append(None)))
        store.ping()
        server.kill()
        now = iter([0.0, 1.0, 3.0])
        monkeypatch.setattr("bots_server.store.deadline.monotonic", lambda: next(now))
        with within(2), pytest.raises(DeadlineExceeded):
            store.ping()
        assert len(retries) <= 2  # redis-py may find it broken before it is used, and then when it is used
        store.close()
