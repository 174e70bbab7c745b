"""Bits flipped in what is stored: each is named, healed, or changes nothing, and none is served.

    python -m tests.faults.flips --flips 5000

prints a table of the outcomes. `pristine` fills a Redis with everything that the service stores, and `Judge` asks the
service what it makes of a Redis of which something was changed.
"""

from __future__ import annotations

import argparse
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock, patch

from prometheus_client import CollectorRegistry

from bots.v1 import task_selection_pb2 as pb
from bots_server.api.admission import LongCalls, ShortCalls
from bots_server.api.callers import ANYBODY, calling
from bots_server.api.servicer import TaskSelectionService
from bots_server.errors import Failure
from bots_server.runs.registry import Registry
from bots_server.store import Store, connect, history
from bots_server.telemetry.metrics import Metrics
from tests.api.service import SECONDS, Run, Service, dataset_parts
from tests.valkey import valkey

TASKS = 24
LETTERS = [chr(ord("a") + task) for task in range(TASKS)]
IDS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
NAMED = {"RUN_DAMAGED", "DATASET_DAMAGED", "KEY_OCCUPIED"}
Redis = Any  # redis.Redis, whose types allow for every way to decode


@contextmanager
def small_history() -> Iterator[None]:
    """Makes snapshots and trims after few events."""
    with (
        patch.object(history, "SNAPSHOT_EVENTS", 6),
        patch.object(history, "HISTORY_EVENTS", 14),
        patch.object(history, "HISTORY_STRIDE", 6),
    ):
        yield


