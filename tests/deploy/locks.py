"""Reads the locks in deploy/requirements/."""

import re
from pathlib import Path

from packaging.requirements import Requirement


def locked(path: Path) -> list[Requirement]:
    """Returns the requirements of a lock, each of one version, without their hashes."""
    entries = re.findall(r"^[^#\s].*?(?=\s*\\?$)", path.read_text(), re.MULTILINE)
    return [Requirement(entry) for entry in entries]
