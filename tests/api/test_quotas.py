"""Quotas: no call of one identity fills Redis or a server, and none keeps another's calls waiting."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.api.admission import LongCalls, ShortCalls
from bots_server.errors import DeadlineExceeded, QuotaExceeded, TooManyCalls
from bots_server.runs import dataset as loading
from bots_server.runs.memory import Memory
from bots_server.store import within
from tests.api.callers import caller, write
from tests.api.service import SECONDS, Run, Service, dataset_parts, reason_of, serving

SLOW = [("grpc.http2.lookahead_bytes", 4096), ("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, object, str]:
    """Returns code, reason and message of a call that fails."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), reason_of(error.value), error.value.details() or ""


def quota(message: str) -> tuple[grpc.StatusCode, object, str]:
    """Returns what a call beyond a quota is answered."""
    return grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", message


def test_counts_are_bounded(redis_url: str) -> None:
    """Datasets, tasks, runs, checkpoints. A repeat needs no room, a deletion makes room, a refusal leaves nothing."""
    limits = {"quota_datasets": 2, "quota_tasks": 150, "quota_runs": 1, "quota_checkpoints": 1}
    with serving(redis_url, **limits) as service:
        service.dataset("one", 100)
        run = service.create("one", "main")
        run.report([1], [1])
        run.checkpoint("best")
        before = service.state()
        assert refused(lambda: service.dataset("two", 51)) == quota(
            "quota_tasks: got 100 tasks in use and 51 more, must be at most 150"
        )
        assert refused(lambda: service.create("one", "other")) == quota(
            "quota_runs: got 1 runs in use and 1 more, must be at most 1"
        )
        assert refused(lambda: run.checkpoint("other")) == quota(
            "quota_checkpoints: got 1 checkpoints in use and 1 more, must be at most 1"
        )
        assert service.state() == before
        assert not service.dataset("one", 100).created
        assert service.create("one", "main").ref.uid == run.ref.uid
        assert run.checkpoint("best").version == 1
        service.dataset("two", 50)
        service.stub.DeleteDataset(pb.DeleteDatasetRequest(name="one", delete_runs=True), timeout=SECONDS)
        assert service.dataset("three", 100).created
        assert refused(lambda: service.dataset("four", 1))[2].startswith("quota_datasets: got 2 datasets in use")


def test_quotas_are_those_of_the_creator(redis_url: str, tmp_path: Path) -> None:
    """What one identity owns leaves another's quota alone, whoever uses it."""
    tokens = write(tmp_path / "tokens", {"a": "alice train *", "b": "bob train *"})
    with (
        serving(redis_url, tokens_file=tokens, quota_runs=1, quota_checkpoints=1) as guarded,
        caller(guarded, "a") as alice,
        caller(guarded, "b") as bob,
    ):
        alice.dataset("tasks", 100)
        alice.create("tasks", "hers")
        assert refused(lambda: alice.create("tasks", "more"))[1] == "QUOTA_EXCEEDED"
        bob.create("tasks", "his")
        bob.run("tasks", "hers").checkpoint("one")
        assert refused(lambda: alice.run("tasks", "hers").checkpoint("two"))[1] == "QUOTA_EXCEEDED"
        assert bob.run("tasks", "his").checkpoint("one").version == 0
        told = bob.stub.GetServer(pb.GetServerRequest(), timeout=SECONDS).quotas
        assert {one.setting: one.use for one in told if one.setting != "quota_bytes"} == {
            "quota_datasets": 0,
            "quota_tasks": 0,
            "quota_runs": 1,
            "quota_checkpoints": 1,
        }


def test_checkpoints_and_restores_of_many_strata_are_bounded_in_bytes(redis_url: str) -> None:
    """H3: the state of 2,000 strata is 32 kB. A quota of 1 MB ends the calls, and reports go on."""
    with serving(redis_url, quota_bytes=1 << 20) as service:
        rates = [task / 4000 for task in range(2000)]
        service.dataset("strata", 2000, references={"weak": rates, "strong": rates})
        run = service.create("strata", "main", model="EVIDENCE_MODEL_INTERPOLATION")
        run.report([1], [1])
        kept: list[object] = []

        def fill() -> None:
            while len(kept) < 100:
                kept.append(run.checkpoint(f"c{len(kept)}") if len(kept) % 2 else run.restore(version=1))

        code, reason, message = refused(fill)
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert message.startswith("quota_bytes: got ")
        assert 20 < len(kept) < 40
        assert refused(lambda: run.undo(1))[1] == "QUOTA_EXCEEDED"
        assert run.report([2], [1]).version > 1
        fork = pb.ForkPoint(run="main")
        assert refused(lambda: service.create("strata", "fork", fork_from=fork))[1] == "QUOTA_EXCEEDED"


