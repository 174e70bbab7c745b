"""A firewall that forgets an idle connection and drops its packets without a word (needs root and iptables)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import bots
from tests.bench.processes import server

pytestmark = pytest.mark.skipif(
    not (os.environ.get("TEST_E2E") and os.geteuid() == 0 and shutil.which("iptables")),
    reason="needs root and iptables: `make e2e`",
)
ESTABLISHED = "01"


def connections_to(port: int) -> list[int]:
    """Returns the local ports of this machine's connections to a port."""
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]  # gRPC's sockets are of both versions
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    sides = [[int(side.split(":")[1], 16) for side in row[1:3]] for row in rows if row[3] == ESTABLISHED]
    found = [local for local, remote in sides if remote == port]
    assert found
    return found


@contextmanager
def forgotten(port: int) -> Iterator[None]:
    """Drops what comes over the connections that lead to a port now."""
    with ExitStack() as stack:
        for local in connections_to(port):
            rule = ["INPUT", "-p", "tcp", "--sport", str(local), "--dport", str(port), "-j", "DROP"]
            subprocess.run(["iptables", "-I", *rule], check=True)
            stack.callback(subprocess.run, ["iptables", "-D", *rule], check=True)
        yield


def test_a_connection_that_is_dropped_without_a_word_costs_no_report(redis_url: str) -> None:
    """The call that meets it goes on over a new connection, within its timeout."""
    with server(redis_url) as process, bots.Client(process.address, job="e2e") as client, ExitStack() as stack:
        client.create_dataset("tasks", size=100)
        run = client.create_run("tasks", "policy")
        for version in (1, 2, 3):
            batch = run.select(8)
            stack.enter_context(forgotten(int(process.address.rsplit(":", 1)[1])))
            assert (batch.fallback, batch.report(1, 2)) == (False, version)
