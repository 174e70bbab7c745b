"""Jobs report and select through several servers while parts of it fail; afterwards the validator judges all of it.

Traffic (`traffic.py`), failpoints (`failpoints.py`), model (`model.py`) and validator (`validator.py`), after etcd's
robustness tests. `make soak` does the same for a given time, with every failpoint in random order.

Bugs found, and the tests that reproduce them:

 * A lease did not wait for the configured durability, so a failover forgot it, and its tasks were leased again:
   test_a_lease_that_no_replica_has_is_not_granted
 * A repeat was found on a paused primary that woke up, its durability awaited on the next one, and so a report was
   acknowledged that was lost: test_a_repeat_that_meets_another_primary_is_not_acknowledged_by_the_first (tests/store)
 * With `appendfsync no` a server took --durability fsync, which such a Redis never confirms, and refused every report:
   test_a_level_that_redis_cannot_give_stops_the_start
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from unittest.mock import patch

import numpy as np
import pytest

import bots
import bots.target
from bots.request_ids import new_request_id
from bots_server.store import choose_durability, connect
from tests.faults.deployment import Deployment, Kept, copy_file, deployed, in_step, put_back
from tests.faults.failpoints import FAILPOINTS, Failpoint, struck
from tests.faults.model import (
    Content,
    Dataset,
    Entry,
    History,
    Hyperparameters,
    Outcomes,
    Restore,
    Retire,
    alpha_beta,
    replay,
)
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
    """Guarantees 1, 2 and 3 hold, whatever fails of the servers, of the connections between, and of Redis itself."""
    failpoints = [one for one in FAILPOINTS if "single" in one.forms and "fsync" in one.covered_by]
    verdict, history = judged(single, random.Random(3).sample(failpoints, len(failpoints)))
    assert verdict.lost == 0
    assert "STORE_FULL" in {reason for _, reason in history.errors}


def test_an_older_file_takes_back_the_end_and_nothing_else(single: Deployment) -> None:
    """If Redis comes back with an older file the reports since are lost whole, and all servers agree on the rest."""
    verdict, _ = judged(single, [BY_NAME["older_file"]])
    assert 0 < verdict.lost < verdict.acknowledged


@pytest.fixture(scope="module")
def pair() -> Iterator[Deployment]:
    """Two servers over a primary and its replica; an acknowledged report is on both."""
    with deployed("pair", "replica", TASKS) as deployment:
        yield deployment


def test_a_lagging_replica_takes_over(pair: Deployment) -> None:
    """At durability replica a primary whose replica has fallen behind acknowledges nothing, so nothing is lost with
    it."""
    verdict, _ = judged(pair, [BY_NAME["replica_lags_and_takes_over"]])
    assert verdict.lost == 0


def test_a_lease_that_no_replica_has_is_not_granted(pair: Deployment) -> None:
    """No two live selections of a run share a task, also if the primary that granted one is lost."""
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
        # A late repeat of the selection that was not answered may hold a hundred there.
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
    """A primary without a replica stops to take reports within min-replicas-max-lag and two seconds, so that a failover
    loses no more than the reports of that time."""
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
    """A server does not start with durability fsync over a Redis that never confirms it."""
    persistence = ["--appendonly", "yes", "--appendfsync", "no"]
    refused = pytest.raises(ValueError, match="appendfsync no")
    with valkey(*persistence) as store, closing(connect(store.url)) as client, refused:
        choose_durability(client, "fsync")


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
    """Of concurrent selections by one key one is made, and all ranks of the job get it."""
    single.new_run()
    with single.client(0) as one, single.client(1) as other, ThreadPoolExecutor(8) as threads:
        runs = [client.run(DATASET, single.run) for client in (one, other)] * 4
        for leased in range(10, 60, 10):
            key = str(leased)
            batches = list(threads.map(lambda run, of=key: run.select(10, key=of, lease_seconds=600), runs))
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
    """No two live selections of a run share a task, across jobs and servers, if tasks are refilled one at a time."""
    single.new_run()
    with single.client(0) as one, single.client(1) as other, ThreadPoolExecutor(8) as threads:
        runs = [client.run(DATASET, single.run) for client in (one, other)]

        def refill(number: int) -> bots.Batch:
            batch: bots.Batch = runs[number % 2].select(1, lease_seconds=600)
            return batch

        flying = list(threads.map(refill, range(200)))
        assert len({batch.tasks[0] for batch in flying}) == 200
        # Fifty are reported and fifty released: those tasks alone are free again.
        list(threads.map(lambda batch: batch.report(1, 4), flying[:50]))
        assert all(threads.map(lambda batch: batch.release() == 1, flying[50:100]))
        flying = flying[100:] + list(threads.map(refill, range(200)))
        assert len({batch.tasks[0] for batch in flying}) == 300
        with pytest.raises(bots.FailedPreconditionError, match=r"asked for: 300, .* leased: 300"):
            refill(0)


def test_a_report_of_a_part_ends_the_leases_of_its_tasks_alone(single: Deployment) -> None:
    """The leases of a selection end task by task, whichever rank and server reports the task."""
    single.new_run()
    with single.client(0) as one, single.client(1) as other:
        ranks = [client.run(DATASET, single.run) for client in (one, other)]
        batches = [run.select(8, key="step", lease_seconds=600) for run in ranks]
        others = ranks[0].select(292, lease_seconds=600)
        for rank, batch in enumerate(batches):
            part = batch[rank::2]
            assert part.report(2, 4) == rank + 1
            freed = ranks[1 - rank].select(4, lease_seconds=600)
            assert set(freed.tasks) == set(part.tasks)
        assert ranks[0].summary().live_leases == 300
        assert not set(others.tasks) & set(batches[0].tasks)
        assert ranks[0].summary().updates == 1
    assert check_servers(TASKS, single.show()) == []


# ------------------------------------------------------------------------------------------------ where clients are


@contextmanager
def placed(connection_age_seconds: float) -> Iterator[tuple[Deployment, Callable[[], list[set[str]]]]]:
    """Yields two servers, and what selects once for each of 32 clients and returns the jobs that each server served.

    Each client has connections of its own, as if it were alone in its process: gRPC shares those of a process, and
    prefers one that is there. All of 32 prefer one of the two servers with a probability of 5e-10.
    """
    flags = ["--log-level", "info", "--connection-age-seconds", str(connection_age_seconds)]
    own = (*bots.target.OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    with (
        patch.object(bots.target, "OPTIONS", own),
        deployed("single", "memory", TASKS, flags=flags) as deployment,
        ExitStack() as stack,
        ThreadPoolExecutor(8) as threads,
    ):
        logs, jobs = [server.log for server in deployment.servers], {f"job-{number}" for number in range(32)}
        clients = [bots.Client(deployment.addresses, timeout=20, job=job, strict=True) for job in jobs]
        runs = [stack.enter_context(client).run(DATASET, deployment.run) for client in clients]

        def served() -> list[set[str]]:
            before = [len(log.read_text()) for log in logs]
            list(threads.map(lambda run: run.select(4), runs))

            def found() -> list[set[str]]:
                lines = [log.read_text()[start:] for log, start in zip(logs, before, strict=True)]
                return [set(re.findall(r"SelectBatch OK .*?job=(\S+)", text)) for text in lines]

            wait_until(lambda: set.union(*found()) == jobs, "the access logs have all calls")
            return found()

        yield deployment, served


def test_clients_stay_with_one_server_and_move_when_it_dies() -> None:
    """All clients spread over the servers, each stays with one while it lives, and moves to another when it dies."""
    with placed(connection_age_seconds=300) as (deployment, served):
        first = served()
        assert all(first)
        assert all(served() == first for _ in range(3))
        deployment.servers[0].kill()
        assert served() == [set(), set.union(*first)]


def test_running_clients_find_a_server_that_comes_back() -> None:
    """Clients look for servers when their connections are old, so a server that is there again is used again."""
    with placed(connection_age_seconds=1) as (deployment, served):
        deployment.servers[0].kill()
        assert not served()[0]
        deployment.servers[0].start()
        wait_until(lambda: served()[0], "clients come back")


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
        with bots.Client(single.addresses, timeout=5, strict=True) as client:
            run = client.run(*names)
            while not stopping.is_set():
                request_id = new_request_id()
                try:
                    batch = run.select(4, lease_seconds=5)
                    version = run.report(
                        batch.tasks, 2, 4, rows=True, selection_id=batch.selection_id, request_id=request_id
                    )
                    assert version is not None
                    told.setdefault(run.uid, []).append((request_id, version))
                except (bots.FailedPreconditionError, bots.NotFoundError) as error:
                    reasons.add(error.reason)
                    run = client.run(*names)

    def reported(runs: int) -> None:
        wait_until(lambda: len(told) > runs or any(one.done() for one in working), "jobs report")

    with bots.Client(single.addresses, timeout=10, strict=True) as client, ThreadPoolExecutor(4) as threads:
        create(client, 100)
        first = client.create_run(*names)
        working = [threads.submit(job) for _ in range(4)]
        try:
            for turn in range(6):
                reported(turn)
                events = list(client.run(*names).events())
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
        log = {event.request_id: event.version for event in last.events()}
        assert log == dict(told.pop(last.info().uid))
        assert events[0].request_id not in log
        assert len(told) == 6
        with pytest.raises(bots.FailedPreconditionError, match="deleted"):
            first.report([1], 1, 4)
        assert reasons <= {"RUN_REPLACED", "RUN_NOT_FOUND", "DATASET_NOT_FOUND", "TOO_FEW_ELIGIBLE"}
        client.delete_dataset(names[0], delete_runs=True)


# ------------------------------------------------------------------------------------------------ the life of a run


def test_every_server_goes_back_and_forks_alike() -> None:
    """A run is changed, kept, restored and forked through one server, and another one, and one that starts cold, see
    the same, also after the history was trimmed."""
    rng = random.Random(5)
    log: list[Entry] = []

    def add(content: Content, version: int | None) -> None:
        assert version == len(log) + 1
        log.append(Entry(version, "", "", content))

    def report(run: bots.Run, tasks: list[int], successes: list[int], selection: str = "") -> None:
        outcomes = Outcomes.of(tasks, successes, [4] * len(tasks), selection)
        columns = outcomes.tasks, outcomes.successes, outcomes.rollouts
        add(outcomes, run.report(*columns, rows=True, selection_id=selection))

    with deployed("single", "memory", TASKS, history=Kept(5, 20, 10)) as deployment:
        with deployment.client(0) as one, deployment.client(1) as other:
            runs = [client.run(DATASET, deployment.run) for client in (one, other)]
            for step in range(60):
                run = runs[step % 2]
                if step == 30:
                    run.checkpoint("thirty")
                if step % 20 == 7:
                    add(Hyperparameters.of({"forgetting": step / 100}), run.update(forgetting=step / 100).version)
                elif step % 20 == 11:
                    run.retire([step], rows=True)
                    add(Retire((step,)), run.info().version)
                else:
                    selection = f"{step // 5:032x}"  # of five reports in a row
                    report(run, rng.sample(range(300), 8), [rng.randrange(5) for _ in range(8)], selection)
            wait_until(lambda: next(runs[0].events()).version > 20, "the history is trimmed")
            assert_shows(deployment, log)
            deployment.servers[1].kill()
            deployment.servers[1].start()
        with deployment.client(0) as one, deployment.client(1) as other:
            runs = [client.run(DATASET, deployment.run) for client in (one, other)]
            add(Restore(30), runs[1].restore(checkpoint="thirty"))
            assert_shows(deployment, log)
            add(Restore(50), runs[0].restore(version=50, expected_version=61))
            assert_shows(deployment, log)
            fork = other.create_run(DATASET, "fork", fork_from=bots.ForkPoint(run=deployment.run, version=55))
            assert fork.report([1], 1, 4) == 1
            truth = replay(TASKS, [*log[:55], Entry(56, "", "", Outcomes.of([1], [1], [4]))])
            assert np.abs(np.array(one.run(DATASET, fork.name).posteriors()) - alpha_beta(truth)).max() < TOLERANCE
            # Far beyond the history, versions go on.
            for _ in range(25):
                report(runs[0], [7], [1])
            with pytest.raises(bots.NotFoundError, match="version"):
                runs[0].restore(version=3)
            add(Restore(30), runs[0].restore(checkpoint="thirty"))
            assert_shows(deployment, log)


def test_a_repeat_of_a_restore_returns_the_first_answer(single: Deployment) -> None:
    """A repeat of a restore changes nothing, at every server, also if its checkpoint and its version are gone since."""
    single.new_run()
    request_id = new_request_id()
    with single.client(0) as one, single.client(1) as other:
        runs = [client.run(DATASET, single.run) for client in (one, other)]
        assert [runs[0].report([task], 1, 4) for task in range(3)] == [1, 2, 3]
        runs[0].checkpoint("kept", version=2)
        assert runs[0].restore(checkpoint="kept", expected_version=3, request_id=request_id) == 4
        assert runs[1].report([5], 4, 4) == 5
        runs[1].delete_checkpoint("kept")
        for run in runs:
            assert run.restore(checkpoint="kept", expected_version=3, request_id=request_id) == 4
            with pytest.raises(bots.InvalidArgumentError, match="other content"):
                run.restore(version=2, expected_version=3, request_id=request_id)
        assert runs[0].info().version == 5
    assert check_servers(TASKS, single.show()) == []


def assert_shows(deployment: Deployment, log: list[Entry]) -> None:
    """Every server's posterior is what the whole log leads to, also if Redis has its end alone."""
    truth = alpha_beta(replay(TASKS, log))
    for number in range(len(deployment.servers)):
        with deployment.client(number) as client:
            shown = client.run(DATASET, deployment.run).posteriors()
            assert np.abs(np.array(shown) - truth).max() < TOLERANCE
