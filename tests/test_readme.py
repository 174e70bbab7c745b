"""The README and the manuals: their Python runs, their tables are complete, their names and links exist."""

import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bots
from bots.v1 import task_selection_pb2 as pb
from bots_server.core.hyperparameters import RULES, Hyperparameters
from bots_server.process.settings import CLIENT_TOKEN_VARIABLES, CLIENT_VARIABLES, PREFIX, Settings
from tests.api.service import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CLIENT = ROOT / "client/README.md"
PAGES = [
    ROOT / "README.md",
    CLIENT,
    *ROOT.glob("deploy/**/*.md"),
    *ROOT.glob("tests/**/*.md"),
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
]


def rows(heading: str, page: str = README) -> dict[str, list[str]]:
    """Returns the rows of the first table below a heading of a page, by their first cell."""
    table = page[page.index(f"## {heading}") :].split("\n\n| ", 1)[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in table]
    return {row[0].strip("`"): row[1:] for row in cells}


def snippets(page: Path, address: str) -> Iterator[Any]:
    """Yields the Python of a page as code objects, whose line numbers are the page's, with the address of a server."""
    text = page.read_text().replace("localhost:50051", address)
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start(1))
        yield compile("\n" * line + found[1], page, "exec")


def roll_out(tasks: Sequence[object], rollouts: int) -> Any:
    """Returns rewards [tasks, rollouts]."""
    return np.random.default_rng(0).integers(0, 2, (len(tasks), rollouts))


GIVEN = {
    "ids": [f"task-{number:03}" for number in range(300)],
    "subjects": ["algebra", "geometry"] * 150,
    "roll_out": roll_out,
    "steps": 3,
    "rank": 0,
    "world": 2,
}


@pytest.mark.parametrize("page", [ROOT / "README.md", CLIENT], ids=["README.md", "client/README.md"])
def test_python_of_a_page_runs(page: Path, redis_url: str) -> None:
    """The Python of a page runs from top to bottom, given data and a policy, against a real server."""
    names: dict[str, Any] = dict(GIVEN)
    with serving(redis_url) as service:
        for code in snippets(page, service.address):
            exec(code, names)
        with bots.Client(service.address, strict=True) as client:
            updates = client.run("guru-math", "qwen-7b").summary().updates
    assert len(names["alpha"]) == len(names["ids"])
    assert updates > 0
    assert not names["batch"].fallback


def test_commands_of_the_readme_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line takes each `bots` command of the README with its arguments and options."""
    typer_main = pytest.importorskip("typer.main")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^bots .*", README, re.MULTILINE)
    assert len(commands) > 5
    for line in commands:
        words = shlex.split(line, comments=True)[1:]
        command = typer_main.get_command(importlib.import_module("bots.cli.app").app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        for word in words:
            if "." in word:
                (tmp_path / word).touch()
        command.make_context("bots", words)  # parses, and runs nothing


def test_readme_is_short() -> None:
    """The README has fewer than 200 lines."""
    assert len(README.splitlines()) < 200


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """The table of settings has every setting of the server with its default and description, and nothing more."""
    expected = {
        name: ["" if field.default in (None, "") else f"`{field.default}`", field.description]
        for name, field in Settings.model_fields.items()
    }
    assert rows("Settings", (ROOT / "deploy/operations.md").read_text()) == expected


def test_every_hyperparameter_is_in_the_table_with_its_model_and_default() -> None:
    """The table of hyperparameters has every one with the core's model and default."""
    expected = {name: (RULES[name].model or "both", float(getattr(Hyperparameters(), name))) for name in RULES}
    shown = {
        name: (model, float(default.replace("false", "0")))
        for name, (model, default, _) in rows("Hyperparameters of a run").items()
    }
    assert shown == expected


def test_every_call_is_in_the_table_of_the_api() -> None:
    """The table of the API names every call of the service once."""
    table = README[README.index("## The API") :].split("\n\n| ", 1)[1].split("\n\n")[0]
    named = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert sorted(named) == sorted(pb.DESCRIPTOR.services_by_name["TaskSelectionService"].methods_by_name)


def test_every_make_target_exists() -> None:
    """Each `make` target that a page names is in the Makefile."""
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z0-9]+)", page.read_text())) <= targets, page.name


def test_every_variable_of_the_server_exists() -> None:
    """Each BOTS_ variable that a page of the server names is a setting, or one of the client that the server knows."""
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES | CLIENT_TOKEN_VARIABLES
    others = {"BOTS_SECRETS", "BOTS_ADDRESS", "BOTS_IMAGE", "BOTS_REDIS_IMAGE"}  # of docker-compose.yml
    for page in {*PAGES} - {CLIENT}:
        assert set(re.findall(r"\bBOTS_[A-Z_]+", page.read_text())) <= settings | others, page.name


def test_every_panel_of_the_runbook_exists() -> None:
    """Each panel that the runbook names begins the title of a panel of that dashboard."""
    named = re.findall(r"\*(Service|Drift): ([^*]+)\*", " ".join((ROOT / "deploy/runbook.md").read_text().split()))
    assert len(named) > 5
    for board, panel in named:
        file = {"Service": "service.json", "Drift": "difficulty-drift.json"}[board]
        titles = re.findall(r'"title": "([^"]+)"', (ROOT / "deploy/grafana/dashboards" / file).read_text())
        assert any(title.startswith(panel) for title in titles), f"{board}: {panel}"


def test_every_link_leads_somewhere() -> None:
    """Each relative link of a page leads to a file, and to a heading of it if it names one."""
    for page in PAGES:
        for path, heading in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", page.read_text()):
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            assert not heading or heading in anchors(target), f"{page.name}: {path}#{heading}"


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
