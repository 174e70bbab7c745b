"""Dockerfile, compose file and Kubernetes manifests, as far as they can be checked without running them."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from bots_server.api.callers import ROLES, hashed, parse
from bots_server.process.settings import Settings
from bots_server.process.tls import Certificates
from tests.deploy.locks import locked

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def told(*command: str) -> str:
    """Returns the output of a tool. Fails if it ends with an error or warns."""
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "warn" not in ended.stderr.lower(), ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file as Compose reads it."""
    return dict(json.loads(told(str(BIN / "docker-compose"), "config", "--format", "json")))


def test_dockerfile_is_clean() -> None:
    """hadolint has no complaints, and any user of group 0 can write to the volume."""
    assert told(str(BIN / "hadolint"), "Dockerfile") == ""
    assert "--group=root --mode=0770 /data" in (ROOT / "Dockerfile").read_text()


def test_bill_of_materials_lists_what_the_image_has(tmp_path: Path) -> None:
    """The bill has the base image, the two distributions and each locked package with its hashes, once."""
    told(sys.executable, "deploy/requirements/sbom.py", str(tmp_path / "out" / "bill.json"))
    bill = json.loads((tmp_path / "out" / "bill.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    packages = {one["name"]: one for one in bill["components"]}
    older = {"async-timeout"}  # for Python before 3.12
    lock = {one.name for one in locked(ROOT / "deploy/requirements/image.txt")} - older
    assert len(packages) == len(bill["components"])
    assert packages.keys() == lock - {"setuptools"} | {"python", "bots-client", "bots-server"}
    assert packages["bots-server"]["version"] == version("bots-server")
    assert all(packages[name]["hashes"] for name in lock - {"setuptools"} | {"python"})


def test_servers_have_tls_and_a_token_for_each_role(compose: dict[str, Any]) -> None:
    """Compose's servers serve with TLS, to holders of a token of each role; the development tokens are these."""
    secrets = ROOT / "deploy/secrets"
    Certificates(secrets / "cert.pem", secrets / "key.pem", secrets / "ca.pem").context()
    callers = parse((secrets / "tokens").read_text())
    for name, role in (("trainer", "train"), ("dashboard", "read"), ("admin", "admin")):
        token = (secrets / f"{name}-token").read_text().strip()
        assert callers[hashed(token)].role == ROLES[role]
    for name in ("server-1", "server-2"):
        environment = compose["services"][name]["environment"]
        given = {secret["source"] for secret in compose["services"][name]["secrets"]}
        files = {Path(environment[key]).name for key in ("BOTS_TOKENS_FILE", "BOTS_TLS_CERT", "BOTS_TLS_KEY")}
        assert files == given
        assert {key.removeprefix("BOTS_").lower() for key in environment} <= Settings.model_fields.keys()


def test_image_is_of_the_version_that_is_built(compose: dict[str, Any]) -> None:
    """Compose and Kubernetes name the version of the server's distribution."""
    assert compose["services"]["server-1"]["image"] == f"bots-server:{version('bots-server')}"
    images = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())["images"]
    assert images == [{"name": "bots-server", "newTag": version("bots-server")}]


def test_services_are_pinned_bounded_and_hardened(compose: dict[str, Any]) -> None:
    """Every service has a pinned image, a health check, limits, and no rights that it does not need."""
    for name, service in compose["services"].items():
        # No digest of the exporter's image is published where it can be looked up without its registry.
        digest = (
            "" if name == "redis-exporter" or service["image"].startswith("bots-server:") else r"@sha256:[0-9a-f]{64}"
        )
        assert re.fullmatch(rf"[a-z0-9/_-]+:v?[0-9][0-9a-z.-]+{digest}", service["image"]), name
        assert "healthcheck" in service or service["image"].startswith("bots-server"), name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(on["condition"] == "service_healthy" for on in service.get("depends_on", {}).values()), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name


def test_both_servers_have_one_name(compose: dict[str, Any]) -> None:
    """Clients and Prometheus find every server behind the name `bots`."""
    servers = [service for name, service in compose["services"].items() if name.startswith("server-")]
    assert len(servers) == 2
    assert all(server["networks"]["front"]["aliases"] == ["bots"] for server in servers)
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["job_name"] == "bots"
    assert scrape["dns_sd_configs"][0]["names"] == ["bots"]


def test_mounted_files_exist(compose: dict[str, Any]) -> None:
    """Every file that a container mounts is in the repository."""
    mounts = [
        mount["source"]
        for service in compose["services"].values()
        for mount in service.get("volumes", [])
        if mount["type"] == "bind"
    ]
    secrets = [secret["file"] for secret in compose["secrets"].values()]
    assert [path for path in mounts + secrets if not Path(path).exists()] == []


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Kubernetes manifests in one file: as kustomize makes them, or unchanged if there is no kubectl."""
    folder = ROOT / "deploy/kubernetes"
    path = tmp_path_factory.mktemp("kubernetes") / "manifests.yaml"
    if shutil.which("kubectl"):
        path.write_text(told("kubectl", "kustomize", str(folder)))
    else:
        resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        path.write_text("\n---\n".join((folder / resource).read_text() for resource in resources))
    return path


def test_manifests_are_valid(manifests: Path) -> None:
    """kubernetes-validate has nothing to say, in strict mode."""
    told(str(BIN / "kubernetes-validate"), "--strict", "--no-warn", str(manifests))


def test_every_selector_selects_the_pods(manifests: Path) -> None:
    """Service, budget, policy and monitor all mean the Deployment's pods."""
    labels = {"app.kubernetes.io/name": "bots"}
    found = {}
    for document in yaml.safe_load_all(manifests.read_text()):
        spec = document["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        found[document["kind"]] = selector.get("matchLabels", selector)
        if document["kind"] == "Deployment":
            found["Pod"] = spec["template"]["metadata"]["labels"]
    assert found == dict.fromkeys(
        ("Deployment", "Pod", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"), labels
    )


def test_probes_speak_tls_and_callers_are_in_chosen_namespaces(manifests: Path) -> None:
    """Each probe asks a page of the metrics port over HTTPS; only labelled namespaces reach the servers."""
    documents = {one["kind"]: one["spec"] for one in yaml.safe_load_all(manifests.read_text())}
    (container,) = documents["Deployment"]["template"]["spec"]["containers"]
    for probe, path in (("readinessProbe", "/healthz"), ("livenessProbe", "/livez"), ("startupProbe", "/livez")):
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics", "scheme": "HTTPS"}
    for rule in documents["NetworkPolicy"]["ingress"]:
        assert all(source["namespaceSelector"]["matchLabels"] for source in rule["from"])


def test_pods_have_tls_and_tokens(manifests: Path) -> None:
    """The image and the Deployment set what a server for others needs, and nothing that is no setting."""
    documents = {one["kind"]: one["spec"] for one in yaml.safe_load_all(manifests.read_text())}
    (container,) = documents["Deployment"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("BOTS_REDIS_FILE", "BOTS_TOKENS_FILE", "BOTS_TLS_CERT", "BOTS_TLS_KEY"):
        assert str(Path(given[name]).parent) in mounted
    image = re.findall(r"\b(BOTS_\w+)=", (ROOT / "Dockerfile").read_text())
    assert {"BOTS_HOST", "BOTS_METRICS_HOST", "BOTS_METRICS_PORT"} <= set(image)
    known = {f"BOTS_{name.upper()}" for name in Settings.model_fields}
    assert {*image, *given} <= known


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kustomize_sets_the_image(manifests: Path) -> None:
    """The Deployment runs the version that is built."""
    deployment = next(d for d in yaml.safe_load_all(manifests.read_text()) if d["kind"] == "Deployment")
    containers = deployment["spec"]["template"]["spec"]["containers"]
    assert [c["image"] for c in containers] == [f"bots-server:{version('bots-server')}"]
