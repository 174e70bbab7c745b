"""The README says what is so: its session runs, its tables are complete."""

import re
from pathlib import Path

import numpy as np
import pytest

import bots
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.process.settings import Settings
from tests.api.service import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """Returns the rows of the first table below a heading, by their first cell."""
    table = README[README.index(f"## {heading}") :].split("\n\n| ", 1)[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in table]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_session_runs(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of the README runs as it stands, given references and a policy."""
    session = re.search(r"```python\n(import bots\n.*?)```", README, re.DOTALL)
    assert session is not None
    rng = np.random.default_rng(0)
    given = {
        "weak": rng.random(100) / 2,
        "strong": rng.random(100) / 2 + 0.5,
        "steps": 3,
        "roll_out": lambda tasks, rollouts: rng.integers(0, rollouts + 1, len(tasks)),
    }
    with serving(redis_url) as service:
        connect = bots.Client
        monkeypatch.setattr(bots, "Client", lambda target: connect(service.address))
        exec(session[1], given)
    alpha = given["alpha"]
    assert isinstance(alpha, np.ndarray)
    assert alpha.shape == (100,)
    assert given["batch"].version == 2  # type: ignore[attr-defined]


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """The table of settings has every setting of the server with its default and description, and nothing more."""
    expected = {
        name: ["" if field.default is None else f"`{field.default}`", field.description]
        for name, field in Settings.model_fields.items()
    }
    assert rows("Configuration of the server") == expected


def test_every_hyperparameter_is_in_the_table_with_its_default() -> None:
    """The table of hyperparameters has every one with its default."""
    table = rows("Hyperparameters of a run")
    shown = {name: cells[0] for name, cells in table.items()}
    defaults = Hyperparameters()
    assert shown.keys() == set(Hyperparameters.__dataclass_fields__)
    assert {name: float(value.replace("false", "0")) for name, value in shown.items()} == {
        name: float(getattr(defaults, name)) for name in shown
    }


def test_every_link_leads_somewhere() -> None:
    """Each relative link of the README and of the pages below deploy leads to a file."""
    for page in [ROOT / "README.md", *ROOT.glob("deploy/**/*.md"), *ROOT.glob("tests/**/*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
