"""One server process, with workers or without, for what is measured."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bots_server.process.embedded import ending_with_parent


@contextmanager
def one_server(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yields a `bots-server` process and its address; ends it, as an operator does."""
    command = [sys.executable, "-m", "bots_server", "--port", "0", "--log-level", "error", *flags]
    process = subprocess.Popen(ending_with_parent(command), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = None
        while found is None and (line := process.stdout.readline()):
            found = re.match(r"listening on (\S+)", line)
        assert found, "the server ended"
        yield process, found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
