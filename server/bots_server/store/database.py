"""How the store talks to Redis: by the scripts of `lua/`, one atomic transition each, and by single commands."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from bots_server.errors import Failure, NotDurable
from bots_server.store import keys
from bots_server.store.connection import Client
from bots_server.store.durability import Durability, Level
from bots_server.store.failures import ReadOnly, failures
from bots_server.store.links import Command, link_of

# Called after each script or command: its name, the seconds it took, whether it failed.
Observe = Callable[[str, float, bool], None]


class Database:
    """One Redis, for the parts of the store. It forgets scripts when it restarts: they are then loaded again."""

    def __init__(self, client: Client, durability: Durability, observe: Observe) -> None:
        self.client = client
        self.durability = durability
        self._link = link_of(client)
        self._observe = observe
        files = resources.files(__package__).joinpath("lua").iterdir()
        self._scripts = {file.name.removesuffix(".lua"): file.read_bytes() for file in files}
        self._digests = {name: hashlib.sha1(text).hexdigest() for name, text in self._scripts.items()}  # noqa: S324

    def command(self, *command: bytes | str | int) -> Any:
        """Returns the answer of one command of Redis; its first argument is a key."""
        with self._watched(str(command[0]).lower()):
            return _checked(self._link.ask(str(command[1]), command))[0]

    def run(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> Any:
        """Returns the answer of script `name`."""
        with self._watched(name):
            return self._answers(name, keys, args)[0]

    def store(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> Any:
        """Returns the answer of script `name`, once what it wrote is as durable as configured.

        Raises NotDurable where that takes too long. What was written stays; the same call again is safe, as each script
        says, and where it finds its work done, `settle` waits for that work.
        """
        wait = self.durability.command()
        if wait is None:
            return self.run(name, keys, args)
        with self._watched(name):
            answer, reached = self._answers(name, keys, args, wait)
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
            _, reached = _checked(self._link.ask(key, ("SET", key, "", "PX", 1000), wait))
        self._judge(reached)

    def close(self) -> None:
        """Ends the connections."""
        self._link.leave()
        self.client.close()

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
                self._link.leave()
            raise
        self._observe(name, time.perf_counter() - start, False)

    def _answers(
        self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float], *after: Command
    ) -> list[Any]:
        """Returns the answers of a script and of the commands after it."""
        commands = ("EVALSHA", self._digests[name], len(keys), *keys, *args), *after
        answers = self._link.ask(keys[0], *commands)
        if isinstance(answers[0], NoScriptError):
            commands = ("EVAL", self._scripts[name], *commands[0][2:]), *after
            answers = self._link.ask(keys[0], *commands)
        return _checked(answers)

    def _judge(self, reached: Any) -> None:
        """Raises NotDurable where the answer of WAIT or WAITAOF is too low."""
        within = f"within {self.durability.timeout_seconds} s"
        if self.durability.level is Level.FSYNC and reached[0] < 1:
            raise NotDurable(f"not on disk {within}")
        if self.durability.level is Level.REPLICA and reached < self.durability.replicas:
            raise NotDurable(f"on {reached} of {self.durability.replicas} replicas {within}")


def _checked(answers: list[Any]) -> list[Any]:
    """Returns answers none of which is an error; raises the first that is."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
