"""No two live selections of a run share a task."""

from __future__ import annotations

import random
import threading
import uuid

import pytest

from bots_server.errors import RequestIdReused, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Claim, Part, Store, keys
from tests.store import records
from tests.valkey import wait_until


def claim(
    store: Store,
    run: storage_pb2.RunRecord,
    *parts: tuple[int, list[int]],
    selection: str = "",
    request_id: str = "",
    digest: bytes = b"request",
    lease_seconds: float | None = 60,
    allow_fewer: bool = False,
) -> Claim:
    offer = storage_pb2.Offer(
        selection_id=selection or str(uuid.uuid4()), tasks=[task for _, tasks in parts for task in tasks]
    )
    return store.leases.claim(
        run,
        [Part(need, tasks) for need, tasks in parts],
        offer,
        request_id=request_id,
        digest=digest,
        lease_seconds=lease_seconds,
        allow_fewer=allow_fewer,
    )


def leases(store: Store, run: storage_pb2.RunRecord) -> int:
    return store.history.sync(run, 0, b"").leases


def kept(store: Store, run: storage_pb2.RunRecord) -> list[int]:
    """Returns the sizes of the three keys that leases have."""
    names = keys.of_run(run)
    return [
        store._database.client.zcard(names.leases),
        store._database.client.hlen(names.owners),
        store._database.client.hlen(names.selections),
    ]


def test_first_free_ones(store: Store) -> None:
    """A part takes its first `need` tasks that no live selection has."""
    run = records.run(store)
    first = claim(store, run, (2, [7, 8, 9]))
    assert (first.taken, first.short, first.leased, first.repeated) == ([0, 1], [0], 0, False)
    second = claim(store, run, (2, [6, 7, 8, 9]))
    assert (second.taken, second.leased) == ([0, 3], 2)
    assert leases(store, run) == 4


def test_parts_in_order(store: Store) -> None:
    """No part takes what an earlier part took; positions count through all candidates."""
    run = records.run(store)
    claim(store, run, (1, [3]))
    taken = claim(store, run, (2, [1, 2, 3]), (0, [4]), (2, [1, 3, 5, 2, 6])).taken
    assert taken == [0, 1, 6, 8]


def test_all_or_nothing(store: Store) -> None:
    """Where a part comes out short nothing is taken, unless fewer will do."""
    run = records.run(store)
    claim(store, run, (2, [1, 2]))
    one = records.request_id()
    short = claim(store, run, (1, [3]), (3, [1, 2, 4]), request_id=one)
    assert (short.taken, short.short, short.leased) == ([], [0, 2], 2)
    assert (leases(store, run), store._database.client.exists(keys.of_run(run).answer(one))) == (2, 0)
    fewer = claim(store, run, (1, [3]), (3, [1, 2, 4]), request_id=one, allow_fewer=True)
    assert (fewer.taken, fewer.short, leases(store, run)) == ([0, 3], [0, 2], 4)
    none = claim(store, run, (1, [1]), allow_fewer=True)
    assert (none.taken, kept(store, run)) == ([], [4, 4, 2])


def test_repeat_returns_the_first_answer(store: Store) -> None:
    """A repeat of the request id gets the first answer and its offer, whatever it offers itself; kept ten minutes."""
    run = records.run(store)
    one = records.request_id()
    first = claim(store, run, (2, [1, 2, 3]), request_id=one, selection="first")
    again = claim(store, run, (2, [4, 5, 6]), request_id=one, selection="second")
    assert (again.repeated, again.taken, again.short, again.expire_time_ms) == (True, [0, 1], [0], first.expire_time_ms)
    assert again.offer == storage_pb2.Offer(selection_id="first", tasks=[1, 2, 3])
    assert leases(store, run) == 2
    assert 590_000 < store._database.client.pttl(keys.of_run(run).answer(one)) <= 600_000
    with pytest.raises(RequestIdReused, match=one):
        claim(store, run, (2, [4, 5, 6]), request_id=one, digest=b"another")


def test_a_call_that_is_sent_twice(store: Store) -> None:
    """A call without request id that redis-py sends twice leases once; without a lease it changes nothing."""
    run = records.run(store)
    first, again = (claim(store, run, (2, [1, 2, 3]), selection="one") for _ in range(2))
    assert (again.taken, again.expire_time_ms, leases(store, run)) == (first.taken, first.expire_time_ms, 2)
    before = store._database.client.dbsize()
    assert claim(store, run, (2, [1, 2, 3, 4]), lease_seconds=None, allow_fewer=True).taken == [2, 3]
    assert store._database.client.dbsize() == before


