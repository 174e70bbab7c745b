"""A TCP proxy on the loopback that fails on request: it cuts, delays, holds, loses answers, and changes its upstream.

    with proxy(upstream=6379) as link:
        client = redis.Redis(port=link.port)
        link.lose_answers(0.2)            # what is asked is done, and nobody hears of it
        link.upstream = other.port        # of new connections
        link.cut()

It stands between a job and a server, a server and Redis, or a replica and its primary.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HOST = "127.0.0.1"
_CHUNK = 1 << 16


class Proxy:
    """Use `proxy()`. Its switches may be set from any thread.

    upstream       port that new connections go to
    refusing       new connections are reset at once
    holding        nothing passes, in either direction; connections stay
    losing         answers are dropped; requests pass
    delay_seconds  each piece of an answer waits so long
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.refusing = False
        self.holding = False
        self.losing = False
        self.delay_seconds = 0.0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def cut(self) -> None:
        """Resets every connection; returns when that is done."""

        async def reset() -> None:
            for writer in tuple(self._writers):
                _reset(writer)

        asyncio.run_coroutine_threadsafe(reset(), self._loop).result(10)

    def lose_answers(self, seconds: float) -> None:
        """For so long requests pass and answers are dropped; then every connection is reset."""
        self.losing = True
        time.sleep(seconds)
        self.cut()
        self.losing = False

    def start(self) -> None:
        """Returns when `port` takes connections."""
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """Ends every connection and the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for writer in tuple(self._writers):
            _reset(writer)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        # The loop closes the sockets that were reset in its next round.
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        writers = [writer]
        self._writers.add(writer)
        try:
            if self.refusing:
                return
            answers, requests = await asyncio.open_connection(HOST, self.upstream)
            writers.append(requests)
            self._writers.add(requests)
            pumps = [
                asyncio.ensure_future(self._pump(reader, requests, answer=False)),
                asyncio.ensure_future(self._pump(answers, writer, answer=True)),
            ]
            # If one side has ended, the other gets a reset: bytes under way are lost, as in a crash.
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens upstream, or the proxy stops: the caller's connection is reset
        finally:
            for one in writers:
                _reset(one)
                self._writers.discard(one)
            self._serving.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                while self.holding:
                    await asyncio.sleep(0.01)
                if answer and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if answer and self.losing:
                    continue
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST: the peer sees an error, not an end."""
    endpoint = writer.get_extra_info("socket")
    with suppress(OSError):
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def proxy(upstream: int) -> Iterator[Proxy]:
    """Yields a running proxy to a port of the loopback."""
    one = Proxy(upstream)
    one.start()
    try:
        yield one
    finally:
        one.stop()
