"""A server of one command's own: what `bots replay` and `bots demo` talk to where no other is named."""

from __future__ import annotations

import importlib.util
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

START_SECONDS = 60.0  # to start Python, Valkey and the server on a busy machine
STOP_SECONDS = 20.0  # to drain and to end Valkey, before it is killed

# The server is started by a small process that waits for the end of its standard input, which the kernel closes when
# the command ends, however it ends: so the server ends with it, also when it is killed, on any system.
_KEEPER = """
import subprocess, sys
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
sys.stdin.read()
server.terminate()
try:
    server.wait(15)
except subprocess.TimeoutExpired:
    server.kill()
    server.wait()
"""


def server_at(address: str | None) -> AbstractContextManager[str]:
    """Returns a context of the server's address: the given one, or a private server's that ends with the context."""
    return private_server() if address is None else nullcontext(address)


@contextmanager
def private_server() -> Iterator[str]:
    """Yields the address of a fresh `bots-server` over its own Valkey, in a directory of its own; ends both at exit.

    ValueError: bots-server is not installed. OSError: it did not start; the message has what it said.
    """
    if importlib.util.find_spec("bots_server") is None:
        raise ValueError("no --server is given, and bots-server, to start a private one, is not installed here")
    with tempfile.TemporaryDirectory(prefix="bots-") as folder:
        said = Path(folder, "stderr")
        server = [sys.executable, "-m", "bots_server", "--port", "0", "--data-dir", str(Path(folder, "data"))]
        with said.open("wb") as errors:
            keeper = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-c", _KEEPER, *server],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # BOTS_REDIS and its like are meant for another server.
                env={name: value for name, value in os.environ.items() if not name.startswith("BOTS_")},
                text=True,
                start_new_session=True,  # Ctrl-C is for the command, which then ends this one
            )
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            yield _address(keeper.stdout, said)
        finally:
            keeper.stdin.close()
            try:
                keeper.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()
            keeper.stdout.close()


def _address(output: IO[str], said: Path) -> str:
    """Returns the address that a starting server prints. OSError: it ended, or printed none in time."""
    lines: queue.Queue[str] = queue.Queue()

    def pass_on() -> None:
        for line in output:
            lines.put(line)
        lines.put("")

    threading.Thread(target=pass_on, daemon=True).start()
    try:
        while line := lines.get(timeout=START_SECONDS):
            if found := re.search(r"listening on (\S+:\d+)", line):
                return found[1]
    except queue.Empty:
        pass
    raise OSError(f"bots-server did not start: {said.read_text(errors='replace').strip() or 'it said nothing'}")
