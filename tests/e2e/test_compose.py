"""The image and the compose file with a real Docker engine: a training loop while a server and Redis are killed.

`make e2e` runs it. If an image cannot be pulled and debootstrap is there, Debian stands in for it (standin.py).
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest
import yaml
from docker.errors import APIError, DockerException
from docker.models.containers import Container

import bots
from tests.e2e import image, standin
from tests.faults.model import Dataset, Entry, alpha_beta, replay

ROOT = Path(__file__).parents[2]
IMAGE = "bots-server:e2e"
PROJECT = "bots-e2e"
# Of its own, so that a stack that runs on this machine keeps its ports.
ADDRESS = "127.0.50.51"
SERVICES = ("redis", "server-1", "server-2")
SIZE, BATCH, ROLLOUTS, STEPS = 5_000, 32, 8, 90
STEP_SECONDS = 0.2  # what a trainer does between two selections
SECONDS = 120.0

pytestmark = [
    pytest.mark.skipif("TEST_E2E" not in os.environ, reason="builds an image and starts containers: `make e2e`"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def engine() -> docker.DockerClient:
    """The Docker engine at DOCKER_HOST."""
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        pytest.skip(f"SKIPPED, nothing was tested: no Docker engine answers ({error})")
    return client


def base(client: docker.DockerClient, wanted: str, stand_in: str) -> str:
    """Returns the wanted image if the engine has it or can pull it, else its stand-in."""
    try:
        if not client.images.list(wanted):
            client.images.pull(wanted)
    except APIError as error:
        if not standin.can_be_made():
            pytest.skip(
                f"SKIPPED, nothing was tested: {wanted} cannot be pulled, and there is no debootstrap ({error})"
            )
        return standin.make(client, stand_in)
    return wanted


@dataclass
class Stack:
    """The containers of the compose file."""

    client: docker.DockerClient
    environment: dict[str, str]

    def compose(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).parent / "docker-compose"), "--project-name", PROJECT, *arguments]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True)

    def container(self, service: str) -> Container:
        return self.client.containers.get(f"{PROJECT}-{service}-1")

    def metrics(self, service: str) -> str:
        """Returns the page that Prometheus would get."""
        networks = self.container(service).attrs["NetworkSettings"]["Networks"]
        host = networks[f"{PROJECT}_front"]["IPAddress"]
        with urllib.request.urlopen(f"http://{host}:9090/metrics", timeout=10) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def stack(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis and two servers, up and healthy, from an image that was built now."""
    python = base(engine, dockerfile_base(), standin.PYTHON)
    redis = base(engine, compose_file()["services"]["redis"]["image"].split(":-")[1].rstrip("}"), standin.REDIS)
    scratch = tmp_path_factory.mktemp("wheels") if python == standin.PYTHON else None
    told("image built on", python, lambda: image.build(engine, IMAGE, python, scratch))
    sizes = {name: engine.images.get(name).attrs["Size"] / 1e6 for name in (IMAGE, python)}
    print(f"image: {sizes[IMAGE]:.0f} MB, {sizes[IMAGE] - sizes[python]:.0f} MB of it above its base")
    settings = {"BOTS_IMAGE": IMAGE, "BOTS_REDIS_IMAGE": redis, "BOTS_ADDRESS": ADDRESS}
    stack = Stack(engine, os.environ | settings)
    try:
        told("healthy with", redis, lambda: stack.compose("up", "--no-build", "--wait", *SERVICES))
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")


def dockerfile_base() -> str:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return next(line.removeprefix("ARG BASE=") for line in lines if line.startswith("ARG BASE="))


def compose_file() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


def told(what: str, name: str, act: Callable[[], None]) -> None:
    """Does something, and prints how long it took."""
    begin = time.monotonic()
    act()
    print(f"{what} {name}: {time.monotonic() - begin:.1f} s")


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {SECONDS} s"
        time.sleep(0.2)


def inside(container: Container, command: str) -> tuple[int, str]:
    """Returns the exit status and the output of a shell command in a container."""
    status, output = container.exec_run(["sh", "-c", command])
    assert status is not None
    assert isinstance(output, bytes)
    return status, output.decode()