def test_without_a_lease(store: Store) -> None:
    """A selection without a lease respects the leases of others and takes none."""
    run = records.run(store)
    claim(store, run, (1, [1]))
    free = claim(store, run, (1, [1, 2]), lease_seconds=None, request_id=records.request_id())
    assert (free.taken, free.expire_time_ms, leases(store, run)) == ([1], None, 1)


def test_release_by_its_owner_alone(store: Store) -> None:
    """A release, and a report that completes, free the selection's own tasks and no other's."""
    run = records.run(store)
    claim(store, run, (2, [1, 2]), selection="one")
    claim(store, run, (2, [3, 4]), selection="two")
    assert store.leases.release(run, "nobody") == 0
    assert store.leases.release(run, "one") == 2
    assert store.leases.release(run, "one") == 0
    claim(store, run, (2, [1, 2]), selection="three")
    assert leases(store, run) == 4

    def report(selection: str, complete: bool) -> int:
        appended = store.history.append(
            run,
            records.report(),
            request_id=records.request_id(),
            digest=b"contents",
            selection_id=selection,
            complete=complete,
        )
        return appended.released

    assert report("one", True) == 0
    assert report("two", False) == 0
    assert leases(store, run) == 4
    assert report("two", True) == 2
    assert leases(store, run) == 2
    assert kept(store, run) == [2, 2, 1]


def test_the_clock_frees(store: Store) -> None:
    """A lease that is over frees its tasks without anybody's doing, and the next claim purges what is kept of it."""
    run = records.run(store)
    brief = claim(store, run, (3, [1, 2, 3]), selection="brief", lease_seconds=0.02)
    claim(store, run, (1, [4]), selection="long")
    assert brief.expire_time_ms is not None
    wait_until(lambda: leases(store, run) == 1, "the lease ends")
    assert kept(store, run) == [4, 4, 2]
    taken = claim(store, run, (2, [1, 4, 2]), selection="next")
    assert (taken.taken, taken.leased, taken.expired) == ([0, 2], 1, 3)
    assert kept(store, run) == [3, 3, 2]
    assert store.leases.release(run, "brief") == 0
    assert leases(store, run) == 3


def test_only_live_leases_are_released(store: Store) -> None:
    """A lease that is over was ended by the clock: neither a release nor a report counts it as released."""
    run = records.run(store)
    claim(store, run, (2, [1, 2]), selection="one")
    claim(store, run, (2, [3, 4]), selection="two")
    store._database.client.zadd(keys.of_run(run).leases, {"1": 1, "3": 1})  # their time is over
    assert store.leases.release(run, "one") == 1
    one = records.request_id()
    appended = store.history.append(run, records.report(), request_id=one, digest=b"contents", selection_id="two")
    assert appended.released == 1
    assert kept(store, run) == [0, 0, 0]


def test_deleted_run(store: Store) -> None:
    """A deleted run gives no tasks."""
    run = records.run(store)
    store.runs.delete(run)
    with pytest.raises(RunReplaced):
        claim(store, run, (1, [1]))
    with pytest.raises(RunReplaced):
        store.leases.release(run, "one")


def test_concurrent_claims(store: Store) -> None:
    """Jobs that refill one task at a time, all at once, never hold a task together."""
    run = records.run(store)
    held: set[int] = set()
    guard = threading.Lock()

    def job(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            tasks = rng.sample(range(40), 24)
            selection = str(uuid.uuid4())
            mine = claim(store, run, (1, tasks), selection=selection, allow_fewer=True)
            for position in mine.taken:
                with guard:
                    assert tasks[position] not in held
                    held.add(tasks[position])
            with guard:
                held.difference_update(tasks[position] for position in mine.taken)
            assert store.leases.release(run, selection) == len(mine.taken)

    failed: list[BaseException] = []

    def guarded(seed: int) -> None:
        try:
            job(seed)
        except BaseException as error:  # shown by the main thread
            failed.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert (leases(store, run), kept(store, run)) == (0, [0, 0, 0])


def test_largest_batch(store: Store) -> None:
    """A batch of 10,000 out of 30,000 candidates is claimed and released."""
    run = records.run(store)
    claim(store, run, (10_000, list(range(10_000))), selection="one")
    assert claim(store, run, (10_000, list(range(30_000))), selection="two").taken == list(range(10_000, 20_000))
    assert store.leases.release(run, "one") == 10_000
    assert leases(store, run) == 10_000
