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


def newest(client: Redis, kind: bytes) -> tuple[bytes, bytes]:
    """Returns the key of the run `one` that is for something, and its newest field or entry."""
    key = next(key for key in sorted(client.keys(b"*:events"), key=client.xlen, reverse=True))
    key = key.removesuffix(b"events") + kind
    field = client.xrevrange(key, count=1)[0][0] if kind == b"events" else max(client.hkeys(key), key=int)
    return key, field


def change_entry(client: Redis, back: int, **words: bytes) -> None:
    """Changes or (without words) deletes an entry of the history, counted back from its end."""
    key, _ = newest(client, b"events")
    entry, was = client.xrevrange(key, count=back)[-1]
    changed = [(entry, was | {name.encode(): word for name, word in words.items()})] if words else []
    before, later = client.xrange(key, "-", f"({entry.decode()}"), client.xrange(key, f"({entry.decode()}")
    client.delete(key)  # a stream takes no entry before its last one, so it is made again
    for one, content in (*before, *changed, *later):
        client.xadd(key, content, one)


def change_snapshot(client: Redis, content: bytes | None) -> None:
    """Changes or (None) deletes the newest snapshot."""
    key, field = newest(client, b"snapshots")
    client.hset(key, field, content) if content is not None else client.hdel(key, field)


def change_head(client: Redis, **fields: object) -> None:
    """Changes the head of a run."""
    key, _ = newest(client, b"events")
    client.hset(key.removesuffix(b":events"), mapping=fields)


BY_HAND: dict[str, Callable[[Redis], object]] = {
    "newest snapshot is gone": lambda client: change_snapshot(client, None),
    "newest snapshot is empty": lambda client: change_snapshot(client, b""),
    "newest event is deleted": lambda client: change_entry(client, 1),
    "event after the newest snapshot is deleted": lambda client: change_entry(client, 2),
    "newest event is empty": lambda client: change_entry(client, 1, e=b""),
    "newest event is no message": lambda client: change_entry(client, 1, e=b"\xff\xff"),
    "newest event is another one": lambda client: change_entry(client, 1, e=b"\x0a\x00"),
    "version is no number": lambda client: change_head(client, version="x"),
    "version is lower": lambda client: change_head(client, version=3),
    "version is higher": lambda client: change_head(client, version=1000),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_changes_by_hand_are_never_served(judged: Judge, what: str) -> None:
    """Each change is noticed: it is named or healed, by a server that did not hold the run."""
    outcome, found = judged.judge(BY_HAND[what])
    assert outcome in ("harmless", "healed", "named"), found
    assert outcome != "harmless" or "snapshot" in what  # an earlier one and the events after it give the same


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
