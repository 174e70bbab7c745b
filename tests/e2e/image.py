"""Builds the server's image."""

import contextlib
import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import docker

from tests.deploy.locks import locked

ROOT = Path(__file__).parents[2]


def build(client: docker.DockerClient, tag: str, base: str, scratch: Path | None) -> None:
    """Builds the Dockerfile on `base`.

    scratch: folder for wheels, from which the build installs without network; None: the public index. The wheels are of
             this Python, so `base` must have the same.
    """
    if scratch is None:
        client.images.build(path=str(ROOT), tag=tag, buildargs={"BASE": base}, rm=True)
        return
    with package_index(scratch) as url:
        client.images.build(
            path=str(ROOT), tag=tag, buildargs={"BASE": base, "PIP_INDEX_URL": url}, rm=True, network_mode="host"
        )


@contextlib.contextmanager
def package_index(folder: Path) -> Iterator[str]:
    """Serves what the image needs as an index of packages (PEP 503) on the loopback; yields its URL."""
    # What any patch version of this Python needs: the stand-in's is a few behind.
    patches = ["{}.{}.{}".format(*sys.version_info), "{}.{}.0".format(*sys.version_info)]
    pinned = {
        f"{requirement.name}{requirement.specifier}"
        for requirement in locked(ROOT / "deploy/requirements/image.txt")
        for patch in patches
        if requirement.marker is None or requirement.marker.evaluate({"python_full_version": patch})
    }
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder / "wheels")]
    subprocess.run([*command, *pinned], check=True, stderr=subprocess.DEVNULL)
    for wheel in (folder / "wheels").iterdir():
        project = folder / "index" / re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        project.mkdir(parents=True, exist_ok=True)
        shutil.move(wheel, project)
    handler = functools.partial(_Quiet, directory=str(folder / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Logs nothing."""
