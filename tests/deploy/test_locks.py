"""What is installed is locked: the demo, development, CI and the image take the same versions from one resolution."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.locks import locked

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy" / "requirements"
NAMES = ("image", "demo", "dev")
# Each minor version of Python that the server supports, and the first of them, for which a backport is needed.
PYTHONS = ("3.11.0", "3.11.9", "3.12.9", "3.13.9", "3.14.0")


def pyproject(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())


def group(name: str) -> Iterator[str]:
    """Yields the requirements of a dependency group, those of the groups that it includes too."""
    for entry in pyproject(".")["dependency-groups"][name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from group(entry["include-group"])


def declared(folder: str, *extras: str) -> Iterator[str]:
    """Yields the requirements of a distribution with some of its extras."""
    project = pyproject(folder)["project"]
    yield from project["dependencies"]
    for extra in extras:
        yield from project["optional-dependencies"][extra]


IMAGE = [*declared("client"), *declared("server", "embedded"), *pyproject("client")["build-system"]["requires"]]
IMAGE += pyproject("server")["build-system"]["requires"]
DEMO = [*IMAGE, *declared("client", "cli", "features")]
REQUIRED = {"image": IMAGE, "demo": DEMO, "dev": [*DEMO, *group("dev")]}


def installed(lock: str, python: str) -> dict[str, str]:
    """Returns what pip installs from a lock on a version of Python: versions by name."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    found: dict[str, str] = {}
    for requirement in locked(LOCKS / f"{lock}.txt"):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            assert requirement.name not in found, f"{requirement.name} twice for Python {python}"
            found[requirement.name] = pin.version
    return found


@pytest.mark.parametrize(("lock", "python"), list(product(NAMES, PYTHONS)))
def test_lock_covers_what_is_declared(lock: str, python: str) -> None:
    """Each declared requirement is locked to a version that it allows, on every Python."""
    versions = installed(lock, python)
    for requirement in map(Requirement, REQUIRED[lock]):
        name = canonicalize_name(requirement.name)
        if name != "bots-client":
            assert name in versions, requirement
            assert requirement.specifier.contains(versions[name], prereleases=True), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_locks_agree(python: str) -> None:
    """The image's lock is a part of the demo's, and that of development's: the same versions everywhere."""
    image, demo, dev = (installed(lock, python) for lock in NAMES)
    assert image.items() <= demo.items() <= dev.items()


@pytest.mark.parametrize("lock", [*NAMES, "stubs"])
def test_lock_has_hashes_and_no_address(lock: str) -> None:
    """Every entry has a hash, and no line has the address of an index."""
    text = (LOCKS / f"{lock}.txt").read_text()
    assert not re.search(r"://|^-|^\s+-(?!-hash=sha256:[0-9a-f]{64}( \\)?$)", text, re.MULTILINE)
    entries = re.split(r"^(?=[^#\s])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(LOCKS / f"{lock}.txt"))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_image_installs_from_the_lock_alone() -> None:
    """The Dockerfile copies the lock, installs with its hashes, and builds our distributions without fetching."""
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install (.*)", dockerfile)
    assert installs[0].split() == ["--no-deps", "--require-hashes", "--requirement", "/src/image.txt"]
    assert all({"--no-deps", "--no-build-isolation"} <= set(install.split()) for install in installs[1:])
    assert "COPY deploy/requirements/image.txt /src/\n" in dockerfile
    assert "!deploy/requirements/image.txt" in (ROOT / ".dockerignore").read_text().splitlines()
