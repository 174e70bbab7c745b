"""Runs the adapters' tests, each in an environment of its own, and writes the versions into client/TRAINERS.md.

    python -m tests.trainers [--measure] [NAME ...]

With --measure it measures them instead (tests.trainers.measure), and writes the figures.
The environments are in .venv-trainers and are made on first use; `make trainers` runs this.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "client" / "TRAINERS.md"
VERSIONS = ("environment", "versions that passed")
FIGURES = (
    "environment",
    "overhead, ms a step",
    "steps unseen",
    "selections at resume",
    "longest stall, s",
    "delivered",
)
MEASURED = ("torch", "verl", "trinity")
TORCH = ("torch==2.13.0",)


@dataclass(frozen=True)
class Environment:
    """What to install, in steps, the folder of the tests, and the packages whose versions are of interest."""

    steps: tuple[tuple[str, ...], ...]
    folder: str
    shown: tuple[str, ...]


ENVIRONMENTS = {
    "torch": Environment((TORCH, ("torchdata",)), "torch", ("torch", "torchdata")),
    "trl": Environment((TORCH, ("trl",)), "trl", ("trl", "transformers", "accelerate", "datasets", "torch")),
    "trl-oldest": Environment(
        (TORCH, ("trl==0.24.0", "transformers<5")),
        "trl",
        ("trl", "transformers", "accelerate", "datasets", "torch"),
    ),
    "verl": Environment((TORCH, ("verl==0.9.1",)), "verl", ("verl", "transformers", "torchdata", "torch")),
    "verl-0.8": Environment(
        (TORCH, ("verl==0.9.1",), ("--no-deps", "verl==0.8.0")), "verl", ("verl", "transformers", "torchdata", "torch")
    ),
    "verl-0.7": Environment(
        (TORCH, ("verl==0.9.1",), ("--no-deps", "verl==0.7.1")), "verl", ("verl", "transformers", "torchdata", "torch")
    ),
    # It needs numpy 2, which a requirement of verl's excludes, and greenlet, which it does not name.
    "trinity": Environment(
        (TORCH, ("trinity-rft==0.6.0",), ("numpy>=2,<2.5", "greenlet")), "trinity", ("trinity-rft", "verl", "torch")
    ),
    # tinker-cookbook asks for a tml-renderers that is on no index; the newest that is there is imported as well.
    "tinker": Environment(
        (
            TORCH,
            ("tinker==0.38.0", "chz", "datasets", "transformers", "termcolor", "pillow", "tqdm", "tml-renderers"),
            ("--no-deps", "tinker-cookbook==0.6.1"),
        ),
        "tinker",
        ("tinker", "tinker-cookbook", "tml-renderers", "torch"),
    ),
    "atropos": Environment((TORCH, ("atroposlib==0.4.0",)), "atropos", ("atroposlib", "torch")),
    "verifiers": Environment((("verifiers==0.4.0",),), "verifiers", ("verifiers",)),
}


def main() -> int:
    """Returns the exit status: 0 if all that was asked for passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENVIRONMENTS)}; none: all")
    parser.add_argument("--measure", action="store_true")
    given = parser.parse_args()
    if given.measure:
        return max(measure(name) for name in given.names or MEASURED)
    return max(test(name) for name in given.names or ENVIRONMENTS)


def test(name: str) -> int:
    """Returns the exit status of the tests of an environment; if they pass, notes its versions."""
    python, environment = made(name), ENVIRONMENTS[name]
    versions = ", ".join(f"{package} {version(python, package)}" for package in environment.shown)
    print(f"== {name}: {versions}", flush=True)
    ran = run(python, "pytest", f"tests/trainers/{environment.folder}", "--quiet", "-p", "no:cacheprovider")
    if ran.returncode == 0:
        note(VERSIONS, name, versions)
    return ran.returncode


def measure(name: str) -> int:
    """Returns the exit status of the measurement of an environment; if there is one, notes the figures."""
    ran = run(made(name), "tests.trainers.measure", name, stdout=subprocess.PIPE)
    if ran.returncode == 0:
        found = json.loads(ran.stdout.splitlines()[-1])
        print(f"== {name}: {found}", flush=True)
        shown = (f"{value:.1f}" if isinstance(value, float) else str(value) for value in found.values())
        note(FIGURES, name, *shown)
    return ran.returncode


def run(python: Path, *arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    """Returns a module that ran in an environment, on one thread."""
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([str(python), "-m", *arguments], cwd=ROOT, env=environ, stdout=stdout, text=True)


def made(name: str) -> Path:
    """Returns the Python of an environment, which is made if it is not there."""
    folder = ROOT / ".venv-trainers" / name
    python, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        tests = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["test"]
        ours = ("--editable", f"{ROOT}/client[features]", "--editable", f"{ROOT}/server[embedded]", *tests)
        for step in (*ENVIRONMENTS[name].steps, ours):
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *step], check=True)
        done.touch()
    return python


def version(python: Path, package: str) -> str:
    """Returns the version of a package in an environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def note(titles: tuple[str, ...], name: str, *cells: str) -> None:
    """Writes a row of the table with these titles into the page, in place of that of an earlier run."""
    lines = PAGE.read_text().splitlines()
    begin = lines.index(f"| {' | '.join(titles)} |") + 2
    end = next((place for place in range(begin, len(lines)) if not lines[place].startswith("|")), len(lines))
    rows = {line.split("|")[1].strip(): line for line in lines[begin:end]}
    rows[name] = f"| {' | '.join((name, *cells))} |"
    lines[begin:end] = [rows[key] for key in sorted(rows)]
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
