"""Selections that are drawn without the service."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

import bots
from bots.fallback import KnownTasks, SelectionSpec, Texts, select
from bots.request_ids import derived_request_id
from tests.client.recorder import METHODS, Recorder, never

IDS = list("abcdef")
KNOWN = KnownTasks(
    size=6, has_ids=True, ids=Texts.of(IDS), tags={"x": 3, "y": 3}, tag=np.array([0, 1] * 3, dtype=np.int64)
)


def draw(batch_size: int, known: KnownTasks = KNOWN, **spec: Any) -> list[int]:
    return sorted(select(np.random.default_rng(2), known, SelectionSpec(batch_size, **spec)).tolist())


def test_draws_are_uniform() -> None:
    """Every task is as likely as every other, also beside exclusions (chi-square, error probability 1e-9)."""
    rng = np.random.default_rng(1)
    known = KnownTasks(size=21, has_ids=False)
    spec = SelectionSpec(5, excluded_rows=[20])
    tasks = np.concatenate([select(rng, known, spec) for _ in range(4_000)])
    counts = np.bincount(tasks, minlength=20)
    assert len(counts) == 20
    # A batch is drawn without replacement, which only lowers the variance of the counts.
    assert ((counts - 1_000) ** 2 / 1_000).sum() < chi2.isf(1e-9, 19)


def test_a_draw_follows_the_request() -> None:
    """Exclusions, tags, quotas, weights and fill mean what they mean to the service; same seed, same batch."""
    assert draw(6) == [0, 1, 2, 3, 4, 5]
    assert draw(4, excluded_rows=[0, 5]) == [1, 2, 3, 4]
    assert draw(4, excluded_ids=["a", "f"]) == [1, 2, 3, 4]
    assert draw(3, tags=["y"]) == [1, 3, 5]
    assert Counter(task % 2 for task in draw(3, quotas={"x": 1, "y": 2})) == {0: 1, 1: 2}
    assert draw(3, quotas={"x": 3, "y": 0}) == [0, 2, 4]
    assert draw(3, weights={"x": 1.0, "y": 0.0}) == [0, 2, 4]
    assert draw(3, weights={"x": 1.0, "y": 1.0}, excluded_rows=[1, 3, 5]) == [0, 2, 4]
    assert draw(6, quotas={"x": 6, "y": 0}, fill=True) == [0, 1, 2, 3, 4, 5]
    assert draw(3) == draw(3)


def test_too_few_tasks_are_an_error_here_too() -> None:
    """Fewer tasks than asked are an error, or with allow_fewer what there is."""
    with pytest.raises(bots.FailedPreconditionError, match="batch_size: got 7, must be at most 6") as caught:
        draw(7)
    assert caught.value.reason == "TOO_FEW_ELIGIBLE"
    assert draw(7, allow_fewer=True) == [0, 1, 2, 3, 4, 5]
    assert draw(4, tags=["x"], allow_fewer=True) == [0, 2, 4]


def test_known_tasks_survive_a_file() -> None:
    """What is kept beside the outbox is what was known."""
    again = KnownTasks.unpacked(KNOWN.packed())
    assert draw(3, again, tags=["y"]) == [1, 3, 5]
    assert (again.ids and [again.ids[row] for row in range(6)]) == IDS
    assert KnownTasks.unpacked(KnownTasks(size=9, has_ids=False).packed()).ids is None


def test_ids_are_found_whatever_their_number() -> None:
    """A packed column of ids answers by row and by id."""
    ids = [f"é{row}" for row in range(1_000)]
    texts = Texts.of(ids)
    assert [texts[row] for row in range(1_000)] == ids
    assert [texts.row(text) for text in ids] == list(range(1_000))
    assert texts.row("e1") is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"exclude": [-1], "rows": True}, r"exclude\[0\]: got -1, must be between 0 and 99"),
    ({"exclude": [100], "rows": True}, r"exclude\[0\]: got 100, must be between 0 and 99"),
    ({"exclude": ["zz"]}, r"exclude\[0\]: got 'zz', must be an id of the dataset"),
    ({"exclude": [3]}, r"exclude\[0\]: got '3', must be an id of the dataset"),
    ({"batch_size": -1}, "batch_size: got -1, must be between 1 and 10000"),
    ({"batch_size": 2.5}, "batch_size: got 2.5, must be a whole number"),
    ({"lease_seconds": -5}, "lease_seconds: got -5.0, must be above 0"),
    ({"tag_quotas": {"odd": 3}}, "tag_quotas: got a sum of 3, must add up to 4"),
    ({"tag_quotas": {"odd": -1, "even": 5}}, r"tag_quotas\['odd'\]: got -1, must be at least 0"),
    ({"tag_weights": {"odd": 0.0}}, "tag_weights: got only 0, must have one above 0"),
    ({"tags": "odd", "tag_quotas": {"odd": 4}}, "tags: got more than one"),
    ({"tags": "none"}, "must be a tag of"),
    ({"target": 1.5}, "target: got 1.5, must be between 0 and 1"),
    ({"target": {"odd": -1}}, r"target\['odd'\]: got -1.0, must be between 0 and 1"),
    ({"seed": -1}, "seed: got -1, must be at least 0"),
    ({"policy_step": -1}, "policy_step: got -1, must be at least 0"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value))
def test_what_a_rule_forbids_is_refused_while_the_service_is_away(
    recorder: Recorder, address: str, arguments: dict[str, Any], message: str
) -> None:
    """Bad input never passes silently, whether or not the service is there to refuse it."""
    with bots.Client(address, timeout=0.2) as client:
        client.create_dataset("d", ids=[f"t{task}" for task in range(100)], tags=["even", "odd"] * 50)
        run = client.create_run("d", "r")
        recorder.answers = dict.fromkeys(METHODS, never)
        assert run.select(1).fallback
        with pytest.raises(bots.InvalidArgumentError, match=message):
            run.select(**({"batch_size": 4} | arguments))
        for outcome, rule in (
            (([99999], 1, 2), r"tasks\[0\]: got 99999, must be between 0 and 99"),
            (([1], 5, 2), r"successes\[0\]: got 5.0"),
        ):
            with pytest.raises(bots.InvalidArgumentError, match=rule):
                run.report(*outcome, rows=True)
        assert run.stats.reports_pending == 0


def test_ranks_with_one_key_draw_one_batch_without_the_service(recorder: Recorder, address: str) -> None:
    """A key works while the service is away, and so do reports by rank: they are parts of one selection."""
    batches = []
    for _ in range(2):
        with bots.Client(address, timeout=0.2, job="j", incarnation="one") as client:
            client.create_dataset("d", size=100)
            run = client.create_run("d", "r")
            answers, recorder.answers = recorder.answers, dict.fromkeys(METHODS, never)
            batches.append(run.select(8, key="step-1"))
            recorder.answers = answers
    assert batches[0].tasks.tolist() == batches[1].tasks.tolist()
    assert batches[0].selection_id == batches[1].selection_id
    assert len(batches[0].selection_id) == 32
    assert batches[0].report_id() == derived_request_id("report", batches[0].selection_id, "whole", "")
