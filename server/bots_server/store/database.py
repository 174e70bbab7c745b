"""How the store talks to Redis: by the scripts of `lua/`, one atomic transition each, and by single commands."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import redis
from redis.exceptions import MovedError, NoScriptError

from bots_server.errors import Failure, NotDurable
from bots_server.store import keys
from bots_server.store.connection import Client
from bots_server.store.durability import Durability, Level
from bots_server.store.failures import ReadOnly, failures

# Called after each script or command: its name, the seconds it took, whether it failed.
Observe = Callable[[str, float, bool], None]

_ATTEMPTS = 3  # at a slot that moved


class Database:
    """One Redis, for the parts of the store. It forgets scripts when it restarts: they are then loaded again."""

    def __init__(self, client: Client, durability: Durability, observe: Observe) -> None:
        self.client = client
        self.durability = durability
        self._observe = observe
        files = resources.files(__package__).joinpath("lua").iterdir()
        self._scripts = {file.name.removesuffix(".lua"): file.read_bytes() for file in files}
        self._digests = {name: hashlib.sha1(text).hexdigest() for name, text in self._scripts.items()}  # noqa: S324

    def command(self, *command: bytes | str | int) -> Any:
        """Returns the answer of one command of Redis, as redis-py gives it."""
        with self._watched(str(command[0]).lower()):
            return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def run(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> Any:
        """Returns the answer of script `name`."""
        command = self._call(name, keys, args)
        with self._watched(name):
            try:
                return self.client.execute_command(*command)  # type: ignore[no-untyped-call]
            except NoScriptError:
                self._load(name, keys[0])
                return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def store(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> Any:
        """Returns the answer of script `name`, once what it wrote is as durable as configured.

        Raises NotDurable where that takes too long. What was written stays; the same call again is safe, as each script
        says, and where it finds its work done, `settle` waits for that work.
        """
        wait = self.durability.command()
        if wait is None:
            return self.run(name, keys, args)
        command = self._call(name, keys, args)
        with self._watched(name):
            answer, reached = self._together(keys[0], command, wait)
            if isinstance(answer, NoScriptError):
                self._load(name, keys[0])
                answer, reached = self._together(keys[0], command, wait)
            _raise_if_error(answer)
            _raise_if_error(reached)
        self._judge(reached)
        return answer

    def settle(self, dataset: str) -> None:
        """Waits until everything that was written for a dataset before now is as durable as configured.

        For a repeat, which writes nothing itself: WAIT and WAITAOF wait for what their own connection has written, so
        that one key is written first.
        """
        wait = self.durability.command()
        if wait is None:
            return
        key = keys.touch(dataset)
        with self._watched("settle"):
            answer, reached = self._together(key, ("SET", key, "", "PX", 1000), wait)
            _raise_if_error(answer)
            _raise_if_error(reached)
        self._judge(reached)

    @contextmanager
    def _watched(self, name: str) -> Iterator[None]:
        """Observes what runs under it, and raises what goes wrong as one of our errors."""
        start = time.perf_counter()
        try:
            with failures():
                yield
        except Failure as failure:
            self._observe(name, time.perf_counter() - start, True)
            if isinstance(failure, ReadOnly):
                self._leave()
            raise
        self._observe(name, time.perf_counter() - start, False)

    def _call(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> tuple[Any, ...]:
        return ("EVALSHA", self._digests[name], len(keys), *keys, *args)

    def _load(self, name: str, key: str) -> None:
        """Gives a script to the server that has the key: it is new, or was restarted or promoted."""
        self._primary(key).script_load(self._scripts[name])

    def _together(self, key: str, command: tuple[Any, ...], wait: tuple[Any, ...]) -> list[Any]:
        """Returns the answers of a command and of the wait for it, on one connection, in one round trip."""
        for _ in range(_ATTEMPTS):
            try:
                with self._primary(key).pipeline(transaction=False) as pipeline:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                    pipeline.execute_command(*wait)  # type: ignore[no-untyped-call]
                    answers: list[Any] = pipeline.execute(raise_on_error=False)
            except (redis.ConnectionError, redis.TimeoutError):
                self._look_again()  # for the next call
                raise
            if not isinstance(answers[0], MovedError):
                break
            self._look_again()
        return answers

    def _primary(self, key: str) -> redis.Redis:
        """Returns the client of the one server that has the key."""
        if isinstance(self.client, redis.Redis):
            return self.client
        node = self.client.get_node_from_key(key)  # type: ignore[no-untyped-call]
        primary: redis.Redis = self.client.get_redis_connection(node)
        return primary

    def _leave(self) -> None:
        """Ends the connections to a primary that became a replica: the URL leads to the next one by now, or will."""
        if isinstance(self.client, redis.Redis):
            self.client.connection_pool.disconnect(inuse_connections=False)

    def _look_again(self) -> None:
        """Asks a cluster which of its servers has which slot."""
        if isinstance(self.client, redis.RedisCluster):
            self.client.nodes_manager.initialize()

    def _judge(self, reached: Any) -> None:
        """Raises NotDurable where the answer of WAIT or WAITAOF is too low."""
        within = f"within {self.durability.timeout_seconds} s"
        if self.durability.level is Level.FSYNC and reached[0] < 1:
            raise NotDurable(f"not on disk {within}")
        if self.durability.level is Level.REPLICA and reached < self.durability.replicas:
            raise NotDurable(f"on {reached} of {self.durability.replicas} replicas {within}")


def _raise_if_error(answer: Any) -> None:
    if isinstance(answer, Exception):
        raise answer
