"""Tasks are known by id: no order, filter or revision of the trainer's dataset takes one task for another."""

from __future__ import annotations

import json
import logging
import random
from typing import Any

import pytest

import bots
from bots.trainers import Identity, TaskRows, batch_of, create_dataset, marks
from tests.trainers.page import example

Rows = list[dict[str, Any]]
ROWS: Rows = [{"prompt": f"{a} + {b} =", "answer": a + b, "key": 10 * a + b} for a in range(5) for b in range(4)]


def shuffled(rows: Rows, seed: int = 7) -> Rows:
    """Returns the rows in another order."""
    return random.Random(seed).sample(rows, len(rows))


def run_over(client: bots.Client, rows: Rows, **keywords: Any) -> bots.Run:
    """Returns a run over the service's dataset made of these rows."""
    create_dataset(client, "sums", rows, dimensions=0, **keywords)
    return client.create_run("sums", "r")


def other_process(client: bots.Client, address: str, run: bots.Run) -> bots.Run:
    """Returns the run of a client that has not stored the dataset."""
    return bots.Client(address, timeout=20).run(run.dataset, run.name)


@pytest.mark.parametrize("identity", [{}, {"id": "key"}, {"id": lambda row: f"sum-{row['key']}"}])
def test_selected_rows_are_the_tasks_whatever_their_order(
    client: bots.Client, address: str, identity: dict[str, Any]
) -> None:
    run = other_process(client, address, run_over(client, ROWS, **identity))
    rows = shuffled(ROWS)
    mapping = TaskRows(run, rows, **identity)
    batch = mapping.select(len(rows))
    assert batch.ids == [mapping.identity.of_row(rows[row]) for row in mapping.rows_of(batch)]
    assert sorted(mapping.rows_of(batch)) == list(range(len(rows)))


def test_dataset_in_another_order_is_the_same_dataset(client: bots.Client) -> None:
    first = create_dataset(client, "sums", ROWS, tag=lambda row: str(row["answer"] % 2), dimensions=3)
    second = create_dataset(client, "sums", shuffled(ROWS), tag=lambda row: str(row["answer"] % 2), dimensions=3)
    assert (first.created, second.created) == (True, False)
    assert first.fingerprint == second.fingerprint
    assert len(second.features) == 4


def test_references_follow_their_rows(client: bots.Client) -> None:
    rates = [row["answer"] / 10 for row in ROWS]
    one = create_dataset(client, "a", ROWS, references={"weak": rates}, dimensions=0)
    other = create_dataset(
        client, "b", shuffled(ROWS), references={"weak": lambda row: row["answer"] / 10}, dimensions=0
    )
    assert one.fingerprint == other.fingerprint
    with pytest.raises(
        bots.InvalidArgumentError, match=r"references\['weak'\]: got 1 entries, must be one for each of"
    ):
        create_dataset(client, "c", ROWS, references={"weak": [0.5]}, dimensions=0)


def test_tasks_that_were_filtered_out_are_never_selected(client: bots.Client, address: str) -> None:
    run = other_process(client, address, run_over(client, ROWS))
    kept = shuffled(ROWS)[:12]
    mapping = TaskRows(run, kept)
    assert len(mapping.missing) == len(ROWS) - len(kept)
    assert sorted(mapping.rows_of(mapping.select(12))) == list(range(12))
    with pytest.raises(bots.FailedPreconditionError, match="eligible 12"):
        mapping.select(13)


def test_dataset_with_other_rows_is_refused_with_the_difference(client: bots.Client) -> None:
    run = run_over(client, ROWS)
    other = [*ROWS, {"prompt": "another"}]
    with pytest.raises(bots.FailedPreconditionError, match=r"1 rows are not its tasks .21 rows, 20 tasks, 20 in both."):
        TaskRows(run, other)
    with pytest.raises(bots.FailedPreconditionError, match=r"no row is one of its tasks .1 rows, 20 tasks, 0 in both."):
        TaskRows(run, [{"prompt": "another"}])
    mapping = TaskRows(run, other, skip_unknown=True)
    assert 20 not in mapping.rows_of(mapping.select(20))


def test_dataset_without_ids_is_refused(client: bots.Client) -> None:
    client.create_dataset("plain", size=20)
    with pytest.raises(bots.FailedPreconditionError, match="its tasks have no ids"):
        TaskRows(client.create_run("plain", "r"), ROWS)


def test_equal_prompts_are_one_task(client: bots.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run = run_over(client, [*ROWS, ROWS[3]])
    assert "1 rows have the prompt of another row" in caplog.text
    mapping = TaskRows(run, [*ROWS, ROWS[3]])
    assert sorted(mapping.rows_of(mapping.select(20))) == list(range(20))


def test_id_that_two_rows_have_is_refused(client: bots.Client) -> None:
    run = run_over(client, ROWS, id="key")
    with pytest.raises(bots.InvalidArgumentError, match="id: got '3', must be the id of one row"):
        TaskRows(run, [*ROWS, ROWS[3]], id="key")


def test_chat_prompt_is_text() -> None:
    identity = Identity()
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "1 + 1"}]},
    ]
    assert identity.prompt({"prompt": chat}) == "system: Be brief.\nuser: 1 + 1"
    with pytest.raises(bots.InvalidArgumentError, match=r"text: got .*, must be a string or chat messages"):
        identity.of_row({"prompt": [{"role": "user", "content": [{"type": "image", "image": object()}]}]})


def test_mark_reports_its_task_in_another_process(client: bots.Client, address: str) -> None:
    run = run_over(client, ROWS)
    batch = run.select(3, policy_step=5)
    texts = json.loads(json.dumps(marks(batch)))
    for position, mark in enumerate(texts):
        one = batch_of(other_process(client, address, run), mark)
        assert one.tasks == batch.tasks[position]
        one.report_rewards([[1, 1, 1, 0]], policy_step=6)
    kinds = [event.kind for event in run.events()]
    assert {kind.selection_id for kind in kinds if isinstance(kind, bots.ReportEvent)} == {batch.selection_id}
    alpha, beta = run.posteriors(batch.tasks, rows=True)
    assert (alpha > beta).all()


def test_foreign_text_is_no_mark(client: bots.Client) -> None:
    with pytest.raises(bots.InvalidArgumentError, match="mark: got 'x', must be a mark"):
        batch_of(client.run("d", "r"), "x")


def test_own_loop_of_the_page_runs_on_the_dataset_of_the_page(address: str) -> None:
    rows = [{"prompt": f"{a} + {b} =", "source": "sums"} for a in range(10) for b in range(10)]
    user: dict[str, Any] = {"dataset": rows, "train_on": lambda rows: [[1.0, 0.0]] * len(rows)}
    for heading in ("# Task selection", "Your own loop"):
        exec(example(heading, address).replace("range(1000)", "range(3)"), user)
    assert user["run"].summary().updates == 3
    assert user["run"].summary().total.outcomes == 24
