"""A server of one command's own: what `bots replay` and `bots demo` talk to where no other is named."""

from __future__ import annotations

import importlib.util
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO

START_SECONDS = 60.0  # to start Python, Valkey and the server on a busy machine
STOP_SECONDS = 20.0  # to drain and to end Valkey, before it is killed

# The server is started by a small process that waits for the end of its standard input, which the kernel closes when
# the command ends, however it ends: so the server ends with it and its data are removed, also when it is killed.
_KEEPER = """
import subprocess, sys, tempfile
with tempfile.TemporaryDirectory(prefix="bots-") as data:
    server = subprocess.Popen([*sys.argv[1:], "--data-dir", data], stdin=subprocess.DEVNULL)
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
    with tempfile.TemporaryFile() as errors:
        keeper = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-c", _KEEPER, sys.executable, "-m", "bots_server", "--port", "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # BOTS_REDIS and its like are meant for another server.
            env={name: value for name, value in os.environ.items() if not name.startswith("BOTS_")},
            start_new_session=True,  # Ctrl-C is for the command, which then ends this one
        )
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            address = _address(keeper.stdout)
            if address is None:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()
                raise OSError(f"bots-server did not start: {said or 'it said nothing'}")
            yield address
        finally:
            keeper.stdin.close()
            try:
                keeper.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()
            keeper.stdout.close()


def _address(output: IO[bytes]) -> str | None:
    """Returns the address that a starting server prints; None: it ended, or printed none in time."""
    deadline = time.monotonic() + START_SECONDS
    printed = b""
    while select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(output.fileno(), 65536)
        if not part:
            break
        printed += part
        if found := re.search(rb"listening on (\S+:\d+)\n", printed):
            return found[1].decode()
    return None
