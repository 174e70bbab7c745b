"""Runs the adapters' tests, each in an environment of its own, and writes the versions into client/TRAINERS.md.

    python -m tests.trainers [NAME ...]

The environments are in .venv-trainers and are made on first use; `make trainers` runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "client" / "TRAINERS.md"
BEGIN, END = "<!-- versions: written by make trainers -->\n", "<!-- end of versions -->\n"
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
    "verifiers": Environment((("verifiers==0.4.0",),), "verifiers", ("verifiers",)),
}


def main(names: Sequence[str]) -> int:
    """Returns the exit status: 0 if all tests of all named environments (none named: all) pass."""
    status = 0
    for name in names or ENVIRONMENTS:
        python = made(name)
        environment = ENVIRONMENTS[name]
        versions = {package: version(python, package) for package in environment.shown}
        print(f"== {name}: {', '.join(' '.join(pair) for pair in versions.items())}", flush=True)
        command = [
            str(python),
            "-m",
            "pytest",
            f"tests/trainers/{environment.folder}",
            "--quiet",
            "-p",
            "no:cacheprovider",
        ]
        ran = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        status = status or ran.returncode
        if ran.returncode == 0:
            note(name, versions)
    return status


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


def note(name: str, versions: dict[str, str]) -> None:
    """Writes the versions that passed into the table of the page, in place of those of an earlier run."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    rows[name] = f"| {name} | {', '.join(' '.join(pair) for pair in versions.items())} |"
    head = ["| environment | versions that passed |", "|---|---|"]
    lines = "\n".join([*head, *(rows[key] for key in sorted(rows))])
    PAGE.write_text(f"{before}{BEGIN}{lines}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
