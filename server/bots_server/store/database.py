"""How the store talks to Redis: by the scripts of `lua/`, one atomic transition each, and by single commands."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from bots_server.errors import Failure, KeyOccupied, NotDurable
from bots_server.store import keys
from bots_server.store.clients import Command, RedisClient
from bots_server.store.deadline import remaining
from bots_server.store.durability import Durability, Level
from bots_server.store.failures import REDIS_ERRORS, ReadOnly, failure_of, failures
from bots_server.store.seal import damaged

# Called after each script or command with its name, the seconds it took, and whether it failed.
Observe = Callable[[str, float, bool], None]

Argument = bytes | str | int | float

# Status of a script that found its work done by an earlier call.
_DONE_BEFORE = b"repeated", b"exists"

# What `damaged` of lua/include/head.lua says, and what Lua says of a value that no script expects.
_DAMAGED = re.compile(r"DAMAGED (\S+) (.*?) ENDS")
_UNEXPECTED = re.compile(r"user_script:\d+: (attempt to|bad argument)")

_INCLUDE = re.compile(rb"^--- @include (\w+)\n", re.MULTILINE)  # as in BullMQ's scripts


class Database:
    """One Redis, for the parts of the store. If it has forgotten a script, for instance by a restart, it gets it again.

    Each method raises StoreUnavailable, StoreFull, Damaged or KeyOccupied if a key does not have what is stored there,
    or DeadlineExceeded if the call has no time left before it.
    """

    def __init__(self, client: RedisClient, durability: Durability, observe: Observe, prefix: str = "") -> None:
        self.client = client
        self.keys = keys.Keys(prefix)
        self.durability = durability
        self._observe = observe
        self._scripts = _scripts()
        self._digests = {name: hashlib.sha1(text).hexdigest() for name, text in self._scripts.items()}  # noqa: S324

    def command(self, *command: Argument) -> Any:
        """Returns the answer of one command of Redis; its first argument is a key."""
        return self._ask(str(command[0]).lower(), str(command[1]), (command,))[0]

    def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Returns the answers of commands that read, each about one key; sent together if possible."""
        if not commands:
            return []
        names = [str(command[1]) for command in commands]
        return self._observed(str(commands[0][0]).lower(), names, lambda: self.client.ask_each(commands))

    def run(self, name: str, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Returns the answer of script `name`."""
        return self._ask(name, keys[0], (self._call(name, keys, args),))[0]

    def run_durably(self, name: str, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Returns the answer of script `name` once its writes are as durable as configured.

        Raises NotDurable if that takes too long. The writes stay, and the same call may be repeated: the repeat finds
        them done, and waits for them.
        """
        wait = self.durability.command()
        if wait is None:
            return self.run(name, keys, args)
        call = self._call(name, keys, args)
        answer, reached = self._ask(name, keys[0], (call, wait))
        self._check_durability(wait, reached)
        if isinstance(answer, list) and answer[0] in _DONE_BEFORE:
            return self._found_durable(name, keys[0], call)
        return answer

    def command_durably(self, *command: Argument) -> Any:
        """Returns what a command reads once that is as durable as configured. Raises NotDurable."""
        return self._found_durable(str(command[0]).lower(), str(command[1]), command)

    def _found_durable(self, name: str, key: str, command: Command) -> Any:
        """Returns the answer of a command that finds what was written before, once that is durable.

        WAIT and WAITAOF wait for the writes of their own connection, so a key is written between. All goes to one
        server at once: after a failover another server may lack what the first one found.
        """
        wait = self.durability.command()
        if wait is None:
            return self._ask(name, key, (command,))[0]
        touch = ("SET", keys.touch(key), "", "PX", 1000)
        answer, _, reached = self._ask(name, key, (command, touch, wait))
        self._check_durability(wait, reached)
        return answer

    def scan(self, pattern: str, count: int) -> list[bytes]:
        """Returns all keys that match a pattern, of every server; looks at `count` keys at a time."""
        with failures():
            found = []
            for server in self.client.primaries():
                for key in server.scan_iter(match=pattern, count=count):
                    remaining()
                    found.append(key)
            return found

    def time_ms(self, dataset: str) -> int:
        """Returns Redis' clock, in milliseconds since 1970."""
        return int(self.run("time", [self.keys.dataset(dataset)], []))

    def _call(self, name: str, keys: Sequence[str], args: Iterable[Argument]) -> Command:
        return ("EVALSHA", self._digests[name], len(keys), *keys, *args)

    def _ask(self, name: str, key: str, commands: Sequence[Command]) -> list[Any]:
        """Returns the answers of commands, the first of which may call a script."""

        def ask() -> list[Any]:
            answers = self.client.ask(key, *commands)
            if isinstance(answers[0], NoScriptError):
                answers = self.client.ask(key, ("EVAL", self._scripts[name], *commands[0][2:]), *commands[1:])
            return answers

        names = commands[0][3 : 3 + int(commands[0][2])] if commands[0][0] == "EVALSHA" else [key]
        return self._observed(name, names, ask)

    def _observed(self, name: str, names: Sequence[Argument], ask: Callable[[], list[Any]]) -> list[Any]:
        """Returns the answers, or raises one of our errors if the call fails or an answer is an error."""
        remaining()
        start = time.perf_counter()
        failed = True
        try:
            answers = ask()
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            failed = False
        except REDIS_ERRORS as error:
            failure = self._damage(error, names) or failure_of(error)
            if isinstance(failure, ReadOnly):
                self.client.disconnect()
            raise failure from error
        finally:
            self._observe(name, time.perf_counter() - start, failed)
        return answers

    def _damage(self, error: Exception, names: Sequence[Argument]) -> Failure | None:
        """Returns what an error answer says about one of the keys `names`; None: nothing."""
        if not isinstance(error, ResponseError):
            return None
        if found := _DAMAGED.search(str(error)):
            return damaged(found[1], found[2])
        if _UNEXPECTED.search(str(error)):
            return damaged(str(names[0]), "or another key of the run does not have the form that is stored there")
        if "WRONGTYPE" in str(error):
            for name in map(str, names):
                kind = self.client.ask(name, ("TYPE", name))[0].decode()
                if kind not in ("none", keys.kind(name)):
                    what = f"is a {kind}, not a {keys.kind(name)}"
                    return KeyOccupied(name, what) if name == self.keys.datasets else damaged(name, what)
        return None

    def _check_durability(self, wait: Command, reached: Any) -> None:
        """Raises NotDurable if the answer of the command `wait`, WAIT or WAITAOF, is too low."""
        within = f"within {wait[-1] / 1000} s"
        if self.durability.level is Level.FSYNC and reached[0] < 1:
            raise NotDurable(f"not on disk {within}")
        if self.durability.level is Level.REPLICA and reached < self.durability.replicas:
            raise NotDurable(f"on {reached} of {self.durability.replicas} replicas {within}")


def _scripts() -> dict[str, bytes]:
    """Returns the scripts by name, with the functions that they include in place of `--- @include NAME`."""
    folder = resources.files(__package__).joinpath("lua")
    shared = {file.name.removesuffix(".lua"): file.read_bytes() for file in folder.joinpath("include").iterdir()}
    files = [file for file in folder.iterdir() if file.name.endswith(".lua")]
    return {
        file.name.removesuffix(".lua"): _INCLUDE.sub(lambda match: shared[match[1].decode()], file.read_bytes())
        for file in files
    }
