"""A private Valkey or Redis, for when none is given: same code, no installation.

with start(Path("/var/lib/bots")) as url:
    store = Store(connect(url))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class EmbeddedError(Exception):
    """The private Redis cannot be started; the message says why and what to do."""


@contextmanager
def start(data_dir: Path, *, fsync: bool = False, timeout_seconds: float = 60.0) -> Iterator[str]:
    """Yields the `unix://` URL of a private Valkey whose append-only file is in `data_dir`; ends it at exit.

    `fsync`: every write is on disk before it is answered (appendfsync always), else about once a second. It ends with
    this process, also when that is killed. Raises EmbeddedError: another server uses the directory, no binary is found,
    or it is not ready after `timeout_seconds` (a large append-only file takes its time to load).
    """
    raise NotImplementedError
    yield
