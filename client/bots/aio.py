"""The service as an asyncio program calls it: the methods of `bots.Client`, `bots.Run` and `bots.Batch`, awaited.

    async with bots.aio.Client("localhost:50051") as client:
        run = await client.create_run("guru-math", "qwen-7b")
        batch = await run.select(32)
        await batch.report_rewards(rewards)

No call blocks the event loop, also while the service is away. A client belongs to the event loop of its first call. It
does not survive a fork: a child's calls raise ForkedError.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc

from bots import client_operations, history_operations, leasing, reporting, reporting_rewards, run_operations, selecting
from bots.batch import BatchData
from bots.calls import METHODS, Call, Steps, T, async_iterated, awaited, drive_async
from bots.client import session_settings
from bots.client_operations import ClientCore
from bots.delivery import flush, work
from bots.errors import BotsError, DeadlineExceededError, from_rpc
from bots.fork import GUARD
from bots.handle import RunHandle
from bots.resume import Resumed
from bots.session_core import SessionCore
from bots.summary import Summary
from bots.target import TLS, Target
from bots.token import Token
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub

logger = logging.getLogger("bots")


class Channel:
    """A gRPC channel of the running event loop that opens at the first call."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._closed = False

    def _method(self, name: str) -> Any:
        GUARD.check()
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._stub is None:
            address, options, tls = self.target.address(), self.target.options(), self.target.tls
            if tls is None:
                self._channel = grpc.aio.insecure_channel(address, options)
            else:
                self._channel = grpc.aio.secure_channel(address, tls.credentials(), options)
            GUARD.hold()
            self._stub = TaskSelectionServiceStub(self._channel)
        return getattr(self._stub, name)

    async def call(self, call: Call) -> Any:
        """Returns the answer, or None after the last answer of a stream. Raises the errors of `bots.errors`."""
        if METHODS[call.method].server_streaming:
            async for answer in self.stream(call):
                if call.each is not None:
                    call.each(answer)
            return None
        request = call.request if call.requests is None else call.requests()
        try:
            return await self._method(call.method)(
                request, timeout=call.timeout, wait_for_ready=call.wait_for_ready, metadata=self.target.metadata()
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self.target.tried(), call.timeout, call.request_id) from error

    async def stream(self, call: Call) -> AsyncIterator[Any]:
        """Yields the answers of a stream; closing the generator ends the call. Raises the errors of `bots.errors`."""
        answers = self._method(call.method)(
            call.request, timeout=call.timeout, wait_for_ready=call.wait_for_ready, metadata=self.target.metadata()
        )
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self.target.tried(), call.timeout) from error
        finally:
            answers.cancel()

    async def close(self) -> None:
        """Ends the calls under way and refuses new ones."""
        self._closed = True
        if self._channel is not None:
            GUARD.let_go()
            channel, self._channel, self._stub = self._channel, None, None
            await channel.close()


class Session(SessionCore):
    """A session whose calls are awaited; background work is a task while there is some."""

    def __init__(self, target: Target, **settings: Any) -> None:
        self.target = target
        super().__init__(**settings)

    def reset(self) -> None:
        """Starts anew, with an empty outbox."""
        super().reset()
        self.channel = Channel(self.target)
        self._worker: asyncio.Task[None] | None = None
        self._woken: asyncio.Event | None = None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"target": self.target}

    async def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation, whose calls are awaited."""
        self.begin()
        return await drive_async(steps, self.channel.call, asyncio.sleep)

    def wake(self) -> None:
        """Starts the background task, or makes it look again."""
        if self.closed:
            return
        if self._woken is None:
            self._woken = asyncio.Event()
        self._woken.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(self._woken), name="bots")

    async def _work(self, woken: asyncio.Event) -> None:
        while not self.closed:
            woken.clear()
            try:
                wait = await self.drive(work(self))
            except BotsError as error:
                logger.warning("background delivery: %s", error)
                wait = 1.0
            if wait is None:
                if not woken.is_set():
                    return
                continue
            # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes together with the event.
            timer = asyncio.get_running_loop().call_later(wait, woken.set)
            try:
                await woken.wait()
            finally:
                timer.cancel()

    async def close(self) -> None:
        """Delivers what waits within the timeout, and ends the background work."""
        if self.closed:
            return
        try:
            if self.availability.reachable and self.waiting:
                await self.drive(flush(self))
        except BotsError as error:
            logger.warning("%d reports wait still: %s", self.outbox.pending(), error)
        self.closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self.channel.close()
        self.outbox.close()


class Batch(BatchData):
    __doc__ = BatchData.__doc__

    async def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation on the run."""
        session = self.run.session
        assert isinstance(session, Session)
        return await session.drive(steps)

    report = awaited(reporting.report_batch)
    report_rewards = awaited(reporting_rewards.report_rewards)
    release = awaited(leasing.release_batch)


