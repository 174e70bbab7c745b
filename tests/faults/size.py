"""The size: bytes in Redis of a run at a million tasks after 10,000 reports, by what they are for."""

from __future__ import annotations

import threading
from collections import defaultdict

import numpy as np

import bots
from tests.faults.server import one_server
from tests.valkey import valkey

TASKS, REPORTS, BATCH, JOBS = 1_000_000, 10_000, 32, 4


def size() -> None:
    """Makes the run, and prints its size."""
    with (
        valkey("--appendonly", "no") as store,
        one_server("--redis", store.url) as (_, address),
        bots.Client(address, timeout=60, strict=True) as client,
    ):
        rng = np.random.default_rng(1)
        weak, strong = np.sort(rng.integers(0, 17, (2, TASKS)), axis=0) / 16
        client.create_dataset("million", weak=weak, strong=strong)
        run = client.create_run("million", "policy")

        def report(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(REPORTS // JOBS):
                run.report(rng.choice(TASKS, BATCH, replace=False), rng.integers(0, 9, BATCH), 8)

        threads = [threading.Thread(target=report, args=(seed,)) for seed in range(JOBS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        batches = [run.select(BATCH, lease_seconds=60) for _ in range(100)]
        assert run.info().version == REPORTS
        assert len(batches) == 100
        with store.client() as redis:
            sizes: dict[str, int] = defaultdict(int)
            counts: dict[str, int] = defaultdict(int)
            for key in redis.scan_iter(count=1000):
                name = key.decode().split("}:", 1)[-1]
                parts = name.split(":")
                kind = "dataset" if ":run:" not in name else ":".join(parts[3:4]) or "run"
                sizes[kind] += redis.memory_usage(key, samples=0) or 0
                counts[kind] += 1
                if kind in ("events", "requests", "snapshots"):
                    counts[kind] = {"events": redis.xlen, "requests": redis.hlen, "snapshots": redis.hlen}[kind](key)
    leased = sum(sizes.pop(kind) for kind in ("leases", "owners", "selections"))
    dataset, answers = sizes.pop("dataset"), sizes.pop("answers") + sizes.pop("answer_times")
    print(f"\nsize: a run over {TASKS:,} tasks after {REPORTS:,} reports of {BATCH} outcomes")
    print(f"  {sum(sizes.values()):,} bytes a run; the dataset itself {dataset:,}")
    for kind in ("events", "requests", "snapshots"):
        print(f"  {kind}: {sizes[kind]:,} bytes, {counts[kind]:,} of {sizes[kind] / counts[kind]:,.0f} bytes")
    print(f"  a leased task: {leased / len(batches) / BATCH:.0f} bytes")
    print(f"  the answer of a leasing selection: {answers / len(batches):,.0f} bytes, for an hour")
