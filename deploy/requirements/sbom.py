"""Writes the bill of materials of the image (CycloneDX 1.6, JSON) to a file.

    python deploy/requirements/sbom.py FILE

It lists the base image of the Dockerfile, the two distributions, and each package of image.txt that the image has, with
the hashes that are allowed for it. It needs no Docker engine.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def bill() -> dict[str, Any]:
    """Returns the bill of materials."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    name, tag, digest = re.findall(r"^ARG BASE=(\S+):(\S+)@sha256:(\S+)$", dockerfile, re.MULTILINE)[0]
    removed = re.findall(r"pip uninstall --yes ([\w ]+)", dockerfile)[0].split()
    python = tag.partition("-")[0]
    base = {"type": "container", "name": name, "version": tag, "purl": f"pkg:docker/{name}@{tag}"}
    own = [(ROOT / name / "pyproject.toml").read_text() for name in ("client", "server")]
    ours = [re.findall(r'^(?:name|version) = "(.+)"$', text, re.MULTILINE)[:2] for text in own]
    image = {"type": "container", "name": "bots-server", "version": ours[1][1], "bom-ref": "image"}
    components = [
        base | {"hashes": [{"alg": "SHA-256", "content": digest}]},
        *(library(name, version) for name, version in ours),
        *locked((ROOT / "deploy/requirements/image.txt").read_text(), python),
    ]
    components = [one | {"bom-ref": one["purl"]} for one in components if one["name"] not in removed]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, json.dumps(components))}",  # equal content, equal number
        "version": 1,
        "metadata": {"component": image},
        "components": components,
    }


def locked(lock: str, python: str) -> list[dict[str, Any]]:
    """Returns the packages of a lock that a Linux image with this version of Python has."""
    environment = {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    found = []
    for entry in re.split(r"\n(?=[^\s#])", lock):
        words = re.sub(r"^#.*\n?|\\\n", "", entry, flags=re.MULTILINE).split("--hash=")
        if not words[0].strip():
            continue
        requirement = Requirement(words[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            hashes = [{"alg": "SHA-256", "content": word.strip().removeprefix("sha256:")} for word in words[1:]]
            found.append(library(requirement.name, str(requirement.specifier).removeprefix("==")) | {"hashes": hashes})
    return found


def library(name: str, version: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    Path(sys.argv[1]).write_text(json.dumps(bill(), indent=2) + "\n")
