"""Runs the adapters' tests, each in an environment of its own, and writes the versions into client/TRAINERS.md.

    python -m tests.trainers [--measure] [NAME ...]

With --measure it measures them instead (tests.trainers.measure), and writes what they cost.
The environments are in .venv-trainers and are made on first use; `make trainers` runs this. If one fails, the others go
on, and the last line says which failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "client" / "TRAINERS.md"
TORCH = ("torch==2.13.0",)
MEASURE_SECONDS = 600  # an adapter that takes longer has failed


@dataclass(frozen=True)
class Environment:
    """What to install, in steps, where the tests are, the packages whose versions are of interest, and how many lines
    a user writes by the example of the page; empty: it is not measured.
    """

    steps: tuple[tuple[str, ...], ...]
    tests: str
    shown: tuple[str, ...]
    lines: str = ""


ENVIRONMENTS = {
    "torch": Environment((TORCH, ("torchdata",)), "torch", ("torch", "torchdata"), "3"),
    "trl": Environment((TORCH, ("trl",)), "trl", ("trl", "transformers", "accelerate", "datasets", "torch"), "3"),
    "trl-oldest": Environment(
        (TORCH, ("trl==0.24.0", "transformers<5")),
        "trl",
        ("trl", "transformers", "accelerate", "datasets", "torch"),
    ),
    "verl": Environment(
        (TORCH, ("verl==0.9.1",)), "verl", ("verl", "transformers", "torchdata", "torch"), "6, and 5 options"
    ),
    "verl-0.8": Environment(
        (TORCH, ("verl==0.9.1",), ("--no-deps", "verl==0.8.0")), "verl", ("verl", "transformers", "torchdata", "torch")
    ),
    "verl-0.7": Environment(
        (TORCH, ("verl==0.9.1",), ("--no-deps", "verl==0.7.1")), "verl", ("verl", "transformers", "torchdata", "torch")
    ),
    # It needs numpy 2, which a requirement of verl's excludes, and greenlet, which it does not name.
    "trinity": Environment(
        (TORCH, ("trinity-rft==0.6.0",), ("numpy>=2,<2.5", "greenlet")),
        "trinity",
        ("trinity-rft", "verl", "torch"),
        "5, and 2 of configuration",
    ),
    # tinker-cookbook asks for a tml-renderers that is on no index; the newest that is there is imported as well.
    "tinker": Environment(
        (
            TORCH,
            ("tinker==0.38.0", "chz", "datasets", "transformers", "termcolor", "pillow", "tqdm", "tml-renderers"),
            ("--no-deps", "tinker-cookbook==0.6.1"),
        ),
        "tinker",
        ("tinker-cookbook", "tinker", "tml-renderers", "torch"),
        "4",
    ),
    "atropos": Environment((TORCH, ("atroposlib==0.4.0",)), "atropos", ("atroposlib", "torch")),
    "verifiers": Environment((("verifiers==0.4.0",),), "verifiers", ("verifiers",), "6"),
    # It is on no index.
    "slime": Environment((), "test_slime.py", (), "5, and 2 options"),
}
MEASURED = [name for name, environment in ENVIRONMENTS.items() if environment.lines]


def main() -> int:
    """Returns the exit status: 0 if all that was asked for passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENVIRONMENTS)}; none: all")
    parser.add_argument("--measure", action="store_true", help=f"what they cost, of {', '.join(MEASURED)}")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes of a measurement end with this one
    work: Callable[[str], bool] = measure if given.measure else test
    failed: list[str] = []
    for name in given.names or (MEASURED if given.measure else ENVIRONMENTS):
        began = time.monotonic()
        try:
            passed = work(name)
        except (subprocess.SubprocessError, OSError) as error:  # of an installation
            print(error, file=sys.stderr)
            passed = False
        print(f"== {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
        failed += [] if passed else [name]
    if failed:
        print(f"== FAILED: {', '.join(failed)}")
    return int(bool(failed))


def test(name: str) -> bool:
    """Returns whether the tests of an environment pass; if so, notes its versions."""
    python = made(name)
    print(f"== {name}: {versions(name)}", flush=True)
    command = [
        str(python),
        "-m",
        "pytest",
        f"tests/trainers/{ENVIRONMENTS[name].tests}",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    passed = subprocess.run(command, cwd=ROOT, env=environ(python)).returncode == 0
    if passed:
        note("versions", name, versions(name))
    return passed


def measure(name: str) -> bool:
    """Returns whether an adapter could be measured; notes the figures, or that there are none."""
    python, environment = made(name), ENVIRONMENTS[name]
    first = versions(name).partition(",")[0]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [str(python), "-m", "tests.trainers.measure", name, str(result)]
        with subprocess.Popen(command, cwd=ROOT, env=environ(python), start_new_session=True) as process:
            try:
                status: int | str = process.wait(MEASURE_SECONDS)
            except subprocess.TimeoutExpired:
                status = f"not done in {MEASURE_SECONDS} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if status != 0:
            note("costs", name, first, environment.lines, f"not measured: {status}", "", "", "", "", "")
            return False
        found = json.loads(result.read_text())
    print(f"== {name}: {found}", flush=True)
    shown = (f"{value:.1f}" if isinstance(value, float) else str(value) for value in found.values())
    note("costs", name, first, environment.lines, *shown)
    return True


def environ(python: Path) -> dict[str, str]:
    """Returns the environment variables of a process in an environment: one thread, and nothing of another one."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return inherited | {"OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:{os.environ['PATH']}"}


def made(name: str) -> Path:
    """Returns the Python of an environment, which is made if it is not there."""
    folder = ROOT / ".venv-trainers" / name
    python, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        print(f"== {name}: installing", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        tests = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["test"]
        ours = ("--editable", f"{ROOT}/client[features]", "--editable", f"{ROOT}/server[embedded]", *tests)
        for step in (*ENVIRONMENTS[name].steps, ours):
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *step], check=True)
        done.touch()
    return python


def versions(name: str) -> str:
    """Returns the packages of interest of an environment with their versions; "stand-ins" if there are none."""
    shown = ENVIRONMENTS[name].shown
    if not shown:
        return "stand-ins"
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    found = subprocess.run([str(made(name)), "-c", code, *shown], check=True, capture_output=True, text=True).stdout
    return ", ".join(f"{package} {version}" for package, version in zip(shown, found.split(), strict=True))


def note(table: str, name: str, *cells: str) -> None:
    """Writes a row of a table of the page, between its two comments, in place of that of an earlier run."""
    before, begin, rest = PAGE.read_text().partition(f"<!-- {table}, made by make trainers -->\n")
    rows, end, after = rest.partition("<!-- end -->\n")
    titles, line, *old = rows.splitlines()
    kept = {row.split("|")[1].strip(): row for row in old} | {name: f"| {' | '.join((name, *cells))} |"}
    new = "".join(f"{row}\n" for row in (titles, line, *(kept[key] for key in sorted(kept))))
    PAGE.write_text(f"{before}{begin}{new}{end}{after}")


if __name__ == "__main__":
    sys.exit(main())
