"""GetPosteriors, GetRunSummary, WatchRun: reading a run without changing it."""

import math
import threading

import grpc
import numpy as np
import pytest

from bots.v1 import task_selection_pb2 as pb
from bots_server.api.reading import ReadingHandlers
from bots_server.core.posterior import Posterior
from bots_server.core.summary import Summary, summarise
from bots_server.core.tasks import Tasks
from tests.api.service import SECONDS, Run, Service, reason_of


def test_posteriors_come_in_chunks_of_one_version(service: Service) -> None:
    """Each with its offset and the size of the whole; ids if asked for and if the dataset has them."""
    size = 70_000
    service.dataset("tasks", size, ids=[str(number) for number in range(size)])
    run = service.create("tasks", "policy")
    run.report([69_999], [4])
    for with_ids in (False, True):
        request = pb.GetPosteriorsRequest(run=run.ref, with_ids=with_ids)
        chunks = list(run.stub.GetPosteriors(request, timeout=SECONDS))
        assert [one.offset for one in chunks] == list(range(0, size, 8_192))
        assert {(one.size, one.version, one.run_uid) for one in chunks} == {(size, 1, run.info().ref.uid)}
        assert sum(len(one.ids) for one in chunks) == (size if with_ids else 0)
    alpha, beta = run.posteriors()
    assert len(alpha) == len(beta) == size
    assert alpha[-1] > beta[-1]


def test_posteriors_come_with_tags_if_asked(policy: Run) -> None:
    """As indices into the dataset's tags, in the order asked for; none without the request."""
    (vowel_last,) = policy.stub.GetPosteriors(
        pb.GetPosteriorsRequest(run=policy.ref, tasks=[1, 0], with_tags=True), timeout=SECONDS
    )
    tags = policy.stub.GetDataset(pb.GetDatasetRequest(name="letters"), timeout=SECONDS).dataset.tags
    assert [tags[tag].tag for tag in vowel_last.tag] == ["consonant", "vowel"]
    (without,) = policy.stub.GetPosteriors(pb.GetPosteriorsRequest(run=policy.ref), timeout=SECONDS)
    assert not without.tag


def test_summary_has_what_was_reported(policy: Run) -> None:
    """Of both models; figures that are not known are NaN."""
    before = policy.summary()
    assert math.isnan(before.total.effective_task_ratio)
    assert not before.HasField("last_report_time")
    assert not before.interpolation.HasField("capability")
    policy.report([0, 1, 2, 2], [4, 1, 0, 1], policy_step=5, selection_policy_step=3)
    policy.select(3, lease_seconds=60)
    now = policy.summary()
    assert (now.updates, now.run.version, now.live_leases, now.distinct_tasks) == (1, 1, 3, 3)
    assert (now.total.outcomes, now.total.rollouts, now.total.successes) == (3, 16, 6)
    assert now.total.effective_task_ratio == pytest.approx(2 / 3)
    assert now.total.mean_policy_lag == 2
    assert (now.coverage, now.epochs) == (3 / 26, 3 / 26)
    assert sum(now.pass_rate_bins) == 26
    assert now.solved + now.too_hard + now.in_reach == pytest.approx(1)
    assert [(tag.tag, tag.tasks) for tag in now.tags] == [("consonant", 21), ("vowel", 5)]
    assert len(now.total.calibration) == 10
    assert now.last_report_time.ToMilliseconds() > 1e12


def test_summary_compares_a_selection_with_its_shadow(policy: Run) -> None:
    """Tasks that are none of the dataset are refused with the report."""
    with pytest.raises(grpc.RpcError, match=r"shadow_tasks\[1\]: got 26, must be between 0 and 25"):
        policy.report([0], [1], shadow_tasks=[3, 26])
    policy.report([0, 1], [4, 1], shadow_tasks=[9, 3, 9])
    found = policy.summary().total.shadow
    assert (found.outcomes, found.selected, found.effective_task_ratio, len(found.bins)) == (2, 2, 0.5, 10)
    (event,) = policy.stub.ListEvents(pb.ListEventsRequest(run=policy.ref), timeout=SECONDS).events
    assert list(event.report.shadow_tasks) == [3, 9]


def test_summary_of_item_response_names_its_inputs(service: Service) -> None:
    """References, tags and features, by the size of their weight."""
    rng = np.random.default_rng(1)
    tags = ["easy", "hard"] * 50
    service.dataset("tasks", 100, tags=tags, references={"weak": 0.5}, features={"length": rng.random(100)})
    run = service.create("tasks", "policy")
    for begin in range(0, 96, 8):
        tasks = range(begin, begin + 8)
        run.report(tasks, [4 if tags[task] == "easy" else 0 for task in tasks])
    learned = run.summary().item_response
    weights = {one.input: one.mean for one in learned.weights}
    assert weights.keys() >= {"reference:weak", "tag:easy", "tag:hard", "feature:length"}
    assert weights["tag:easy"] > weights["tag:hard"]
    assert [abs(one.mean) for one in learned.weights] == sorted(
        (abs(one.mean) for one in learned.weights), reverse=True
    )
    assert 0 <= learned.explained_share <= 1
    assert learned.residual_variance > 0
    assert not learned.inputs_explain_nothing


def test_watch_yields_the_summary_when_the_version_changes(policy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first and after each change; nothing is summarised while the version stays."""
    summarised = summaries(monkeypatch)
    request = pb.WatchRunRequest(run=policy.ref, interval_seconds=0.1)
    watch = policy.stub.WatchRun(request, timeout=SECONDS)
    assert next(watch).summary.run.version == 0
    for version in range(1, 4):
        policy.report([version], [1])
        assert next(watch).summary.run.version == version
    watch.cancel()
    assert len(summarised) == 4


def test_watch_waits_before_it_looks_at_the_run(letters: Service, policy: Run) -> None:
    """None, at which a metered call waits, comes first, so that the summary is of the newest version."""
    replica = letters.server._registry.open("letters", "policy")
    watching = ReadingHandlers(threading.Event()).watch_run(pb.WatchRunRequest(), replica)
    assert next(watching) is None
    policy.report([1], [1])
    answer = next(watching)
    assert answer is not None
    assert answer.summary.run.version == 1


def test_watch_of_a_run_that_is_deleted_ends(policy: Run) -> None:
    """With RUN_REPLACED."""
    watch = policy.stub.WatchRun(pb.WatchRunRequest(run=policy.ref, interval_seconds=0.1), timeout=SECONDS)
    next(watch)
    policy.delete()
    with pytest.raises(grpc.RpcError) as ended:
        next(watch)
    assert reason_of(ended.value) == "RUN_REPLACED"


def test_summary_is_computed_once_for_a_version(policy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By GetRunSummary and by scrapes."""
    summarised = summaries(monkeypatch)
    for _ in range(3):
        policy.summary()
    policy.report([0], [1])
    for _ in range(3):
        policy.summary()
    assert len(summarised) == 2


def summaries(monkeypatch: pytest.MonkeyPatch) -> list[Posterior]:
    """Returns a list to which every summary adds its posterior."""
    made: list[Posterior] = []

    def counted(posterior: Posterior, tasks: Tasks) -> Summary:
        made.append(posterior)
        return summarise(posterior, tasks)

    monkeypatch.setattr("bots_server.runs.replica.summarise", counted)
    return made