def test_the_image_gives_nothing_away(stack: Stack) -> None:
    """No build tools, no root, no writing to the file system, and a health check that says why not."""
    server = stack.container("server-1")
    assert inside(server, "command -v gcc cc make ld; ls /venv/bin | grep -c pip") == (1, "0\n")
    assert inside(server, "id -u") == (0, "10001\n")
    assert inside(server, "touch /venv/x /data/x")[0] != 0
    assert inside(server, "python -m bots_server.process.health") == (0, "")
    status, output = inside(server, "python -m bots_server.process.health localhost:1")
    assert (status, "UNAVAILABLE" in output) == (1, True)


def test_nothing_is_lost_when_a_server_and_redis_are_killed(stack: Stack) -> None:
    """Guarantees 1, 3 and 6 hold while a server and Redis are killed and started again."""
    rng = np.random.default_rng(1)
    difficulty = rng.random(SIZE)
    weak, strong = np.round(difficulty * 0.5 * 16) / 16, np.round((0.5 + difficulty * 0.5) * 16) / 16
    token = (ROOT / "deploy/secrets/token").read_text().strip()
    sent: dict[str, int | None] = {}  # request id -> the version that the service answered, None: none
    without = 0
    with bots.Client([f"{ADDRESS}:50051", f"{ADDRESS}:50052"], token=token, timeout=3.0, job="e2e") as client:
        client.create_dataset("tasks", weak=weak, strong=strong)
        run = client.create_run("tasks", "policy")
        for step in range(STEPS):
            if step == 20:
                stack.container("server-1").kill()
            if step == 40:
                stack.container("redis").kill()
            if step == 50:
                stack.container("redis").start()
            if step == 60:
                stack.container("server-1").start()
            batch = run.select(BATCH, lease_seconds=30, policy_step=step)
            without += batch.fallback
            successes = rng.binomial(ROLLOUTS, np.clip(difficulty[batch.tasks] + 0.3 * step / STEPS, 0, 1))
            time.sleep(STEP_SECONDS)
            sent[batch.report_id()] = batch.report(successes, ROLLOUTS, policy_step=step)
        wait_until(lambda: flushed(run), "every report is delivered")
        assert run.stats.reports_dropped == 0
        assert 0 < without < STEPS / 2  # while Redis was away, and no longer

        events = [Entry.of(event) for event in run.events()]
        assert sorted(event.request_id for event in events) == sorted(sent)
        version_of = {event.request_id: event.version for event in events}
        acknowledged = {key: version for key, version in sent.items() if version is not None}
        assert {key: version_of[key] for key in acknowledged} == acknowledged
        truth = alpha_beta(replay(Dataset(weak, strong), events))
        np.testing.assert_allclose(run.posteriors(), truth, rtol=0, atol=1e-4)
        print(f"{len(acknowledged)} of {STEPS} reports acknowledged at once, {without} selections without the service")
    both_hold_the_run(stack, token, version=STEPS)


def flushed(run: bots.Run) -> bool:
    """Returns whether no report is pending any more, having tried."""
    try:
        run.flush()
    except bots.TemporaryError:
        return False
    return run.stats.reports_pending == 0


def both_hold_the_run(stack: Stack, token: str, version: int) -> None:
    """Waits until both servers, each asked by a client of its own, export the run at its version."""
    line = f'bots_run_version{{dataset="tasks",run="policy"}} {float(version)}\n'
    for port in (50051, 50052):
        with bots.Client(f"{ADDRESS}:{port}", token=token, timeout=SECONDS, strict=True) as client:
            client.run("tasks", "policy").select(1)

    def exported() -> bool:
        return all(line in stack.metrics(server) for server in SERVICES[1:])

    wait_until(exported, f"both servers export version {version}")


def test_metrics_and_access_log(stack: Stack) -> None:
    """Each server counts its calls, failed ones too, and logs each with its job, its run and its status."""
    for name in SERVICES[1:]:
        page = stack.metrics(name)
        assert 'bots_rpcs_total{code="OK",method="SelectBatch"}' in page
        assert "bots_run_capability{" in page
        assert "process_resident_memory_bytes" in page
    assert 'bots_rpcs_total{code="UNAVAILABLE"' in stack.metrics("server-2")  # while Redis was away
    lines = [json.loads(line) for line in stack.container("server-2").logs(stderr=True, stdout=False).splitlines()]
    reports = [line for line in lines if line.get("method") == "ReportOutcomes" and line["code"] == "OK"]
    assert reports
    expected = {"dataset": "tasks", "run": "policy", "job": "e2e"}
    assert all({key: line[key] for key in expected} == expected for line in reports)
    assert all({"request_id", "version", "seconds", "time"} <= set(line) for line in reports)
