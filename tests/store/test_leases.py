"""No two live selections of a run share a task."""

from __future__ import annotations

import random
import threading
import uuid
from functools import partial

import pytest

from bots_server.errors import RequestIdReused, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Claim, Holder, Part, Store
from tests.store import records
from tests.valkey import wait_until


def claim(
    store: Store,
    run: storage_pb2.RunRecord,
    *parts: tuple[int, list[int]],
    selection: str = "",
    request_id: str = "",
    digest: bytes = b"request",
    job: str = "",
    incarnation: str = "",
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
        holder=Holder(job=job),
        incarnation=incarnation,
        lease_seconds=lease_seconds,
        allow_fewer=allow_fewer,
    )


def leases(store: Store, run: storage_pb2.RunRecord) -> int:
    return store.history.sync(run, 0, b"").live_leases


def kept(store: Store, run: storage_pb2.RunRecord) -> list[int]:
    """Returns the sizes of the three keys that leases have."""
    names = records.KEYS.of_run(run)
    return [
        records.redis_of(store).zcard(names.leases),
        records.redis_of(store).hlen(names.owners),
        records.redis_of(store).hlen(names.selections),
    ]


def test_the_first_free_tasks_are_taken(store: Store) -> None:
    """A part takes its first `need` tasks that no live selection has."""
    run = records.run(store)
    first = claim(store, run, (2, [7, 8, 9]))
    assert (first.taken, first.short, first.leased, first.repeated) == ([0, 1], [0], 0, False)
    second = claim(store, run, (2, [6, 7, 8, 9]))
    assert (second.taken, second.leased) == ([0, 3], 2)
    assert leases(store, run) == 4


def test_parts_take_tasks_in_order(store: Store) -> None:
    """No part takes a task that an earlier part took; positions count through all candidates."""
    run = records.run(store)
    claim(store, run, (1, [3]))
    taken = claim(store, run, (2, [1, 2, 3]), (0, [4]), (2, [1, 3, 5, 2, 6])).taken
    assert taken == [0, 1, 6, 8]


def test_all_or_nothing_is_taken(store: Store) -> None:
    """If a part is short, nothing is taken, unless fewer tasks are accepted."""
    run = records.run(store)
    claim(store, run, (2, [1, 2]))
    one = records.request_id()
    short = claim(store, run, (1, [3]), (3, [1, 2, 4]), request_id=one)
    assert (short.taken, short.short, short.leased) == ([], [0, 2], 2)
    assert (leases(store, run), records.redis_of(store).hexists(records.KEYS.of_run(run).answers, one)) == (2, 0)
    fewer = claim(store, run, (1, [3]), (3, [1, 2, 4]), request_id=one, allow_fewer=True)
    assert (fewer.taken, fewer.short, leases(store, run)) == ([0, 3], [0, 2], 4)
    none = claim(store, run, (1, [1]), allow_fewer=True)
    assert (none.taken, kept(store, run)) == ([], [4, 4, 2])


def test_repeat_returns_the_first_answer(store: Store) -> None:
    """A repeat of the request id gets the first answer and its offer, whatever it offers itself, for an hour."""
    run = records.run(store)
    one = records.request_id()
    first = claim(store, run, (2, [1, 2, 3]), request_id=one, selection="first")
    again = claim(store, run, (2, [4, 5, 6]), request_id=one, selection="second")
    assert (again.repeated, again.taken, again.short, again.expire_time_ms) == (True, [0, 1], [0], first.expire_time_ms)
    assert again.offer == storage_pb2.Offer(selection_id="first", tasks=[1, 2, 3])
    assert leases(store, run) == 2
    assert 3_590_000 < records.redis_of(store).pttl(records.KEYS.of_run(run).answers) <= 3_600_000
    with pytest.raises(RequestIdReused, match=one):
        claim(store, run, (2, [4, 5, 6]), request_id=one, digest=b"another")


def test_a_call_that_is_sent_twice_leases_once(store: Store) -> None:
    """A call without request id that is sent twice leases once; without a lease it changes nothing."""
    run = records.run(store)
    first, again = (claim(store, run, (2, [1, 2, 3]), selection="one") for _ in range(2))
    assert (again.taken, again.expire_time_ms, leases(store, run)) == (first.taken, first.expire_time_ms, 2)
    before = records.redis_of(store).dbsize()
    assert claim(store, run, (2, [1, 2, 3, 4]), lease_seconds=None, allow_fewer=True).taken == [2, 3]
    assert records.redis_of(store).dbsize() == before


def test_a_selection_without_a_lease_respects_leases(store: Store) -> None:
    """A selection without a lease respects the leases of others and takes none."""
    run = records.run(store)
    claim(store, run, (1, [1]))
    free = claim(store, run, (1, [1, 2]), lease_seconds=None, request_id=records.request_id())
    assert (free.taken, free.expire_time_ms, leases(store, run)) == ([1], None, 1)


