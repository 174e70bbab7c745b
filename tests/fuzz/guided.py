"""Calls that libFuzzer draws: it keeps those that reach new code of the server, and changes them further.

An input is one call to two servers in this process, over one Redis: which method, which server, who calls, and the
bytes of the request. It is made by changing an earlier input, as a message or as bytes, or is new. A journal holds the
calls since the servers' data was made anew.
"""

import json
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import atheris

with atheris.instrument_imports(include=["bots_server"], enable_loader_override=False):
    from google.protobuf.message import DecodeError, Message
    from google.protobuf.message_factory import GetMessageClass

    from bots_server.api.callers import hashed
    from bots_server.store import history
    from tests.api.service import Service
    from tests.fuzz.in_process import InProcess, Metadata, serving_in_process
    from tests.fuzz.requests import METHODS, SERVICE, VALID, change, requests
    from tests.fuzz.session import READABLE, Lines, Session, log_lines

NAMES = sorted(VALID)
CALLS_PER_SESSION = 500
SNAPSHOT_EVENTS = 4  # so that replicas are rebuilt from snapshots too
HISTORY_BYTES = 2**16  # so that the history is cut too
PREFIX = 4  # bytes of the length of a message in a stream, and of a call in a journal
CALLERS = ["reader", "stranger", *["admin"] * 14]


def framed(parts: Sequence[bytes]) -> bytes:
    """Returns byte strings with their lengths."""
    return b"".join(len(part).to_bytes(PREFIX, "big") + part for part in parts)


def unframed(data: bytes) -> Iterator[bytes]:
    """Yields byte strings that have their lengths; a length that is too long is cut."""
    while data:
        length = int.from_bytes(data[:PREFIX], "big")
        yield data[PREFIX : PREFIX + length]
        data = data[PREFIX + length :]


def encode(method: str, where: int, messages: Sequence[Message]) -> bytes:
    """Returns an input."""
    bodies = [message.SerializeToString() for message in messages]
    streamed = SERVICE.methods_by_name[method].client_streaming
    return bytes([NAMES.index(method), where]) + (framed(bodies) if streamed else b"".join(bodies[:1]))


def decode(data: bytes) -> tuple[str, int, list[bytes]]:
    """Returns method, server and caller, and the bytes of the requests of an input."""
    method, where = NAMES[(data[0] if data else 0) % len(NAMES)], data[1] if len(data) > 1 else 0
    streamed = SERVICE.methods_by_name[method].client_streaming
    return method, where, list(unframed(data[2:])) if streamed else [data[2:]]


def parse(method: str, bodies: Sequence[bytes]) -> list[Message]:
    """Returns the requests. Raises DecodeError."""
    kind: Any = GetMessageClass(SERVICE.methods_by_name[method].input_type)
    return [kind.FromString(body) for body in bodies]


class Fuzzer:
    """Makes inputs and calls, checks each, and counts them.

    channels: to the two servers, by who calls
    """

    def __init__(
        self, services: Sequence[Service], channels: dict[str, list[InProcess]], lines: Lines, journal: Path
    ) -> None:
        self._services, self._channels, self._lines, self._journal_path = services, channels, lines, journal
        self.counts: Counter[str] = Counter()
        self._begin()

    def _begin(self) -> None:
        self._session = Session(*self._services)
        self._journal = self._journal_path.open("wb", buffering=0)

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        """Returns another input: a new one, or one that differs a little."""
        random, world = Random(seed), self._session.world
        way = random.randint(0, 9)
        method, where, bodies = decode(data)
        if way < 5:
            method = random.choice(METHODS)
            drawn = VALID[method](random, world) if way < 3 else requests(random, method, world)
            made = encode(method, random.randint(0, 255), drawn)
        elif way < 8:
            try:
                messages = parse(method, bodies)
            except DecodeError:
                messages = []
            for _ in range(random.choice([1, 1, 2])):
                if messages:
                    change(random, random.choice(messages), world)
            made = encode(method, where ^ random.choice([0, 1]), messages)
        else:
            made = atheris.Mutate(data, max_size)
        return made[:max_size]

    def try_call(self, data: bytes) -> None:
        """Makes the call of an input. If it fails, keeps the journal of the first failure at its place, and goes on."""
        try:
            self.call(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{Path(place.filename).stem}-{place.lineno}"
            self.counts[f"FAILED {name}"] += 1
            kept = self._journal_path.with_name(f"{name}.journal")
            if not kept.exists():
                kept.write_bytes(self._journal_path.read_bytes())
                kept.with_suffix(".txt").write_text(traceback.format_exc())
            self._lines.bad.clear()
            self._begin()

    def call(self, data: bytes) -> None:
        """Makes the call of an input. Fails if an invariant is broken."""
        if self._session.calls >= CALLS_PER_SESSION or self._session.is_spent:
            self._session.end()
            self._journal.close()
            self._begin()
        self._journal.write(framed([data]))
        method, where, bodies = decode(data)
        who, server = CALLERS[where // 2 % len(CALLERS)], where % 2
        try:
            messages = parse(method, bodies)
        except DecodeError:
            who, outcome = "bytes", self._session.call_raw(self._channels["admin"][server], method, bodies)
        else:
            if who == "admin":
                outcome = self._session.call(method, messages, server)
            else:
                outcome = self._session.call_limited(self._channels[who][server].stub(), method, messages)
        assert self._lines.bad == []
        self.counts.update(["inputs", f"{who} {outcome}", f"{method} {outcome}"])
        if self.counts["inputs"] % 100 == 0:
            self._journal_path.with_suffix(".counts").write_text(json.dumps(self.counts))


@contextmanager
def fuzzer(url: str, journal: Path) -> Iterator[Fuzzer]:
    """Yields a fuzzer of two new servers."""
    history.SNAPSHOT_EVENTS = SNAPSHOT_EVENTS
    tokens = journal.with_suffix(".tokens")
    tokens.write_text(f"admin admin * {hashed('admin')}\nreader read {READABLE} {hashed('reader')}\n")
    with ExitStack() as stack:
        lines = stack.enter_context(log_lines())
        settings = {"tokens_file": tokens, "history_bytes": HISTORY_BYTES}
        serving = [stack.enter_context(serving_in_process(url, bearer("admin"), **settings)) for _ in range(2)]
        channels = {who: [local.calling_as(bearer(who)) for _, local in serving] for who in CALLERS}
        yield Fuzzer([service for service, _ in serving], channels, lines, journal)


def bearer(token: str) -> Metadata:
    """Returns the metadata of calls with a token."""
    return [("authorization", f"Bearer {token}")]


def replay(url: str, journal: Path) -> None:
    """Repeats the calls of a journal."""
    calls = list(unframed(journal.read_bytes()))
    with fuzzer(url, journal.with_suffix(".replayed")) as one:
        for data in calls:
            method, where, bodies = decode(data)
            print(method, CALLERS[where // 2 % len(CALLERS)], where % 2, str(bodies)[:1000], flush=True)
            one.call(data)


def fuzz(url: str, journal: Path, flags: Sequence[str]) -> None:
    """Makes calls, as the flags of libFuzzer say. It ends the process."""
    with journal.with_suffix(".log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    with fuzzer(url, journal) as one:
        atheris.Setup(["fuzz", *flags], one.try_call, custom_mutator=one.mutate)
        atheris.Fuzz()
