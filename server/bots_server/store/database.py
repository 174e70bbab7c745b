"""How the store talks to Redis: by the scripts of `lua/`, one atomic transition each, and by single commands."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from bots_server.errors import NotDurable
from bots_server.store import keys
from bots_server.store.connection import Client
from bots_server.store.durability import Durability, Level
from bots_server.store.failures import REDIS_ERRORS, ReadOnly, failure_of
from bots_server.store.links import Command, link_of

# Called after each script or command: its name, the seconds it took, whether it failed.
Observe = Callable[[str, float, bool], None]


class Database:
    """One Redis, for the parts of the store. It forgets scripts when it restarts: they are then sent whole."""

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
        return self._ask(str(command[0]).lower(), str(command[1]), (command,))[0]

    def run(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> Any:
        """Returns the answer of script `name`."""
        return self._ask(name, keys[0], (self._call(name, keys, args),), self._scripts[name])[0]

    def store(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> Any:
        """Returns the answer of script `name`, once what it wrote is as durable as configured.

        Raises NotDurable where that takes too long. What was written stays; the same call again is safe, as each script
        says, and where it finds its work done, `settle` waits for that work.
        """
        wait = self.durability.command()
        if wait is None:
            return self.run(name, keys, args)
        answer, reached = self._ask(name, keys[0], (self._call(name, keys, args), wait), self._scripts[name])
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
        _, reached = self._ask("settle", key, (("SET", key, "", "PX", 1000), wait))
        self._judge(reached)

    def close(self) -> None:
        """Ends the connections."""
        self._link.leave()
        self.client.close()

    def _call(self, name: str, keys: Sequence[str], args: Iterable[bytes | str | int | float]) -> Command:
        return ("EVALSHA", self._digests[name], len(keys), *keys, *args)

    def _ask(self, name: str, key: str, commands: Sequence[Command], script: bytes = b"") -> list[Any]:
        """Returns the answers of commands, the first of which may call a script, or raises one of our errors."""
        start = time.perf_counter()
        try:
            answers = self._link.ask(key, *commands)
            if isinstance(answers[0], NoScriptError):
                answers = self._link.ask(key, ("EVAL", script, *commands[0][2:]), *commands[1:])
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        except REDIS_ERRORS as error:
            self._observe(name, time.perf_counter() - start, True)
            failure = failure_of(error)
            if isinstance(failure, ReadOnly):
                self._link.leave()
            raise failure from error
        self._observe(name, time.perf_counter() - start, False)
        return answers

    def _judge(self, reached: Any) -> None:
        """Raises NotDurable where the answer of WAIT or WAITAOF is too low."""
        within = f"within {self.durability.timeout_seconds} s"
        if self.durability.level is Level.FSYNC and reached[0] < 1:
            raise NotDurable(f"not on disk {within}")
        if self.durability.level is Level.REPLICA and reached < self.durability.replicas:
            raise NotDurable(f"on {reached} of {self.durability.replicas} replicas {within}")
