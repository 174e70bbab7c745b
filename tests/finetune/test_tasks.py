"""The tasks of the finetuning: generators, scorer and codes."""

import numpy as np
import pytest

from tests.finetune.tasks import (
    END,
    FAMILIES,
    LEVELS,
    LONGEST_ANSWER,
    PAD,
    Task,
    decode,
    draw_distinct,
    draw_task,
    encode,
)

CELLS = [(family, level) for family in FAMILIES for level in range(1, LEVELS + 1)]


def right_answer(task: Task) -> str:
    """Returns the answer of a question, worked out anew from its text."""
    question = task.question.removesuffix("=")
    if question.startswith("sort "):
        return "".join(sorted(question[5:]))
    if question.startswith("reverse "):
        return "".join(reversed(question[8:]))
    if question.startswith("next "):
        alphabet = "abcdefghijklmnopqrstuvwxyza"
        return "".join(alphabet[alphabet.index(letter) + 1] for letter in question[5:])
    left, sign, right = (part for part in question.replace("-", " - ").replace("+", " + ").split())
    return str(int(left) + int(right) if sign == "+" else int(left) - int(right))


@pytest.mark.parametrize(("family", "level"), CELLS)
def test_answer_is_right_and_fits(family: str, level: int) -> None:
    """A drawn task has the right answer, of at most LONGEST_ANSWER codes, and a question of at most 16 characters."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        task = draw_task(rng, family, level)
        assert (task.family, task.level) == (family, level)
        assert task.answer == right_answer(task)
        assert len(task.answer) < LONGEST_ANSWER
        assert len(task.question) <= 16


def test_score_is_one_for_the_right_answer_alone() -> None:
    """An answer that is longer, shorter, empty or other scores 0."""
    task = Task("12+34=", "46", "add", 3)
    assert [task.score(answer) for answer in ("46", "4", "460", "", "47", "046")] == [1, 0, 0, 0, 0, 0]


def test_drawn_tasks_are_distinct_and_cover_every_family_and_level() -> None:
    """Of 2,500 tasks each family and level has 83 or 84."""
    tasks = draw_distinct(np.random.default_rng(0), 2500)
    assert len({task.question for task in tasks}) == 2500
    counts = [sum((task.family, task.level) == cell for task in tasks) for cell in CELLS]
    assert set(counts) == {83, 84}


def test_equal_seeds_draw_equal_tasks() -> None:
    """The tasks depend on the generator alone."""
    one, same, other = (draw_distinct(np.random.default_rng(seed), 300) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_decode_reads_what_encode_wrote() -> None:
    """An encoded answer ends with END and is decoded to itself; a question ends at the last place."""
    texts = ["-73", "0123456", "zyx"]
    assert decode(encode(texts, LONGEST_ANSWER, left=False)) == texts
    questions = encode(["1+2=", "reverse ab="], 12, left=True)
    assert (questions[0, :8] == PAD).all()
    assert questions[0, -1] == questions[1, -1]


def test_answer_without_end_is_never_right() -> None:
    """A text that was cut off, or has padding inside, is no answer."""
    (cut,) = decode(encode(["0123456"], LONGEST_ANSWER, left=False)[:, :-1])
    padded = encode(["46"], LONGEST_ANSWER, left=False)
    padded[0, 1] = PAD
    assert cut != "0123456"
    assert decode(padded) != ["46"]
    assert END not in encode(["46"], 4, left=True)
