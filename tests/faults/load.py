"""The load: 16 jobs over 2 server processes on one port, as fast as they go; throughput, latencies and memory.

Half of the jobs lease. After 10,000 events the history is trimmed: from then on nothing may grow but the request ids,
and the answers of selections, which are kept for an hour and are shown apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import bots
from bots_server.process.embedded import ending_with_parent
from tests.faults.server import children, one_server
from tests.valkey import Valkey, valkey

JOBS, CLIENT_PROCESSES = 16, 4
TASKS, BATCH = 100_000, 32


def load(seconds: float) -> None:
    """Runs the load for so long, and prints its figures."""
    with (
        valkey("--appendonly", "yes", "--appendfsync", "everysec") as store,
        one_server("--redis", store.url, "--processes", "2") as (process, address),
    ):
        with bots.Client(address, timeout=30, strict=True) as client:
            weak = np.random.default_rng(1).integers(0, 17, TASKS) / 16
            client.create_dataset("load", weak=weak / 2, strong=weak)
            client.create_run("load", "policy")
        command = [sys.executable, "-m", "tests.faults.load", address, str(seconds)]
        clients = [
            subprocess.Popen(ending_with_parent([*command, str(number)]), stdout=subprocess.PIPE, text=True)
            for number in range(CLIENT_PROCESSES)
        ]
        print(f"\nload: {JOBS} jobs over 2 server processes, {BATCH} of {TASKS:,} tasks a batch, half of them leased")
        begin = time.monotonic()
        for part in (0.02, 0.25, 0.5, 0.75, 0.98):
            time.sleep(max(0.0, begin + part * seconds - time.monotonic()))
            show_memory(f"after {time.monotonic() - begin:.0f} s", process.pid, store)
        selects, reports = [], []
        for one in clients:
            answer, _ = one.communicate(timeout=60)
            told = json.loads(answer)
            selects += told["select"]
            reports += told["report"]
        for name, latencies in (("select", selects), ("report", reports)):
            milliseconds = np.percentile(np.array(latencies) * 1e3, [50, 99, 100])
            print(
                f"  {name}: {len(latencies) / seconds:.0f} calls/s, p50 {milliseconds[0]:.1f} ms, "
                f"p99 {milliseconds[1]:.1f} ms, longest {milliseconds[2]:.0f} ms"
            )


def show_memory(when: str, parent: int, store: Valkey) -> None:
    """Prints the memory of the workers and of Redis."""
    workers = [resident(pid) for pid in children(parent) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    with store.client() as client:
        answers = list(client.scan_iter(match="*:answer:*", count=10_000))
        sample = answers[:: max(1, len(answers) // 100)]
        each = float(np.mean([client.memory_usage(key) or 0 for key in sample])) if sample else 0.0
        memory = client.info("memory")
        used, dataset = int(memory["used_memory"]), int(memory["used_memory_dataset"])
        version = int(
            client.hget(next(iter(client.scan_iter(match="*:run:" + "?" * 32, count=10_000))), "version") or 0
        )
    print(
        f"  {when}: version {version}, workers {' and '.join(f'{rss / 2**20:.0f} MiB' for rss in workers)}; Redis "
        f"{used / 2**20:.1f} MiB, {(used - each * len(answers)) / 2**20:.1f} MiB without {len(answers)} answers of "
        f"{each:.0f} B ({dataset / 2**20:.1f} MiB data)",
        flush=True,
    )


def resident(pid: int) -> int:
    """Returns the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def work(address: str, seconds: float, number: int) -> None:
    """Runs the jobs of one client process; prints the seconds that each call took, as JSON."""
    taken: dict[str, list[float]] = {"select": [], "report": []}
    end = time.monotonic() + seconds

    def job(name: str, lease_seconds: float | None, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with bots.Client(address, timeout=30, job=name, strict=True) as client:
            run = client.run("load", "policy")
            while time.monotonic() < end:
                begin = time.perf_counter()
                batch = run.select(BATCH, lease_seconds=lease_seconds)
                middle = time.perf_counter()
                successes = rng.binomial(8, 0.5, BATCH)
                before = time.perf_counter()
                batch.report(successes, 8)
                taken["select"].append(middle - begin)
                taken["report"].append(time.perf_counter() - before)

    each = JOBS // CLIENT_PROCESSES
    threads = [
        threading.Thread(target=job, args=(f"job-{number}-{i}", 60.0 if i % 2 else None, each * number + i))
        for i in range(each)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(taken))


if __name__ == "__main__":
    work(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