class Run(RunHandle):
    """`bots.Run` for asyncio."""

    session: Session

    async def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation."""
        return await self.session.drive(steps)

    select = awaited(selecting.select, Batch)
    report = awaited(reporting.report)
    release = awaited(leasing.release)
    flush = awaited(client_operations.flush_run)

    info = awaited(run_operations.info)
    posteriors = awaited(run_operations.posteriors)
    task_ids = awaited(run_operations.task_ids)
    table = awaited(run_operations.table)
    summary = awaited(run_operations.summary)

    update = awaited(run_operations.update)
    retire = awaited(run_operations.retire)
    unretire = awaited(run_operations.unretire)
    checkpoint = awaited(history_operations.checkpoint)
    checkpoints = async_iterated(history_operations.checkpoints)
    delete_checkpoint = awaited(history_operations.delete_checkpoint)
    restore = awaited(history_operations.restore)
    undo = awaited(history_operations.undo)
    events = async_iterated(history_operations.events)
    leases = async_iterated(leasing.leases)
    end_leases = awaited(leasing.end_leases)
    state_dict = awaited(history_operations.state_dict)

    async def load_state_dict(self, state: Mapping[str, Any], *, fork_as: str | None = None) -> Resumed[Run]:
        """Goes back to a state if no other job is in the way, and says what was done; see `bots.resume`.

        fork_as  if another job is in the way: start a run of this name at the state, which is `Resumed.run`.
        """
        return await self.drive(history_operations.load_state_dict(self, state, fork_as=fork_as))

    async def watch(self, interval_seconds: float = 1.0) -> AsyncIterator[Summary]:
        """Yields the summary now and after each change of the version, at most once in `interval_seconds`, for ever."""
        shown: tuple[str, int] | None = None
        while True:
            request, timeout = run_operations.watch_request(self, interval_seconds)
            began, answered = time.monotonic(), False
            try:
                async for answer in self.session.channel.stream(Call("WatchRun", request, timeout)):
                    answered = True
                    summary = run_operations.read_summary(self, answer.summary)
                    if shown != (summary.run.uid, summary.run.version):
                        shown = summary.run.uid, summary.run.version
                        yield summary
            except DeadlineExceededError:
                if not answered:
                    raise
            await asyncio.sleep(max(0.0, interval_seconds - (time.monotonic() - began)))


class Client(ClientCore):
    """`bots.Client` for asyncio, with the same arguments; an asynchronous context manager."""

    session: Session

    def __init__(
        self,
        target: str | Sequence[str] = "localhost:50051",
        *,
        timeout: float = 5.0,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        tls: TLS | None = None,
        job: str = "",
        incarnation: str | None = None,
        outbox: str | os.PathLike[str] | None = None,
        strict: bool = False,
        proxy: bool = False,
    ) -> None:
        self.session = Session(
            Target.of(target, Token(token, token_file), tls, proxy),
            **session_settings(timeout=timeout, job=job, incarnation=incarnation, outbox=outbox, strict=strict),
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Delivers what waits, within the timeout, and ends the connection; a later call is a RuntimeError."""
        await self.session.close()

    async def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation."""
        return await self.session.drive(steps)

    def handle(self, dataset: str, name: str, **known: Any) -> Run:
        """Returns the run object of a name."""
        return Run(self.session, Batch, dataset, name, **known)

    def run(self, dataset: str, name: str) -> Run:
        """Returns a run that exists. It makes no call: the first call of the run finds out."""
        return self.handle(dataset, name)

    create_dataset = awaited(client_operations.create_dataset)
    get_dataset = awaited(client_operations.get_dataset)
    list_datasets = async_iterated(client_operations.list_datasets)
    delete_dataset = awaited(client_operations.delete_dataset)
    create_run = awaited(client_operations.create_run, Run)
    list_runs = async_iterated(client_operations.list_runs)
    delete_run = awaited(client_operations.delete_run)
    get_server = awaited(client_operations.get_server)
    flush = awaited(client_operations.flush)