def test_upload_is_bounded_in_bytes_and_leaves_nothing(redis_url: str) -> None:
    """The chunk that exceeds the quota ends the upload."""
    with serving(redis_url, quota_bytes=10_000) as service:
        code, reason, message = refused(
            lambda: service.dataset("long", 1000, ids=[f"{task:064}" for task in range(1000)])
        )
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert message.startswith("quota_bytes: got 0 bytes in use and 72")
        assert not service.state()


def test_reports_of_many_outcomes_are_bounded_in_bytes(redis_url: str) -> None:
    """H3: 300 reports of 24 kB leave history_bytes and the newest snapshot, of a megabyte; none is refused."""
    with serving(redis_url, history_bytes=1 << 18) as service:
        service.dataset("tasks", 2000)
        run = service.create("tasks", "main", rest=0)
        for _ in range(300):
            run.report(range(2000), [1.5] * 2000)
        assert run.info().version == 300

        def bounded() -> bool:
            run.report([0], [1.5])  # a snapshot that was dropped is made at a later report
            return service.store.quotas.use()[""].bytes < 2 << 20

        service.wait_until(bounded)


def test_use_is_visible(service: Service) -> None:
    """To the caller in GetServer, and to operators by identity in the metrics."""
    service.dataset("tasks", 100)
    service.create("tasks", "main")
    told = service.stub.GetServer(pb.GetServerRequest(), timeout=SECONDS).quotas
    assert {one.setting: (one.use, one.limit) for one in told if one.setting != "quota_bytes"} == {
        "quota_datasets": (1, 1_000),
        "quota_tasks": (100, 200_000_000),
        "quota_runs": (1, 10_000),
        "quota_checkpoints": (0, 10_000),
    }
    assert service.sample("bots_quota_used", identity="", resource="tasks") == 100
    assert service.sample("bots_quota", resource="runs") == 10_000