def test_a_release_ends_the_leases_of_its_selection_alone(store: Store) -> None:
    """A release ends the leases of its own selection, all or those of the given tasks, and of no other."""
    run = records.run(store)
    claim(store, run, (3, [1, 2, 5]), selection="one")
    claim(store, run, (2, [3, 4]), selection="two")
    assert store.leases.release(run, "nobody") == 0
    assert store.leases.release(run, "one", [3, 9]) == 0
    assert store.leases.release(run, "one", []) == 0
    assert store.leases.release(run, "one", [5, 3]) == 1
    assert (leases(store, run), kept(store, run)) == (4, [4, 4, 2])
    assert store.leases.release(run, "one") == 2
    assert store.leases.release(run, "one") == 0
    claim(store, run, (2, [1, 2]), selection="three")
    assert store.leases.release(run, "one", [1]) == 0
    assert (leases(store, run), kept(store, run)) == (4, [4, 4, 2])


def test_a_report_ends_the_leases_of_the_tasks_reported(store: Store) -> None:
    """A report of a part of a selection ends the leases of this part, and only those that the selection owns."""
    run = records.run(store)
    claim(store, run, (8, list(range(8))), selection="one")
    claim(store, run, (2, [8, 9]), selection="two")

    def report(*tasks: int, selection: str) -> int:
        return records.append(store, run, records.report(*tasks, selection_id=selection)).released

    assert report(0, 1, selection="one") == 2
    assert (leases(store, run), kept(store, run)) == (8, [8, 8, 2])
    assert report(0, 1, selection="one") == 0
    assert report(2, 8, selection="one") == 1
    assert report(3, selection="") == 0
    assert report(3, selection="nobody") == 0
    assert leases(store, run) == 7
    assert report(*range(10), selection="one") == 5
    assert (leases(store, run), kept(store, run)) == (2, [2, 2, 1])
    assert report(8, 9, selection="two") == 2
    assert kept(store, run) == [0, 0, 0]


def test_the_repeat_of_a_report_ends_no_lease(store: Store) -> None:
    """A task that was leased again since its report stays leased when the report is repeated."""
    run = records.run(store)
    claim(store, run, (1, [1]), selection="one")
    one, event = records.request_id(), records.report(1, selection_id="one")
    assert store.history.append(run, event, request_id=one, digest=b"contents").released == 1
    claim(store, run, (1, [1]), selection="two")
    assert store.history.append(run, event, request_id=one, digest=b"contents").released == 0
    assert leases(store, run) == 1


def test_a_new_incarnation_of_a_job_ends_the_leases_of_the_earlier_ones(store: Store) -> None:
    """A claim of a new incarnation ends the leases of the job's earlier incarnations, and may take their tasks; other
    jobs, and calls without job or incarnation, end nothing.
    """
    run = records.run(store)
    claim(store, run, (2, [1, 2]), job="a", incarnation="first")
    claim(store, run, (1, [3]), job="a", incarnation="first")
    claim(store, run, (1, [4]), job="b", incarnation="first")
    claim(store, run, (1, [5]), job="a")
    claim(store, run, (1, [6]), incarnation="second")
    assert leases(store, run) == 6
    again = claim(store, run, (2, [1, 2, 4, 7]), job="a", incarnation="second")
    assert (again.taken, again.ended, again.leased) == ([0, 1], 3, 3)
    assert claim(store, run, (1, [8]), job="a", incarnation="second").ended == 0
    assert (leases(store, run), kept(store, run)) == (6, [6, 6, 5])


def test_a_late_call_of_an_earlier_incarnation_ends_nothing(store: Store) -> None:
    """A call of an incarnation that has a successor leases, but ends no lease of its successor."""
    run = records.run(store)
    for number in range(16):
        assert claim(store, run, (1, [number]), job="a", incarnation=f"i{number}").ended == min(number, 1)
    assert claim(store, run, (1, [20]), job="a", incarnation="i0").ended == 0
    assert leases(store, run) == 2
    assert claim(store, run, (1, [21]), job="a", incarnation="i16").ended == 2
    assert leases(store, run) == 1


def test_a_restore_ends_all_leases(store: Store) -> None:
    """Of every job, with their records; the repeat of its request id ends none that began since."""
    run = records.run(store)
    claim(store, run, (2, [1, 2]), job="a", incarnation="first")
    claim(store, run, (1, [3]))
    event = storage_pb2.Event(restored=storage_pb2.Restored(version=0, state_uid="a" * 32))
    one = records.request_id()
    restore = partial(
        store.history.append, run, event, request_id=one, digest=b"contents", state=storage_pb2.Snapshot()
    )
    assert (restore().released, kept(store, run)) == (3, [0, 0, 0])
    claim(store, run, (1, [1]), job="a", incarnation="first")
    assert (restore().repeated, leases(store, run)) == (True, 1)


