"""The processes that the bench starts, and what they take."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 30


@dataclass(frozen=True)
class ServerProcess:
    """A running server. address: where it listens."""

    process: subprocess.Popen[str]
    address: str

    def memory(self) -> int:
        """Returns the bytes of memory that it holds (without its workers)."""
        return _status(self.process.pid, "VmRSS")

    def peak_memory(self) -> int:
        """Returns the most bytes of memory that it ever held."""
        return _status(self.process.pid, "VmHWM")


@contextmanager
def server(redis_url: str, *flags: str) -> Iterator[ServerProcess]:
    """Yields a server process over the Redis at `redis_url`; ends it by its pid.

    Its access log is written, as it is by default, to nowhere.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.server", "--redis", redis_url, "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("listening on "):
                yield ServerProcess(process, line.removeprefix("listening on ").strip())
                break
        else:
            raise RuntimeError(f"no server: status {process.wait()}")
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        finally:
            process.kill()


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024
