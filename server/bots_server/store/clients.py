"""How commands reach Redis: one server (or the primary that Sentinel names), or a cluster.

A client sends commands together over one connection, so that a WAIT waits for what was written before it. An error
answer of Redis is an answer too (a ResponseError). redis.ConnectionError and redis.TimeoutError mean that Redis could
not be reached: what was sent then may have been done, or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import redis
from redis.exceptions import MovedError, ResponseError

from bots_server.store.deadline import remaining

Command = tuple[Any, ...]

_ATTEMPTS = 3  # at a slot that moves


class RedisClient(Protocol):
    """Safe to use from many threads."""

    def ask(self, key: str, *commands: Command) -> list[Any]:
        """Returns the answers of commands about keys in the slot of `key`, sent together."""

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        """Returns the answers of commands that read, each about one key of any slot; sent together if possible."""

    def primaries(self) -> list[redis.Redis]:
        """Returns redis-py's client of each server that takes writes, for as long as one call needs it."""

    def disconnect(self) -> None:
        """Ends the connections, because they may lead to a server that is not the primary any more."""

    def close(self) -> None:
        """Ends the connections for good: what is asked afterwards raises redis.ConnectionError."""


class ServerClient:
    """One server, by connections of redis-py that are kept.

    They are not those of redis-py's pool, which looks whether a connection is alive before each command. That takes a
    system call, at which the interpreter goes to another thread.

    If a connection breaks, or an answer does not come in time, all connections are given up: behind Sentinel or a
    balancer the next one may lead to another primary, and a server must not talk to two. Idle connections end
    immediately, and those in use when their call ends. A connection that cannot be made changes nothing.

    A command that met a broken connection is sent again immediately, once: the connection may have broken while idle,
    and every script is safe to repeat. `on_retry` is called then. After a timeout nothing is sent again.
    """

    def __init__(self, make_client: Callable[[], redis.Redis], on_retry: Callable[[], None]) -> None:
        """`make_client` returns a client that does not retry."""
        self._make_client, self._on_retry = make_client, on_retry
        self._client = make_client()  # whose pool stays empty
        self._idle: deque[Any] = deque()  # another one after connections were given up
        self._closed = False

    def ask(self, key: str, *commands: Command) -> list[Any]:
        return self.ask_each(commands)

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return self._exchange(commands)
        except redis.ConnectionError:
            self._on_retry()
            remaining()
        return self._exchange(commands)

    def primaries(self) -> list[redis.Redis]:
        self._check_open()
        return [self._make_client()]  # whose connections end with it

    def disconnect(self) -> None:
        idle, self._idle = self._idle, deque()
        with suppress(IndexError):
            while True:
                idle.pop().disconnect()

    def close(self) -> None:
        self._closed = True
        self.disconnect()

    def _check_open(self) -> None:
        if self._closed:
            raise redis.ConnectionError("the client is closed")

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        idle, pool = self._idle, self._client.connection_pool
        self._check_open()  # if the client is closed after this, `idle` is not the current one when the call ends
        try:
            connection = idle.pop()
        except IndexError:
            connection = pool.connection_class(**pool.connection_kwargs)
        if not pool.owns_connection(connection):  # Sentinel has named another primary
            connection.disconnect()
        connection.connect()  # does nothing if it is connected
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [self._answer(connection, command) for command in commands]
        except BaseException:  # an answer of these commands may still come
            connection.disconnect()
            if idle is self._idle:
                self.disconnect()
            raise
        if idle is self._idle:
            idle.append(connection)
        else:
            connection.disconnect()
        return answers

    def _answer(self, connection: Any, command: Command) -> Any:
        try:
            return self._client.parse_response(connection, command[0])  # type: ignore[no-untyped-call]
        except ResponseError as error:
            return error


class ClusterClient:
    """A cluster: redis-py follows the slots."""

    def __init__(self, client: redis.RedisCluster) -> None:
        self._client = client
        self._lost = False  # a primary was not reached: another one may have its slots

    def ask(self, key: str, *commands: Command) -> list[Any]:
        if len(commands) == 1:
            try:
                return [self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except ResponseError as error:
                return [error]
        for _ in range(_ATTEMPTS):
            remaining()
            if self._lost:
                self._follow(key)
            try:
                answers = _pipelined(self._primary(key), commands)
            except (redis.ConnectionError, redis.TimeoutError):
                self._lost = True
                raise
            if not isinstance(answers[0], MovedError):
                break
            self._follow(key)
        return answers

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        return _pipelined(self._client, commands)

    def primaries(self) -> list[redis.Redis]:
        nodes = self._client.get_primaries()  # type: ignore[no-untyped-call]
        return [self._client.get_redis_connection(node) for node in nodes]

    def disconnect(self) -> None:
        """Does nothing: redis-py learns of the primaries from the cluster."""

    def close(self) -> None:
        self._client.close()

    def _follow(self, key: str) -> None:
        """Finds the primary of a slot again: redis-py does for a single command, not for a pipeline to one node."""
        self._client.execute_command("EXISTS", key)  # type: ignore[no-untyped-call]
        self._lost = False

    def _primary(self, key: str) -> redis.Redis:
        node = self._client.get_node_from_key(key)  # type: ignore[no-untyped-call]
        primary: redis.Redis = self._client.get_redis_connection(node)
        return primary


def _pipelined(client: redis.Redis | redis.RedisCluster, commands: Sequence[Command]) -> list[Any]:
    """Returns the answers of commands sent together."""
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
    return answers
