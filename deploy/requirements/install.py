"""Installs one lock of this folder, and the distributions that it is for, into a virtual environment.

    python deploy/requirements/install.py ENVIRONMENT LOCK [DISTRIBUTION ...]

Creates the environment if it does not exist. Everything that is fetched is in the lock with its hashes; pip uses the
index that the machine is set up for. The distributions, folders of this repository, are installed editable. Prints one
line, and on a terminal the progress; prints pip's own output if pip fails.
"""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

LOCKS = Path(__file__).resolve().parent


def main(environment: Path, lock: str, *distributions: str) -> int:
    """Returns the exit status: that of the first pip that fails, or 0."""
    locked = LOCKS / f"{lock}.txt"
    total = len(re.findall(r"^\S+==", locked.read_text(), re.MULTILINE))
    print(f"Installing deploy/requirements/{lock}.txt into {environment.name}", flush=True)
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    status = pip(python, total, "--require-hashes", "--no-deps", "--requirement", str(locked))
    if status == 0 and distributions:
        folders = [f"--editable={LOCKS.parents[1] / name}" for name in distributions]
        status = pip(python, total, "--no-deps", "--no-build-isolation", *folders)
    return status


def pip(python: Path, total: int, *arguments: str) -> int:
    """Returns the exit status of `pip install` with these arguments."""
    command = [str(python), "-m", "pip", "install", "--progress-bar=off", *arguments]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    output = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = 0
        for line in process.stdout:
            output.append(line)
            if match := re.match(r"Collecting (\S+?)(==|$|\s)", line):
                found += 1
                progress(f"{found}/{total} {match[1]}")
            elif line.startswith("Installing collected packages"):
                progress(f"installing {line.count(',') + 1} packages")
    progress("")
    if process.returncode:
        sys.stderr.writelines(output)
    return process.returncode


def progress(text: str) -> None:
    """Replaces the last line of the terminal; does nothing if the output is not a terminal."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