def test_loading_one_dataset_delays_no_other(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """M6: each dataset has a lock of its own."""
    service.dataset("large", 100)
    service.dataset("small", 100)
    runs = {name: service.create(name, "main") for name in ("large", "small")}
    begun, proceed, load = threading.Event(), threading.Event(), loading.load

    def slow(store: Any, record: Any) -> loading.Dataset:
        if record.name == "large":
            begun.set()
            assert proceed.wait(SECONDS)
        return load(store, record)

    monkeypatch.setattr(loading, "load", slow)
    with ThreadPoolExecutor(1) as threads:
        large = threads.submit(runs["large"].select, 4)
        assert begun.wait(SECONDS)
        assert len(runs["small"].select(4).tasks) == 4
        assert not large.done()
        proceed.set()
        assert len(large.result().tasks) == 4


def test_loads_wait_for_the_memory_of_others() -> None:
    """Loads together reserve no more than the limit; a single larger one goes ahead; waiting ends at the deadline."""
    memory = Memory(100)
    with memory.for_load(60), memory.for_load(40):
        assert memory.taken == 100
        with within(0.05), pytest.raises(DeadlineExceeded), memory.for_load(1):
            pass
    assert memory.taken == 0
    with memory.for_load(1000):
        assert memory.taken == 1000


def test_uploads_are_refused_without_memory() -> None:
    """An upload that grows beyond what loads and other uploads leave is refused, and gives its memory back."""
    changes: list[int] = []
    memory = Memory(100, changed=lambda: changes.append(memory.taken))
    with memory.for_upload() as grow, memory.for_load(30):
        grow(60)
        with pytest.raises(
            QuotaExceeded, match=r"^max_memory_bytes: got 90 bytes .* and 11 more, must be at most 100$"
        ):
            grow(11)
    assert (memory.taken, changes) == (0, [30, 90])


def test_large_ids_are_refused_by_a_small_server(redis_url: str) -> None:
    """M4: an upload takes no more of a server than max_memory_bytes."""
    with serving(redis_url, max_memory_bytes=1 << 20) as service:
        ids = [f"{task:0250}" for task in range(5000)]
        code, reason, message = refused(lambda: service.dataset("large", 5000, ids=ids))
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert message.startswith("max_memory_bytes: got 0 bytes for loads and uploads in use and 14")


def context(peer: str) -> grpc.ServicerContext:
    return cast(grpc.ServicerContext, SimpleNamespace(peer=lambda: peer))


def test_one_caller_does_not_take_all_long_calls() -> None:
    """M12: of one identity, or of one host if callers have none, only some are admitted; others find places."""
    calls = LongCalls(ShortCalls(4, threading.Event()), limit=4, per_caller=2, seconds=60, idle_seconds=60)
    one, same, other = context("ipv4:10.0.0.1:1000"), context("ipv4:10.0.0.1:2000"), context("ipv4:10.0.0.2:1000")
    with calls.admitted("", one), calls.admitted("", same):
        with (
            pytest.raises(TooManyCalls, match=r"at most 2 long calls .* of one caller"),
            calls.admitted("", one),
        ):
            pass
        with (
            calls.admitted("alice", one),
            calls.admitted("", other),
            pytest.raises(TooManyCalls, match=r"at most 4 long calls \(.*\) at once"),
            calls.admitted("bob", other),
        ):
            pass
        with calls.admitted("alice", one), calls.admitted("alice", other):
            pass


@pytest.fixture
def impatient(redis_url: str) -> Iterator[Service]:
    """A server with one long call at a time, which waits half a second for its caller and lasts three."""
    limits = {"max_long_calls": 1, "max_idle_seconds": 0.5, "max_call_seconds": 3.0}
    with serving(redis_url, **limits) as service:
        yield service


def test_silent_upload_is_ended(impatient: Service) -> None:
    """An upload that sends no chunk is ended with the rule, and its place is free for the next one."""
    header, chunk = dataset_parts("tasks", 100)
    done = threading.Event()

    def silent() -> Iterator[pb.CreateDatasetRequest]:
        yield pb.CreateDatasetRequest(header=header)
        done.wait(SECONDS)

    answer = refused(lambda: impatient.stub.CreateDataset(silent(), timeout=SECONDS))
    done.set()
    message = "max_idle_seconds: got no message for 0.5 s, must be sent without such a pause"
    assert answer == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_TOO_SLOW", message)
    assert not impatient.state()
    assert impatient.upload(header, chunk).created


def test_endless_upload_is_ended(impatient: Service) -> None:
    """An upload whose chunks trickle in is ended after max_call_seconds."""
    header, chunk = dataset_parts("tasks", 1024)
    header.size, done = 10**6, threading.Event()

    def trickle() -> Iterator[pb.CreateDatasetRequest]:
        yield pb.CreateDatasetRequest(header=header)
        while not done.wait(0.1):
            yield pb.CreateDatasetRequest(chunk=chunk)

    answer = refused(lambda: impatient.stub.CreateDataset(trickle(), timeout=SECONDS))
    done.set()
    assert answer[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CALL_TOO_LONG")
    assert not impatient.state()


def test_watch_is_ended_after_its_time(impatient: Service) -> None:
    """A watch lasts max_call_seconds at most; its place is free then."""
    impatient.dataset("tasks", 100)
    run = impatient.create("tasks", "main")
    request = pb.WatchRunRequest(run=run.ref, interval_seconds=0.1)
    for _ in range(2):
        answer = refused(lambda: list(impatient.stub.WatchRun(request, timeout=SECONDS)))
        assert answer[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CALL_TOO_LONG")


def test_download_that_nobody_reads_is_cancelled(impatient: Service) -> None:
    """Its place is free again, though the caller stays."""
    impatient.dataset("tasks", 300_000)
    run = impatient.create("tasks", "main")
    with grpc.insecure_channel(impatient.address, SLOW) as channel:
        unread = TaskSelectionServiceStub(channel).GetPosteriors(pb.GetPosteriorsRequest(run=run.ref), timeout=60)
        next(unread)
        impatient.wait_until(lambda: served(run))
        unread.cancel()


def served(run: Run) -> bool:
    """Returns whether there is a place for a download."""
    try:
        return len(run.posteriors(tasks=[0])) == 2
    except grpc.RpcError as error:
        if reason_of(error) != "TOO_MANY_CALLS":
            raise
        return False


@pytest.mark.parametrize("listing", ["datasets", "runs", "checkpoints", "events"])
def test_page_token_of_another_making_is_refused(letters: Service, listing: str) -> None:
    """Guarantee 7: any text but a next_page_token of the same listing is refused, also that of another listing."""
    policy = letters.run("letters", "policy")
    letters.dataset("other", 10)
    for name in ("a", "b"):
        letters.create("letters", name)
        policy.checkpoint(name)
        policy.report([0], [1])
    stub = letters.stub
    calls: dict[str, Callable[[str], Any]] = {
        "datasets": lambda token: stub.ListDatasets(pb.ListDatasetsRequest(page_size=1, page_token=token)),
        "runs": lambda token: stub.ListRuns(pb.ListRunsRequest(dataset="letters", page_size=1, page_token=token)),
        "checkpoints": lambda token: stub.ListCheckpoints(
            pb.ListCheckpointsRequest(run=policy.ref, page_size=1, page_token=token)
        ),
        "events": lambda token: policy.events(page_size=1, page_token=token),
    }
    tokens = {name: call("").next_page_token for name, call in calls.items()}
    assert all(tokens.values())
    assert calls[listing](tokens[listing])
    others = [token for name, token in tokens.items() if name != listing]
    for token in (*others, "a", tokens[listing] + "x", tokens[listing][:-1], "0" * 16, "é" * 30, "\x1b[2J"):
        code, reason, message = refused(lambda token=token: calls[listing](token))  # type: ignore[misc]
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert message.endswith("must be a next_page_token of this listing")