class Direct:
    """The calls of the service in this process, as a stub has them. A channel would cost most of the time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = connect(url, timeout_seconds=20)
        (self.redis,) = self.client.primaries()
        self.store, self._metrics = Store(self.client), Metrics(CollectorRegistry())
        self._calling = calling(ANYBODY)
        self._calling.__enter__()
        self.forget()

    def forget(self) -> None:
        """Has the service forget what it holds, as a restart does."""
        self._registry = Registry(self.store, self._metrics, max_bytes=1 << 30, idle_seconds=3600)
        calls = LongCalls(ShortCalls(16, threading.Event()), limit=16, per_caller=16, seconds=3600, idle_seconds=3600)
        self._service = TaskSelectionService(
            self.store,
            self._registry,
            self._metrics,
            long_calls=calls,
            max_lease_seconds=3600,
            stopping=threading.Event(),
        )

    def close(self) -> None:
        self._registry.close()
        self.store.close()
        self._calling.__exit__(None, None, None)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        context = Mock(is_active=lambda: True, peer=lambda: "")
        return lambda request, timeout: getattr(self._service, method)(request, context)


def pristine(stub: Any) -> None:
    """Stores a dataset and runs with snapshots, checkpoints, restores, retired tasks, leases and answers."""
    tags = ["vowel" if letter in "aeiou" else "consonant" for letter in LETTERS]
    references = {"weak": [0.1 * (task % 4) for task in range(TASKS)], "strong": 0.9}
    features = {"place": [*range(TASKS)]}
    parts = dataset_parts("letters", TASKS, ids=LETTERS, tags=tags, references=references, features=features)
    stub.CreateDataset(iter(create_requests(*parts)), timeout=SECONDS)
    interpolation = pb.CreateRunRequest(dataset="letters", name="one", model=pb.EVIDENCE_MODEL_INTERPOLATION)
    run = Run(stub, stub.CreateRun(interpolation, timeout=SECONDS).run.ref)
    for step in range(26):
        run.answer(run.select(2, seed=step), successes=step % 5)
        if step == 18:
            run.checkpoint("best")
            run.checkpoint("brief", ttl_seconds=86_400)
            run.restore(version=17)
            run.update(target=0.6)
            stub.RetireTasks(pb.RetireTasksRequest(run=run.ref, tasks=[TASKS - 1], reason="broken"), timeout=SECONDS)
        _wait_for_snapshot(stub.redis)
    run.select(3, lease_seconds=3600, request_id=IDS[0], job="trainer", incarnation="first", allow_fewer=True)
    run.report([1, 2], [2, 3], request_id=IDS[1], job="trainer")
    fork = pb.CreateRunRequest(dataset="letters", name="two", fork_from=pb.ForkPoint(run="one"))
    stub.CreateRun(fork, timeout=SECONDS)


def create_requests(header: pb.DatasetHeader, *chunks: pb.DatasetChunk) -> list[pb.CreateDatasetRequest]:
    """Returns the messages of an upload."""
    return [pb.CreateDatasetRequest(header=header), *(pb.CreateDatasetRequest(chunk=chunk) for chunk in chunks)]


def _wait_for_snapshot(client: Redis) -> None:
    """Waits until the background has stored the snapshot that is due."""
    (key,) = (key for key in client.keys("bots:*:run:*") if key.count(b":") == 4)
    Service.wait_until(lambda: int(client.hget(key, "version")) - int(client.hget(key, "snapshot")) < 6)


class Judge:
    """Knows what the service answers from a pristine Redis, and compares."""

    def __init__(self, stub: Any) -> None:
        self.stub, self.redis = stub, stub.redis
        self.dumps = {key: (self.redis.pttl(key), self.redis.dump(key)) for key in self.redis.scan_iter()}
        self.reset()
        self.truth = self.answers()
        failed = {name: answer for name, answer in self.truth.items() if isinstance(answer, str)}
        assert not failed, failed

    def reset(self) -> None:
        """Stores the pristine state."""
        self.redis.flushdb()
        with self.redis.pipeline(transaction=False) as pipeline:
            for key, (ttl, dump) in self.dumps.items():
                pipeline.restore(key, max(ttl, 0), dump)
            pipeline.execute()

    def judge(self, change: Callable[[Redis], object]) -> tuple[str, dict[str, str]]:
        """Returns the outcome of a change of the pristine state, and what was answered wrongly or with an error.

        "harmless": all answers are the right ones. "healed": something was named as damaged, and after a restore from a
        checkpoint nothing is. "named": the same without the last. "wrong": an answer is another than before, or an
        error does not name the damage, or what is damaged cannot be deleted.
        """
        self.reset()
        change(self.redis)
        answers = self.answers()
        failed = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
        wrong = {
            name: f"{str(self.truth[name])[:400]!r} became {str(answer)[:400]!r}"
            for name, answer in answers.items()
            if not isinstance(answer, str) and answer != self.truth[name]
        }
        wrong |= {name: reason for name, reason in failed.items() if reason not in NAMED}
        if (left := self.answer(self.delete)) not in ("", "KEY_OCCUPIED"):  # then only the list of names is there
            wrong["left after the deletion"] = left
        if wrong:
            return "wrong", wrong
        if not failed:
            return "harmless", {}
        return ("named" if any(name.startswith("restored") for name in failed) else "healed"), failed

    def answers(self) -> dict[str, Any]:
        """Returns the answers to calls that read and write, by name; the reason if a call failed."""
        self.stub.forget()
        stub, one, two = self.stub, self.run("one"), self.run("two")
        repeated = {"request_id": IDS[0], "job": "trainer", "incarnation": "first", "allow_fewer": True}
        asked: dict[str, Callable[[], Any]] = {
            "datasets": lambda: stub.ListDatasets(pb.ListDatasetsRequest(), timeout=SECONDS),
            "dataset": lambda: stub.GetDataset(pb.GetDatasetRequest(name="letters"), timeout=SECONDS),
            "runs": lambda: stub.ListRuns(pb.ListRunsRequest(dataset="letters"), timeout=SECONDS),
            "fork": lambda: (two.info(), posteriors(two)),
            "run": lambda: (one.info(), posteriors(one)),
            "events": one.events,
            "selection": lambda: [*one.select(4, seed=1, allow_fewer=True).tasks],
            "checkpoints": lambda: stub.ListCheckpoints(pb.ListCheckpointsRequest(run=one.ref), timeout=SECONDS),
            "repeated selection": lambda: one.select(3, lease_seconds=3600, **repeated),
            "tasks that are free": lambda: self.free(one),
            "repeated report": lambda: one.report([1, 2], [2, 3], request_id=IDS[1], request_age_seconds=1),
            "report": lambda: one.report([3], [1], request_id=IDS[2]).version,
            "restored run": lambda: one.restore(checkpoint="best") and posteriors(one),
            "restored selection": lambda: len(one.select(1).tasks),
            "restored report": lambda: bool(one.report([3], [1]).version),
        }
        answers = {name: self.answer(ask) for name, ask in asked.items()}
        for name in ("runs", "datasets"):  # they pass over what is damaged, and say so
            if "damage:" in str(answers[name]):
                answers[name] = "RUN_DAMAGED"
        return answers

    def run(self, name: str) -> Run:
        return Run(self.stub, pb.RunRef(dataset="letters", name=name))

    def free(self, run: Run) -> list[int]:
        """Returns the tasks that are not leased, by leasing them."""
        free = run.select(TASKS, lease_seconds=1, allow_fewer=True)
        release = pb.ReleaseSelectionRequest(run=run.ref, selection_id=free.selection_id)
        self.stub.ReleaseSelection(release, timeout=SECONDS)
        return sorted(free.tasks)

    def delete(self) -> str:
        """Deletes the dataset, and returns what is left of it that does not expire."""
        self.stub.DeleteDataset(pb.DeleteDatasetRequest(name="letters", delete_runs=True), timeout=SECONDS)
        return " ".join(key.decode() for key in self.redis.keys("bots:{letters}*") if self.redis.ttl(key) < 0)

    def answer(self, ask: Callable[[], Any]) -> Any:
        """Returns a call's answer; the reason if it failed."""
        try:
            return ask()
        except Failure as failure:
            return failure.reason
        except Exception as bug:
            return f"bug: {bug!r}"


