"""The asyncio client: the same surface, and no call blocks the loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time

import grpc
import pytest

import bots
from bots import aio
from tests.client.recorder import METHODS, Recorder, fails, never


def methods(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["Client", "Run", "Batch"])
def test_the_surface_is_the_same(name: str) -> None:
    """Every method of the blocking class is in the asyncio one, with the same parameters."""
    blocking, asyncio_ = getattr(bots, name), getattr(aio, name)
    assert methods(asyncio_) == methods(blocking)
    for method in methods(blocking):
        parameters = inspect.signature(getattr(blocking, method)).parameters
        assert list(inspect.signature(getattr(asyncio_, method)).parameters) == list(parameters), method


def test_a_loop_by_asyncio(recorder: Recorder, address: str) -> None:
    """Select, report, rewards, lists, streams, resume: the same requests and answers."""

    async def train() -> None:
        async with aio.Client(address, job="tester") as client:
            dataset = await client.create_dataset("d", ids=[f"t{task}" for task in range(100)])
            run = await client.create_run("d", "r", target=0.4)
            assert (dataset.size, run.created) == (100, True)
            batch = await run.select(4, lease_seconds=60)
            assert await batch[::2].report(1, 2) == 1
            assert (await batch.report_rewards([[1], [0], [None], [1]])).left_out == 1
            assert await run.report(["t1"], 1, 2) == 3
            alpha, _ = await run.posteriors()
            assert len(alpha) == 100
            assert [event async for event in run.events()] == []
            async for summary in run.watch():
                assert summary.run.name == "r"
                break
            state = await run.state_dict()
            assert (await run.load_state_dict(state)).action == "current"
            with pytest.raises(bots.InvalidArgumentError):
                await run.select(0)

    asyncio.run(train())
    assert len(recorder.of("ReportOutcomes")) == 3


def test_no_call_blocks_the_loop_while_the_service_is_away(recorder: Recorder, address: str) -> None:
    """The loop goes on during the deadline of the first call, and afterwards calls fall back at once."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - began)

    async def train() -> bots.Stats:
        client = aio.Client(address, timeout=1)
        await client.create_dataset("d", size=100)
        run = await client.create_run("d", "r")
        answers, recorder.answers = recorder.answers, dict.fromkeys(METHODS, never)
        heart = asyncio.create_task(beat())
        for _ in range(20):
            batch = await run.select(4)
            assert batch.fallback
            assert await batch.report(1, 2) is None
        heart.cancel()
        recorder.answers = answers
        await run.flush(30)
        stats = run.stats
        await client.close()
        return stats

    stats = asyncio.run(train())
    assert (stats.fallback_selections, stats.reports_pending) == (20, 0)
    assert longest < 0.5
    assert len(recorder.of("ReportOutcomes")) >= 20


def test_reports_that_wait_are_delivered_in_the_background(recorder: Recorder, address: str) -> None:
    """A task of the loop delivers what the store refused."""

    async def train() -> None:
        async with aio.Client(address) as client:
            run = await client.create_run("d", "r")
            working = recorder.answers["ReportOutcomes"]
            recorder.answers["ReportOutcomes"] = fails(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", times=2, then=working
            )
            assert await run.report(["t1"], 1, 2) is None
            while run.stats.reports_pending:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(train(), 30))


def test_program_ends_while_the_service_is_away_and_the_client_is_open() -> None:
    """The background task ends when the loop cancels it, also if a report came in the same moment."""
    program = """
import asyncio
from bots import aio

async def train():
    client = aio.Client("127.0.0.1:1", timeout=0.1)
    await client.create_dataset("d", size=100)
    run = await client.create_run("d", "r")
    batch = await run.select(4)
    await asyncio.sleep(0.2)
    await batch.report(1, 2)

asyncio.run(train())
"""
    command = [sys.executable, "-c", program]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        assert [one.wait(60) for one in started] == [0] * 4
    finally:
        for one in started:
            one.kill()
            one.wait()


def test_a_fork_beside_an_asyncio_client_fails_at_once(recorder: Recorder, address: str) -> None:
    """The child is told what to do, instead of hanging."""

    async def forks() -> int:
        async with aio.Client(address) as client:
            await client.get_dataset("d")
            child = os.fork()
            if not child:
                try:
                    bots.Client(address).get_dataset("d")
                except bots.ForkedError as error:
                    os._exit(7 if "spawn" in str(error) else 8)
                os._exit(9)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert asyncio.run(forks()) == 7
