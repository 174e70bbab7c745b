"""What is damaged in Redis is named, healed, or changes nothing: flips.py says what that means."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.faults.flips import Judge, Redis, cut, flip, judge, lose, replace_by_another_type, run_flips


@pytest.fixture(scope="module")
def judged() -> Iterator[Judge]:
    with judge() as judged:
        yield judged


def test_flipped_bits_are_never_served() -> None:
    """Of some hundred flipped bits none changes an answer, and every error names the damage."""
    table, wrong = run_flips(200, seed=0)
    assert wrong == []
    assert sum(counts["named"] + counts["healed"] for counts in table.values()) > 50


@pytest.mark.parametrize("change", [lose, replace_by_another_type, cut])
def test_damaged_keys_are_never_served(judged: Judge, change: Callable[[Redis, bytes], None]) -> None:
    """The same if a key is lost, has another type, or its values are cut.

    Except the record of a dataset, without which the dataset is not found: fsck names what is left of it.
    """
    wrong = {}
    for key in judged.dumps:
        if change is lose and key.endswith(b":dataset"):
            continue
        outcome, found = judged.judge(lambda client, key=key: change(client, key))  # type: ignore[misc]
        if outcome == "wrong":
            wrong[key] = found
    assert wrong == {}


def test_fsck_names_what_is_left_of_a_dataset(judged: Judge) -> None:
    """A dataset whose record is lost is not found; fsck says so, and deletes the rest if it is told to repair."""
    judged.reset()
    judged.redis.delete("bots:{letters}:dataset")
    (damage,) = judged.stub.store.damages()
    assert "its record is missing" in damage.what
    assert damage.repair is not None
    damage.repair()
    assert judged.redis.keys("bots:{letters}:*:columns:*") == []
    assert list(judged.stub.store.damages()) == []


def test_fsck_names_what_calls_name(judged: Judge) -> None:
    """What a call names as damaged is named by fsck; it names nothing of a pristine Redis, and repairs what it says."""
    judged.reset()
    assert list(judged.stub.store.damages()) == []
    rng = random.Random(0)
    for number in range(60):
        judged.reset()
        state = rng.getstate()
        place = flip(rng, judged.redis)
        damages = list(judged.stub.store.damages())
        for damage in damages:
            if damage.repair is not None:
                damage.repair()
        left = list(judged.stub.store.damages())
        assert all(damage.repair is None for damage in left), (number, place, left)
        after = rng.getstate()
        rng.setstate(state)
        outcome, found = judged.judge(lambda client: flip(rng, client))
        assert damages or outcome == "harmless", (number, place, found)
        rng.setstate(after)


def test_fsck_prints_and_repairs(judged: Judge) -> None:
    """`bots-server fsck` prints a line for each damage and exits with 1; with --repair it drops what is not needed."""

    def fsck(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "bots_server", "fsck", "--redis", judged.stub.url, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        return ended.returncode, ended.stdout

    judged.reset()
    assert fsck() == (0, "no damage\n")
    key = next(key for key in judged.dumps if key.endswith(b":snapshots") and judged.redis.hlen(key) > 1)
    newest = max(judged.redis.hkeys(key), key=int)
    judged.redis.hset(key, newest, b"damaged")
    status, printed = fsck()
    assert (status, printed.count("\n")) == (1, 2)
    assert f"{key.decode()} has a wrong checksum at {newest.decode()}; --repair drops it" in printed
    assert fsck("--repair")[0] == 0
    assert fsck() == (0, "no damage\n")
