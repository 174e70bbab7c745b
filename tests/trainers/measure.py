"""Measures what an adapter costs in its trainer's own classes, against a server in another process.

    python -m tests.trainers.measure NAME RESULT [--seconds 60]

Writes one JSON object to the file RESULT, and its progress to stderr. `python -m tests.trainers --measure` runs it in
each environment and writes the table of client/TRAINERS.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bots
from tests.deploy import stack
from tests.trainers.loops import NAMES, WINDOW, Loop, loop_of
from tests.valkey import free_port, valkey

# Steps without and with the adapter: at most so many of each, at least so many, and no more after so many seconds.
MOST_PAIRS, LEAST_PAIRS, PAIRS_SECONDS = 60, 10, 45.0
BACK_SECONDS = 60.0  # the service is back and the next selections must come from it


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the adapter costs.

    plain_ms, overhead_ms  median step without the adapter, and how much longer that with it is; steps alternate.
    unseen                 steps that were scored and whose rewards a selection did not see: "median, most".
    resumed                selections from a resume to its first batch.
    stall_s                longest step, less `plain_ms`, from the death of the service until its selections are back.
    delivered              updates of the run, of the steps made.
    """

    plain_ms: float
    overhead_ms: float
    unseen: str
    resumed: int
    stall_s: float
    delivered: str


class Watched:
    """Notes the version that each selection of a run saw."""

    def __init__(self, run: bots.Run) -> None:
        self._run, self._versions = run, dict[str, int]()
        select = run.select

        def noted(*args: Any, **options: Any) -> bots.Batch:
            batch = select(*args, **options)
            if batch.version is not None:
                self._versions[batch.selection_id] = batch.version
            return batch

        run.select = noted  # type: ignore[method-assign]

    def unseen(self) -> list[int]:
        """Returns for each selection that was reported, how many earlier ones it has not seen the rewards of."""
        reported: dict[str, int] = {}
        for event in self._run.events():
            if isinstance(event.kind, bots.ReportEvent):
                reported[event.kind.selection_id] = event.version
        made = [selection for selection in self._versions if selection in reported]
        return [
            sum(reported[earlier] > self._versions[selection] for earlier in made[:place])
            for place, selection in enumerate(made)
        ]


class Service:
    """A server over a Valkey, which can be killed and started again at its address."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url, self._port = redis_url, free_port()
        self._processes = ExitStack()
        self._server: stack.Server | None = None

    def start(self) -> str:
        """Starts it; returns its address."""
        self._server = self._processes.enter_context(stack.bots_server(self._redis_url, "--port", str(self._port)))
        return self._server.address

    def kill(self) -> None:
        """Kills it (SIGKILL)."""
        assert self._server is not None
        self._server.process.kill()
        self._server.process.wait()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Service]:
        """Yields a service that is not started yet, and ends its processes."""
        with valkey() as redis:
            service = cls(redis.url)
            with service._processes:
                yield service


def measured(name: str, seconds: float) -> Measured:
    """Returns the figures of one adapter."""
    with tempfile.TemporaryDirectory() as folder, Service.running() as service:
        client = bots.Client(service.start(), job="measured")
        said(name, "making the trainer")
        run, loop = loop_of(name, client, Path(folder))
        watched = Watched(run)
        said(name, f"at most {MOST_PAIRS} steps with and without the adapter")
        steps, adapted = alternated(loop)
        plain = statistics.median(steps)
        time.sleep(2 * WINDOW)  # the rewards of the last step are sent
        client.flush(60)
        unseen = watched.unseen()
        said(name, "resuming")
        loop.save()
        before = run.stats.selections
        loop.resume()
        resumed = run.stats.selections - before
        stall = max(steps_without(name, service, loop, run, seconds))
        said(name, "delivering")
        time.sleep(2 * WINDOW)
        client.flush(60)
        updates = run.summary().updates
        client.close()
    return Measured(
        plain_ms=1000 * plain,
        overhead_ms=1000 * (statistics.median(adapted) - plain),
        unseen=f"{statistics.median_low(unseen)}, {max(unseen)}",
        resumed=resumed,
        stall_s=stall - plain,
        delivered=f"{updates} of {loop.steps}",
    )


def alternated(loop: Loop) -> tuple[list[float], list[float]]:
    """Returns how long steps took without and with the adapter, in turns; the first of each is left out."""
    took: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + PAIRS_SECONDS
    while len(took[1]) < 1 + MOST_PAIRS and (len(took[1]) < 1 + LEAST_PAIRS or time.monotonic() < end):
        for adapted in (False, True):
            took[adapted].append(loop.step(adapted))
    return took[0][1:], took[1][1:]


def steps_without(name: str, service: Service, loop: Loop, run: bots.Run, seconds: float) -> Iterator[float]:
    """Yields how long each step took, while the service is dead for some seconds and until it selects again."""
    service.kill()
    said(name, f"the service is away for {seconds:g} s")
    back = time.monotonic() + seconds
    while time.monotonic() < back:
        yield loop.step(True)
    said(name, "the service is started again")
    with ThreadPoolExecutor(1) as executor:
        starting = executor.submit(service.start)
        deadline = time.monotonic() + BACK_SECONDS
        while True:
            alone = run.stats.fallback_selections
            yield loop.step(True)
            if starting.done() and run.stats.fallback_selections == alone:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"no selection of the service within {BACK_SECONDS:g} s")
        starting.result()


def said(name: str, line: str) -> None:
    """Prints progress."""
    print(f"{time.strftime('%H:%M:%S')} {name}: {line}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("result", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the service is away")
    given = parser.parse_args()
    given.result.write_text(json.dumps(dataclasses.asdict(measured(given.name, given.seconds))))


if __name__ == "__main__":
    main()
