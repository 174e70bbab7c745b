"""Jobs report and select through several servers while parts of it fail; afterwards the validator judges all of it.

Traffic (`traffic.py`), failpoints (`failpoints.py`), model (`model.py`) and validator (`validator.py`), after etcd's
robustness tests. `make soak` does the same for as long as it is told, with every failpoint in random order.

Bugs found, and the tests that reproduce them:

 * A lease did not wait for the configured durability, so a failover forgot it, and its tasks were leased again:
   test_a_lease_that_no_replica_has_is_not_granted
 * With `appendfsync no` a server took --durability fsync, which such a Redis never confirms, and refused every report:
   test_a_level_that_redis_cannot_give_stops_the_start
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

import bots
from bots.request_ids import new_request_id
from bots_server.store import choose_durability, connect
from tests.faults.deployment import Deployment, copy_file, deployed, in_step, put_back
from tests.faults.failpoints import FAILPOINTS, Failpoint, struck
from tests.faults.model import Content, Dataset, Entry, History, Hyperparameters, Outcomes, Restore, replay
from tests.faults.traffic import DATASET
from tests.faults.validator import TOLERANCE, Verdict, check_servers, outage, validate
from tests.valkey import valkey, wait_until

TASKS = Dataset.draw(seed=7, size=300)
BUSY_SECONDS = 5.0  # that a busy machine may take to run what is due
BY_NAME = {failpoint.name: failpoint for failpoint in FAILPOINTS}


@pytest.fixture(scope="module")
def single() -> Iterator[Deployment]:
    """Two servers over one Redis; an acknowledged report is on its disk, at once."""
    with deployed("single", "fsync", TASKS, appendfsync="always") as deployment:
        yield deployment


def judged(deployment: Deployment, failpoints: list[Failpoint], seed: int = 1) -> tuple[Verdict, History]:
    """Returns the verdict on a new run whose jobs worked while the failpoints struck, and sees that it is right."""
    history = struck(deployment, failpoints, seed)
    verdict = validate(history, TASKS, deployment.show())
    for fault in history.faults:
        print(f"{fault.name}: no acknowledgement for {outage(history, fault):.2f} s")
    print(verdict)
    assert verdict.violations == []
    assert verdict.doubled == 0
    assert verdict.acknowledged > 10
    return verdict, history


# ------------------------------------------------------------------------------------------------ whatever fails


def test_nothing_is_lost_around_one_redis(single: Deployment) -> None:
    """An acknowledged report is stored at the configured durability and applied exactly once, whatever fails of the
    servers, of the ways between, and of Redis itself."""
    failpoints = [one for one in FAILPOINTS if "single" in one.forms and "fsync" in one.covered_by]
    verdict, history = judged(single, random.Random(3).sample(failpoints, len(failpoints)))
    assert verdict.lost == 0
    assert "STORE_FULL" in {reason for _, reason in history.errors}


def test_an_older_file_takes_back_the_end_and_nothing_else(single: Deployment) -> None:
    """Where Redis comes back with an older file the reports since are lost whole, and all servers agree on the rest."""
    verdict, _ = judged(single, [BY_NAME["older_file"]])
    assert 0 < verdict.lost < verdict.acknowledged


@pytest.fixture(scope="module")
def pair() -> Iterator[Deployment]:
    """Two servers over a primary and its replica; an acknowledged report is on both."""
    with deployed("pair", "replica", TASKS) as deployment:
        yield deployment


def test_a_lagging_replica_takes_over(pair: Deployment) -> None:
    """A primary whose replica has fallen behind acknowledges nothing at durability replica, so nothing is lost with
    it."""
    verdict, _ = judged(pair, [BY_NAME["replica_lags_and_takes_over"]])
    assert verdict.lost == 0


def test_a_lease_that_no_replica_has_is_not_granted(pair: Deployment) -> None:
    """No two live selections of a run share a task, also where the primary that granted one is lost."""
    pair.new_run()
    assert pair.replication is not None
    with pair.client(0, timeout=2) as client:
        run = client.run(DATASET, pair.run)
        kept = run.select(100, lease_seconds=600)
        pair.replication.refusing = True
        pair.replication.cut()
        with pytest.raises(bots.TemporaryError):
            run.select(100, lease_seconds=600)
        # The primary is lost, and with it what it alone knew.
        pair.fail_over()
        pair.wait_until_serving()
        # A late repeat of the selection that nobody was answered may hold a hundred there.
        others = run.select(200, lease_seconds=600, allow_fewer=True)
        assert len(others) >= 100
        assert not set(kept.tasks) & set(others.tasks)


@pytest.fixture(scope="module")
def hasty() -> Iterator[Deployment]:
    """Two servers over a primary and its replica; an acknowledged report is on the primary alone."""
    with deployed("pair", "memory", TASKS) as deployment:
        yield deployment


def test_what_memory_alone_had_is_lost_with_it(hasty: Deployment) -> None:
    """At durability memory a failover to a replica that has fallen behind loses what was acknowledged since, whole and
    from the end, and all servers agree on the rest."""
    verdict, _ = judged(hasty, [BY_NAME["replica_lags_and_takes_over"]])
    assert 0 < verdict.lost < verdict.acknowledged


def test_min_replicas_to_write_bounds_what_a_failover_loses(hasty: Deployment) -> None:
    """A primary that hears of no replica stops to take reports within min-replicas-max-lag and the two seconds that it
    takes to see that, so that a failover loses no more than what was acknowledged in that time."""
    hasty.new_run()
    assert hasty.replication is not None
    with hasty.primary.client() as admin:
        admin.config_set("min-replicas-to-write", 1)
        admin.config_set("min-replicas-max-lag", 1)
    with hasty.client(0, timeout=2) as client:
        run = client.run(DATASET, hasty.run)
        assert run.report([1], 1, 4) == 1
        wait_until(lambda: in_step(hasty.primary, 1), "the replica has it")
        hasty.replication.holding = True
        began = last = time.monotonic()
        acknowledged = 1
        with suppress(bots.TemporaryError):
            while last < began + 20:
                acknowledged = run.report([1], 1, 4) or 0
                last = time.monotonic()
        assert last < began + 1 + 2 + BUSY_SECONDS
        assert acknowledged > 1
        hasty.replication.refusing = True
        hasty.replication.cut()
        hasty.replication.holding = False
        hasty.fail_over()
        hasty.wait_until_serving()
        assert run.info().version == 1


def test_sentinel_fails_over() -> None:
    """Sentinel makes the replica the primary, and no report that it had is lost."""
    with deployed("sentinel", "replica", TASKS, servers=1) as deployment:
        verdict, _ = judged(deployment, [BY_NAME["primary_killed"]])
        assert verdict.lost == 0


def test_cluster_fails_over() -> None:
    """A cluster makes the replica the primary, and no report that it had is lost."""
    with deployed("cluster", "replica", TASKS, servers=1) as deployment:
        verdict, _ = judged(deployment, [BY_NAME["primary_killed"]])
        assert verdict.lost == 0


def test_a_level_that_redis_cannot_give_stops_the_start() -> None:
    """A server whose Redis never reports a write as synced does not start with durability fsync."""
    persistence = ["--appendonly", "yes", "--appendfsync", "no"]
    refused = pytest.raises(ValueError, match="appendfsync no")
    with valkey(*persistence) as store, refused:
        choose_durability(connect(store.url), "fsync")


# ------------------------------------------------------------------------------------------------ idempotency


def test_a_report_whose_answer_is_lost_counts_once(single: Deployment) -> None:
    """The connection to Redis drops after the commit and before the answer, every time; the report counts once."""
    single.new_run()
    assert single.store is not None
    with single.client(0, timeout=2) as client:
        run = client.run(DATASET, single.run)
        assert run.report([1], 1, 4) == 1
        request_id = new_request_id()
        single.store.losing = True
        with pytest.raises(bots.TemporaryError):
            run.report([2], 2, 4, request_id=request_id)
        single.store.cut()
        single.store.losing = False
        assert run.report([2], 2, 4, request_id=request_id) == 2
        assert run.info().version == 2
        assert [event.request_id for event in run.events()][1:] == [request_id]


def test_one_report_through_all_servers_at_once(single: Deployment) -> None:
    """Of concurrent calls with one request_id one is applied, and the others get its answer; other content under the id
    is refused, by every server."""
    single.new_run()
    with single.client(0) as one, single.client(1) as other, ThreadPoolExecutor(8) as threads:
        runs = [client.run(DATASET, single.run) for client in (one, other)] * 4
        for version in range(1, 6):
            request_id = new_request_id()
            answers = list(threads.map(lambda run, of=request_id: run.report([3], 1, 4, request_id=of), runs))
            assert answers == [version] * 8
            for run in runs[:2]:
                with pytest.raises(bots.InvalidArgumentError, match="other content"):
                    run.report([3], 2, 4, request_id=request_id)
        assert runs[0].info().version == 5


def test_one_selection_through_all_servers_at_once(single: Deployment) -> None:
    """Of concurrent selections with one request_id one is made, and the others get its answer."""
    single.new_run()
    with single.client(0) as one, single.client(1) as other, ThreadPoolExecutor(8) as threads:
        runs = [client.run(DATASET, single.run) for client in (one, other)] * 4
        for leased in range(10, 60, 10):
            request_id = new_request_id()
            batches = list(
                threads.map(lambda run, of=request_id: run.select(10, lease_seconds=600, request_id=of), runs)
            )
            assert len({batch.selection_id for batch in batches}) == 1
            assert len({tuple(batch.tasks) for batch in batches}) == 1
            assert runs[0].summary().live_leases == leased


def test_all_ranks_of_a_job_create_what_they_need(single: Deployment) -> None:
    """Of concurrent creations of one dataset and one run, at all servers, one is made, and all get it."""
    with single.client(0) as one, single.client(1) as other, ThreadPoolExecutor(8) as threads:

        def create(client: bots.Client) -> tuple[str, str]:
            dataset = client.create_dataset("ranks", size=1000)
            run = client.create_run("ranks", "policy", target=0.4)
            run.report([1], 1, 4)
            return dataset.uid, run.uid

        assert len(set(threads.map(create, [one, other] * 4))) == 1
        assert one.run("ranks", "policy").info().version == 8
        one.delete_dataset("ranks", delete_runs=True)


# ------------------------------------------------------------------------------------------------ one history


def test_a_server_ahead_of_redis_goes_back_with_it(single: Deployment) -> None:
    """A server that has folded events that Redis lost notices at its next sync, though as many were appended meanwhile,
    and shows what the surviving log leads to."""
    single.new_run()
    with single.client(0) as ahead, single.client(1) as other:
        run, elsewhere = (client.run(DATASET, single.run) for client in (ahead, other))
        for task in range(5):
            run.report([task], 1, 4)

        copy = copy_file(single.primary)
        for task in range(5, 10):
            run.report([task], 4, 4)
        assert run.select(8).version == 10
        put_back(single.primary, copy)
        single.wait_until_serving()
        assert elsewhere.info().version == 5
        assert [elsewhere.report([20], 4, 4) for _ in range(5)] == [6, 7, 8, 9, 10]
        assert run.select(8).version == 10
    assert check_servers(TASKS, single.show()) == []


# ------------------------------------------------------------------------------------------------ leases


def test_hundreds_in_flight_share_no_task(single: Deployment) -> None:
    """No two live selections of a run share a task, across jobs and servers, where tasks are refilled one at a time."""
    single.new_run()
    with single.client(0) as one, single.client(1) as other, ThreadPoolExecutor(8) as threads:
        runs = [client.run(DATASET, single.run) for client in (one, other)]

        def refill(number: int) -> bots.Batch:
            return runs[number % 2].select(1, lease_seconds=600)

        flying = list(threads.map(refill, range(200)))
        assert len({batch.tasks[0] for batch in flying}) == 200
        # Half of a hundred come back by their report, half are given up: those tasks alone are free again.
        list(threads.map(lambda batch: batch.report(1, 4), flying[:50]))
        assert all(threads.map(lambda batch: batch.release() == 1, flying[50:100]))
        flying = flying[100:] + list(threads.map(refill, range(200)))
        assert len({batch.tasks[0] for batch in flying}) == 300
        with pytest.raises(bots.FailedPreconditionError, match=r"eligible 0, of 300 asked: .* leased 300"):
            refill(0)


# ------------------------------------------------------------------------------------------------ identity


def test_a_name_that_is_used_again_mixes_nothing(single: Deployment) -> None:
    """Runs and datasets are deleted and created again under their names while jobs report to them: what was
    acknowledged for one is in its history and in no other's."""
    names = "fleeting", "policy"
    told: dict[str, list[tuple[str, int]]] = {}  # uid of a run -> request id and version of what it acknowledged
    reasons: set[str] = set()
    stopping = threading.Event()

    def create(client: bots.Client, size: int) -> None:
        client.create_dataset(names[0], size=size)
        client.create_run(*names)

    def job() -> None:
        with bots.Client(single.addresses, timeout=5) as client:
            run = client.run(*names)
            while not stopping.is_set():
                request_id = new_request_id()
                try:
                    batch = run.select(4, lease_seconds=5)
                    version = batch.report(2, 4, request_id=request_id)
                    assert version is not None
                    told.setdefault(run.uid, []).append((request_id, version))
                except (bots.FailedPreconditionError, bots.NotFoundError) as error:
                    reasons.add(error.reason)
                    run = client.run(*names)

    def reported(runs: int) -> None:
        wait_until(lambda: len(told) > runs or any(one.done() for one in working), "jobs report")

    with bots.Client(single.addresses, timeout=10) as client, ThreadPoolExecutor(4) as threads:
        create(client, 100)
        first = client.create_run(*names)
        working = [threads.submit(job) for _ in range(4)]
        try:
            for turn in range(6):
                reported(turn)
                events = client.run(*names).events(limit=10_000)
                if turn % 2:
                    client.delete_dataset(names[0], delete_runs=True)
                else:
                    client.delete_run(*names)
                create(client, 100 + (turn + 1) // 2)
            reported(6)
        finally:
            stopping.set()
        for one in working:
            one.result(30)
        last = client.run(*names)
        log = {event.request_id: event.version for event in last.events(limit=10_000)}
        assert log == dict(told.pop(last.info().uid))
        assert events[0].request_id not in log
        assert len(told) == 6
        with pytest.raises(bots.FailedPreconditionError, match="deleted"):
            first.report([1], 1, 4)
        assert reasons <= {"RUN_REPLACED", "RUN_NOT_FOUND", "DATASET_NOT_FOUND", "TOO_FEW_ELIGIBLE"}
        client.delete_dataset(names[0], delete_runs=True)


# ------------------------------------------------------------------------------------------------ the life of a run


def test_every_server_goes_back_and_forks_alike(single: Deployment) -> None:
    """A run is changed, kept, restored and forked through one server while another one, and one that starts cold, see
    the same, also after the history was trimmed."""
    single.new_run(bots.Retention(snapshot_interval=5, history=20, history_stride=10))
    rng = random.Random(5)
    log: list[Entry] = []

    def add(content: Content, version: int | None) -> None:
        assert version == len(log) + 1
        log.append(Entry(version, "", "", content))

    with single.client(0) as one, single.client(1) as other:
        runs = [client.run(DATASET, single.run) for client in (one, other)]
        for step in range(60):
            run = runs[step % 2]
            if step == 30:
                run.checkpoint("thirty")
            if step % 20 == 7:
                version = run.update(forgetting=step / 100).version
                add(Hyperparameters.of({"forgetting": step / 100}), version)
            else:
                outcomes = Outcomes.of(rng.sample(range(300), 8), [rng.randrange(5) for _ in range(8)], [4] * 8)
                add(outcomes, run.report(outcomes.tasks, outcomes.successes, outcomes.rollouts))
        wait_until(lambda: runs[0].events()[0].version > 20, "the history is trimmed")
        assert_shows(single, log)
        single.servers[1].kill()
        single.servers[1].start()
    with single.client(0) as one, single.client(1) as other:
        runs = [client.run(DATASET, single.run) for client in (one, other)]
        add(Restore(30), runs[1].restore(checkpoint="thirty"))
        assert_shows(single, log)
        add(Restore(50), runs[0].restore(version=50, expected_version=61))
        assert_shows(single, log)
        fork = other.create_run(DATASET, f"{single.run}-fork", fork_from=bots.ForkPoint(single.run, 55))
        assert fork.report([1], 1, 4) == 1
        truth = replay(TASKS, [*log[:55], Entry(56, "", "", Outcomes.of([1], [1], [4]))])
        assert np.abs(np.array(one.run(DATASET, fork.name).posteriors()) - [truth.alpha, truth.beta]).max() < 1e-4
        # Far beyond the history, versions go on.
        for _ in range(25):
            outcomes = Outcomes.of([7], [1], [4])
            add(outcomes, runs[0].report(outcomes.tasks, outcomes.successes, outcomes.rollouts))
        with pytest.raises(bots.NotFoundError, match="version = 3"):
            runs[0].restore(version=3)
        add(Restore(30), runs[0].restore(checkpoint="thirty"))
        assert_shows(single, log)


def assert_shows(deployment: Deployment, log: list[Entry]) -> None:
    """Every server's posterior is what the whole log leads to, also where they have kept its end alone."""
    truth = replay(TASKS, log)
    for number in range(len(deployment.servers)):
        with deployment.client(number) as client:
            alpha, beta = client.run(DATASET, deployment.run).posteriors()
            assert np.abs(alpha - truth.alpha).max() < TOLERANCE
            assert np.abs(beta - truth.beta).max() < TOLERANCE
