"""`bots-server token create`."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bots.v1 import task_selection_pb2 as pb
from bots_server.api.callers import Caller, Callers, hashed
from tests.api.callers import bearer


def create(*flags: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command."""
    command = [sys.executable, "-m", "bots_server", "token", "create", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_token_is_printed_once_and_its_hash_goes_into_the_file(tmp_path: Path) -> None:
    """stdout is the token alone. A new file is readable by its owner alone; an existing one is appended to."""
    path = tmp_path / "tokens"
    first = create("--identity", "alice", "--role", "train", "--datasets", "team-a-*,x", "--file", str(path))
    assert (first.returncode, first.stderr) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(path.read_text().strip() + "  # laptop")  # as an editor may leave it, without an end of line
    second = create("--identity", "ops", "--role", "admin", "--file", str(path))
    tokens = first.stdout.strip(), second.stdout.strip()
    assert tokens[0] != tokens[1]
    assert all(len(token) == len("bots_") + 43 for token in tokens)  # 256 bits in base64
    assert not any(token in path.read_text() for token in tokens)
    callers = Callers(path)
    assert callers.by_token(bearer(tokens[0])) == Caller("alice", pb.ROLE_TRAIN, ("team-a-*", "x"))
    assert callers.by_token(bearer(tokens[1])) == Caller("ops", pb.ROLE_ADMIN, ("*",))


def test_without_a_file_the_line_is_shown() -> None:
    """On stderr, so that stdout stays the token alone."""
    done = create("--identity", "alice", "--role", "read")
    assert done.stderr.splitlines()[-1] == f"alice  read  *  {hashed(done.stdout.strip())}"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--identity", "a b", "--role", "read"), "identity: must be at most 128 printable ASCII characters"),
        (("--identity", "a", "--role", "root"), "invalid choice: 'root'"),
        (("--identity", "a", "--role", "read", "--datasets", "A"), "datasets: got 'A', must be patterns of names"),
        (("--identity", "a", "--role", "read", "--file", "/no/such"), "/no/such"),
    ],
)
def test_a_wrong_flag_makes_no_token(flags: tuple[str, ...], complaint: str) -> None:
    """One line, and nothing on stdout."""
    done = create(*flags)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
