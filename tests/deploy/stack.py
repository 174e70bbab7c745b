"""A real Prometheus that scrapes real servers, and Redis' exporter if it is installed."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.valkey import HOST, free_port, wait_until

RULES = Path(__file__).parents[2] / "deploy/prometheus/alerts.yml"
EXPORTER = shutil.which("prometheus-redis-exporter") or shutil.which("redis_exporter")
SECONDS = 60


@contextlib.contextmanager
def process(command: list[str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Yields a process whose lines can be read from its stdout; ends it at exit."""
    started = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield started
    finally:
        started.terminate()
        started.communicate(timeout=SECONDS)


@dataclass
class Server:
    """A `bots-server` process, and its addresses for calls and for scrapes."""

    process: subprocess.Popen[str]
    address: str
    metrics: str


@contextlib.contextmanager
def bots_server(redis_url: str, *flags: str) -> Iterator[Server]:
    """Yields a server over a Redis, once it listens."""
    command = [sys.executable, "-m", "bots_server", "--redis", redis_url, "--port", "0", "--metrics-port", "0", *flags]
    with process(command) as started:
        assert started.stdout is not None
        found: dict[str, str] = {}
        while set(found) < {"listening", "metrics"}:
            line = started.stdout.readline()
            assert line, f"bots-server ended with status {started.wait(SECONDS)}"
            if match := re.match(r"(listening|metrics) on (\S+)", line):
                found[match[1]] = match[2]
        yield Server(started, found["listening"], found["metrics"])


@contextlib.contextmanager
def redis_exporter(redis_url: str) -> Iterator[str | None]:
    """Yields the address of an exporter of Redis' own metrics; None if it is not installed."""
    if EXPORTER is None:
        yield None
        return
    address = f"{HOST}:{free_port()}"
    with process([EXPORTER, "--redis.addr", redis_url, "--web.listen-address", address]):
        yield address


class Prometheus:
    """What a Prometheus answers."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the series of an expression now."""
        return list(self._get("query", query=expression)["result"])

    def query_range(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """Returns the series of an expression over the last seconds."""
        now = time.time()
        return list(self._get("query_range", query=expression, start=now - seconds, end=now, step=1)["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Returns the groups of rules, with how their evaluation went."""
        return list(self._get("rules")["groups"])

    def _get(self, path: str, **parameters: object) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return dict(json.load(answer)["data"])


@contextlib.contextmanager
def prometheus(folder: Path, jobs: dict[str, list[str]]) -> Iterator[Prometheus]:
    """Yields a Prometheus that scrapes the jobs' targets every second and judges the alerts."""
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": targets}]} for job, targets in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
    address = f"{HOST}:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with process([*command, f"--web.listen-address={address}"], cwd=folder):
        found = Prometheus(f"http://{address}")

        def ready() -> bool:
            with contextlib.suppress(OSError):
                return len(found.query("up == 1")) == sum(map(len, jobs.values()))
            return False

        wait_until(ready, "every target was scraped", SECONDS)
        yield found
