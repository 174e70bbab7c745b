"""How commands reach Redis: one server (or the primary that Sentinel names), or a cluster.

A link sends commands in one go over one connection, so that a WAIT waits for what was written before it, and returns
their answers; what Redis refuses is an answer too (a ResponseError). It raises redis.ConnectionError and
redis.TimeoutError where Redis cannot be reached: what was sent then may have been done, or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import redis
from redis.exceptions import MovedError, ResponseError

from bots_server.store.connection import Client

Command = tuple[Any, ...]

_ATTEMPTS = 3  # at a slot that moved


class Link(Protocol):
    """Safe to use from many threads. `key`: any key of the commands, which lie in one slot."""

    def ask(self, key: str, *commands: Command) -> list[Any]:
        """Returns the answer to each command."""

    def leave(self) -> None:
        """Ends the connections to a primary that became a replica: the URL leads to the next one by now, or will."""


def link_of(client: Client) -> Link:
    """Returns the link that a client of redis-py gives."""
    return ClusterLink(client) if isinstance(client, redis.RedisCluster) else ServerLink(client)


class ServerLink:
    """One server, over connections of redis-py that are made as they are needed and kept.

    redis-py's own way of a command, with its pool and its instruments, takes 0.15 ms more on a server that just woke:
    as long as Redis takes to answer.

    Where a connection breaks, or does not answer in time, the others are given up as well: behind Sentinel the next one
    may lead to another primary, and a server must not talk to both.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._idle: deque[Any] = deque()  # redis-py's connections, whose methods have no types

    def ask(self, key: str, *commands: Command) -> list[Any]:
        idle = self._idle
        try:
            connection = idle.pop()
        except IndexError:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)

        def give_up(_: object) -> None:
            nonlocal idle
            connection.disconnect()
            self.leave()
            idle = self._idle

        try:
            connection.connect()  # apart, because redis-py tries a connection twice, and that is enough
            # It may have broken while it was idle: then once more, and at once, as `connection.connect` sets it.
            answers: list[Any] = connection.retry.call_with_retry(lambda: _exchange(connection, commands), give_up)
        except BaseException as error:  # an answer may be on its way still, and is of no other command
            give_up(error)
            raise
        if idle is self._idle:
            idle.append(connection)
        else:  # given up meanwhile
            connection.disconnect()
        return answers

    def leave(self) -> None:
        idle, self._idle = self._idle, deque()
        with suppress(IndexError):
            while True:
                idle.pop().disconnect()


def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    connection.connect()  # where it is not; Sentinel is asked for the primary then
    connection.send_packed_command(connection.pack_commands(commands))
    return [_answer(connection) for _ in commands]


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


class ClusterLink:
    """A cluster: redis-py follows the slots."""

    def __init__(self, client: redis.RedisCluster) -> None:
        self._client = client

    def ask(self, key: str, *commands: Command) -> list[Any]:
        if len(commands) == 1:
            try:
                return [self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except ResponseError as error:
                return [error]
        for _ in range(_ATTEMPTS):
            try:
                with self._primary(key).pipeline(transaction=False) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                    answers: list[Any] = pipeline.execute(raise_on_error=False)
            except (redis.ConnectionError, redis.TimeoutError):
                self._client.nodes_manager.initialize()  # for the next call
                raise
            if not isinstance(answers[0], MovedError):
                break
            self._client.nodes_manager.initialize()
        return answers

    def leave(self) -> None:
        """Does nothing: a cluster's clients learn of its primaries by themselves."""

    def _primary(self, key: str) -> redis.Redis:
        node = self._client.get_node_from_key(key)  # type: ignore[no-untyped-call]
        primary: redis.Redis = self._client.get_redis_connection(node)
        return primary
