"""A server as compose and Kubernetes run it: open to others, with TLS, tokens and metrics, and two processes."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import bots
from tests.api.test_process import started
from tests.deploy.test_healthcheck import read
from tests.valkey import free_port

SECRETS = Path(__file__).parents[2] / "deploy/secrets"


def test_each_holder_of_a_token_can_do_its_work(redis_url: str) -> None:
    """Trainers train, dashboards read and scrape, operators delete; the container's check is content."""
    port = str(free_port())
    environment = {
        "BOTS_HOST": "0.0.0.0",
        "BOTS_PROCESSES": "2",
        "BOTS_REDIS": redis_url,
        "BOTS_TOKENS_FILE": f"{SECRETS}/tokens",
        "BOTS_TLS_CERT": f"{SECRETS}/cert.pem",
        "BOTS_TLS_KEY": f"{SECRETS}/key.pem",
        "BOTS_METRICS_HOST": "0.0.0.0",
        "BOTS_METRICS_PORT": port,
    }
    tls = bots.TLS(ca_file=SECRETS / "ca.pem")
    with started(env=environment) as (_, address):
        here = f"localhost:{address.rpartition(':')[2]}"
        with bots.Client(here, token_file=SECRETS / "trainer-token", tls=tls, strict=True, timeout=20) as trainer:
            trainer.create_dataset("tasks", size=100)
            run = trainer.create_run("tasks", "policy")
            run.select(4).report([1, 2, 3, 4], 4)
            with pytest.raises(bots.PermissionDeniedError):
                trainer.delete_run("tasks", "policy")
        with bots.Client(here, token_file=SECRETS / "dashboard-token", tls=tls, strict=True, timeout=20) as dashboard:
            assert dashboard.run("tasks", "policy").summary().updates == 1
            with pytest.raises(bots.PermissionDeniedError):
                dashboard.run("tasks", "policy").select(4)
        context = ssl.create_default_context(cafile=SECRETS / "ca.pem")
        token = (SECRETS / "dashboard-token").read_text().strip()
        assert read(f"https://localhost:{port}/metrics", context=context)[0] == 401
        status, page = read(f"https://localhost:{port}/metrics", token, context)
        assert (status, 'bots_worker_up{process="1"} 1.0' in page) == (200, True)
        check = [sys.executable, "-m", "bots_server.process.health"]
        assert subprocess.run(check, env=os.environ | environment, timeout=60).returncode == 0
        with bots.Client(here, token_file=SECRETS / "admin-token", tls=tls, strict=True, timeout=20) as operator:
            operator.delete_run("tasks", "policy")
