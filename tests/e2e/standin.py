"""Stand-ins for images that cannot be pulled: Debian bookworm by debootstrap, imported into the engine.

    python -m tests.e2e.standin        makes both if they are not there yet

Needs root and debootstrap. The Dockerfile and the compose file on them are the same; the Python (3.11) and the Redis
(7.0) are Debian's.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import docker

# Image -> packages of Debian in it.
PYTHON, REDIS = "bots-standin-python:bookworm", "bots-standin-redis:bookworm"
PACKAGES = {PYTHON: "python3,python3-venv,ca-certificates", REDIS: "redis-server,redis-tools"}


def can_be_made() -> bool:
    """Returns whether debootstrap is installed."""
    return shutil.which("debootstrap") is not None


def make(client: docker.DockerClient, image: str) -> str:
    """Returns the stand-in's name, made if it is not there yet."""
    if client.images.list(image):
        return image
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES[image]}", "bookworm", str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for cache in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / cache)
            (root / cache).mkdir()
        (root / "data").mkdir()
        shutil.chown(root / "data", 999, 1000)  # as in the image of Redis
        archive = Path(scratch) / "root.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        name, tag = image.split(":")
        client.api.import_image(str(archive), repository=name, tag=tag)
    return image


if __name__ == "__main__":
    for name in PACKAGES:
        make(docker.from_env(), name)