def test_leases_are_listed_by_selection(store: Store) -> None:
    """With their job, the number of tasks that are left, and the time; those that are over are not among them."""
    run = records.run(store)
    assert store.leases.list(run) == []
    claim(store, run, (3, [1, 2, 3]), selection="b", job="job 7 é", incarnation="first", lease_seconds=60)
    claim(store, run, (1, [4]), selection="c", lease_seconds=30)
    claim(store, run, (1, [5]), selection="a", lease_seconds=0.001)
    records.append(store, run, records.report(2, selection_id="b"))
    wait_until(lambda: len(store.leases.list(run)) == 2, "the short lease is over")
    first, second = store.leases.list(run)
    assert (first.selection_id, first.holder.job, first.tasks) == ("b", "job 7 é", 2)
    assert (second.selection_id, second.holder.job, second.tasks) == ("c", "", 1)
    assert 50_000 < first.remaining_ms <= 60_000
    assert 20_000 < second.remaining_ms <= 30_000
    assert [one.selection_id for one in store.leases.list(run, after="b")] == ["c"]
    assert [one.selection_id for one in store.leases.list(run, limit=1)] == ["b"]


def test_incarnations_are_of_a_job(store: Store) -> None:
    """An identity without a job has none, so that its processes end nothing of one another."""
    run = records.run(store)
    holders = [Holder("alice"), Holder("alice"), Holder("alice", "a"), Holder("bob", "a"), Holder("", "a")]
    for task, holder in enumerate(holders):
        offer = storage_pb2.Offer(selection_id=f"s{task}", tasks=[task])
        part = [Part(1, [task])]
        claimed = store.leases.claim(run, part, offer, holder=holder, incarnation=f"i{task}", lease_seconds=60)
        assert claimed.ended == 0
    assert [one.holder for one in store.leases.list(run)] == holders


def test_leases_of_a_job_end(store: Store) -> None:
    """All of its incarnations and those without one; of no other job, whatever its name begins with."""
    run = records.run(store)
    claim(store, run, (2, [1, 2]), job="a", incarnation="first")
    claim(store, run, (1, [3]), job="a")
    claim(store, run, (1, [4]), job="ab", incarnation="first")
    claim(store, run, (1, [5]))
    assert [store.leases.end(run, Holder(job="a")) for _ in range(2)] == [3, 0]
    assert (store.leases.end(run, Holder()), leases(store, run)) == (1, 1)
    assert (store.leases.end(run, None), kept(store, run)) == (1, [0, 0, 0])


def test_a_short_claim_of_a_new_incarnation_ends_the_earlier_leases_once(store: Store) -> None:
    """A claim that takes nothing still begins its incarnation, and the next one of it ends nothing more."""
    run = records.run(store)
    claim(store, run, (1, [1]), job="a", incarnation="first")
    claim(store, run, (1, [2]), job="b", incarnation="first")
    short = claim(store, run, (2, [1, 2]), job="a", incarnation="second")
    assert (short.taken, short.short, short.ended, leases(store, run)) == ([], [1], 1, 1)
    full = claim(store, run, (2, [1, 3]), job="a", incarnation="second")
    assert (full.taken, full.ended, leases(store, run)) == ([0, 1], 0, 3)


def test_a_lease_that_is_over_frees_its_tasks(store: Store) -> None:
    """A lease that is over frees its tasks without a call, and the next claim purges its records."""
    run = records.run(store)
    claim(store, run, (1, [4]), selection="long")
    brief = claim(store, run, (3, [1, 2, 3]), selection="brief", lease_seconds=0.02)
    assert brief.expire_time_ms is not None
    wait_until(lambda: leases(store, run) == 1, "the lease ends")
    assert kept(store, run) == [4, 4, 2]
    taken = claim(store, run, (2, [1, 4, 2]), selection="next")
    assert (taken.taken, taken.leased, taken.expired) == ([0, 2], 1, 3)
    assert kept(store, run) == [3, 3, 2]
    assert store.leases.release(run, "brief") == 0
    assert leases(store, run) == 3


def test_only_live_leases_count_as_released(store: Store) -> None:
    """A lease that is over was ended by the clock: neither a release nor a report counts it as released."""
    run = records.run(store)
    claim(store, run, (2, [1, 2]), selection="one")
    claim(store, run, (2, [3, 4]), selection="two")
    records.redis_of(store).zadd(records.KEYS.of_run(run).leases, {"1": 1, "3": 1})  # their time is over
    assert store.leases.release(run, "one") == 1
    assert records.append(store, run, records.report(3, 4, selection_id="two")).released == 1
    assert kept(store, run) == [0, 0, 0]


def test_a_deleted_run_gives_no_tasks(store: Store) -> None:
    """Claims and releases of a deleted run raise RunReplaced."""
    run = records.run(store)
    store.runs.delete(run)
    with pytest.raises(RunReplaced):
        claim(store, run, (1, [1]))
    with pytest.raises(RunReplaced):
        store.leases.release(run, "one")


def test_concurrent_claims_share_no_task(store: Store) -> None:
    """Jobs that claim one task at a time, all at once, never hold a task together."""
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


def test_the_largest_batch_is_claimed_and_released(store: Store) -> None:
    """A batch of 10,000 out of 30,000 candidates is claimed and released."""
    run = records.run(store)
    claim(store, run, (10_000, list(range(10_000))), selection="one")
    assert claim(store, run, (10_000, list(range(30_000))), selection="two").taken == list(range(10_000, 20_000))
    assert store.leases.release(run, "one") == 10_000
    assert leases(store, run) == 10_000