def posteriors(run: Run) -> list[list[float]]:
    """Returns alpha and beta of all tasks."""
    return [part.tolist() for part in run.posteriors()]


def flip(rng: random.Random, client: Redis) -> str:
    """Flips one bit of what a random key holds; returns where."""
    key = rng.choice(sorted(client.keys()))
    kind = client.type(key)
    if kind == b"string":
        client.set(key, flipped(rng, client.get(key)), keepttl=True)
    elif kind == b"hash":
        field, value = rng.choice(sorted(client.hgetall(key).items()))
        if rng.random() < 0.25 or not value:
            client.hdel(key, field)
            client.hset(key, flipped(rng, field), value)
            return f"{_tail(key)} field"
        client.hset(key, field, flipped(rng, value))
        return f"{_tail(key)}" + (f" {field.decode()}" if _tail(key) in ("run", "dataset") else "")
    elif kind == b"set":
        member = rng.choice(sorted(client.smembers(key)))
        client.srem(key, member)
        client.sadd(key, flipped(rng, member))
    elif kind == b"list":
        at = rng.randrange(client.llen(key))
        client.lset(key, at, flipped(rng, client.lindex(key, at)))
    elif kind == b"zset":
        member, score = rng.choice(client.zrange(key, 0, -1, withscores=True))
        if rng.random() < 0.5:
            client.zrem(key, member)
            client.zadd(key, {flipped(rng, member): score})
            return f"{_tail(key)} member"
        (changed,) = struct.unpack("<d", flipped(rng, struct.pack("<d", score)))
        client.zadd(key, {member: changed if changed == changed else 0.0})
        return f"{_tail(key)} score"
    else:
        entries = client.xrange(key)
        at = rng.randrange(len(entries))
        words = entries[at][1]
        field = rng.choice(sorted(words))
        if rng.random() < 0.1:
            words[flipped(rng, field)] = words.pop(field)
        else:
            words[field] = flipped(rng, words[field])
        client.delete(key)
        for entry, words in entries:
            client.xadd(key, words, entry)
        return f"events {field.decode()}"
    return _tail(key)


def lose(client: Redis, key: bytes) -> None:
    """Deletes a key, as an eviction does."""
    client.delete(key)


def replace_by_another_type(client: Redis, key: bytes) -> None:
    """Puts a value of another type under a key, as another application may."""
    other, ttl = client.type(key) == b"string", client.pttl(key)
    client.delete(key)
    client.rpush(key, "x") if other else client.set(key, "x")
    if ttl > 0:
        client.pexpire(key, ttl)


def cut(client: Redis, key: bytes) -> None:
    """Cuts each value of a string or hash in two."""
    if client.type(key) == b"string":
        client.set(key, client.get(key)[: client.strlen(key) // 2])
    elif client.type(key) == b"hash":
        client.hset(key, mapping={field: value[: len(value) // 2] for field, value in client.hgetall(key).items()})


def flipped(rng: random.Random, value: bytes) -> bytes:
    """Returns bytes of which one bit is the other."""
    at, bit = rng.randrange(len(value)), 1 << rng.randrange(8)
    return value[:at] + bytes([value[at] ^ bit]) + value[at + 1 :]


def _tail(key: bytes) -> str:
    """Returns what a key is for."""
    words = key.decode().partition("}:")[2].split(":")
    if words[1:2] == ["run"]:
        return words[3] if len(words) > 3 else "run"
    return words[min(1, len(words) - 1)] or "datasets"


@contextmanager
def judge() -> Iterator[Judge]:
    """Yields a judge over a Redis of its own."""
    with small_history(), valkey() as server:
        stub = Direct(server.url)
        pristine(stub)
        yield Judge(stub)
        stub.close()


def run_flips(flips: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Returns the outcomes by place of the flip, and what was answered wrongly."""
    rng, table, wrong = random.Random(seed), dict[str, Counter[str]](), list[str]()
    with judge() as judged:
        for number in range(flips):
            place: list[str] = []
            outcome, found = judged.judge(lambda client, place=place: place.append(flip(rng, client)))  # type: ignore[misc]
            table.setdefault(place[0], Counter())[outcome] += 1
            if outcome == "wrong":
                wrong.append(f"flip {number} in {place[0]}: {found}")
    return table, wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table, wrong = run_flips(arguments.flips, arguments.seed)
    outcomes = "harmless", "healed", "named", "wrong"
    print(f"{'flipped':<28}" + "".join(f"{name:>10}" for name in outcomes))
    for place, counts in [*sorted(table.items()), ("all", sum(table.values(), Counter()))]:
        print(f"{place:<28}" + "".join(f"{counts[name]:>10}" for name in outcomes))
    for line in wrong:
        print(line)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
