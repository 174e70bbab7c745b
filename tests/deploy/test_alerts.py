"""The alerts: their own unit tests, and their sections of the runbook."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)


def promtool(*arguments: str) -> str:
    """Returns the output of promtool in deploy/prometheus. Fails if it ends with an error."""
    told = subprocess.run(
        ["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    """Each alert fires when it should, and not when something similar happens."""
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_configuration_is_valid() -> None:
    """Prometheus accepts the configuration and the rules."""
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")
    assert "is valid" in promtool("check", "config", "--syntax-only", "prometheus.yml")  # the secrets are elsewhere


def test_every_alert_is_tested() -> None:
    """Each alert has a test in which it fires and one in which it does not."""
    tests = yaml.safe_load((DEPLOY / "prometheus/alerts_test.yml").read_text())["tests"]
    outcomes = {(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]}
    assert outcomes == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_a_page_in_the_runbook(rule: dict[str, dict[str, str]]) -> None:
    """Each alert links to a heading of the runbook that says what it means, what to look at and what to do."""
    path, heading = rule["annotations"]["runbook"].split("#")
    assert path == "deploy/runbook.md"
    sections = (DEPLOY / "runbook.md").read_text().split("\n### ")
    section = next((text for text in sections if text.partition("\n")[0].lower() == heading), "")
    assert all(word in section for word in ("**Means**", "**Look at**", "**Do**"))
