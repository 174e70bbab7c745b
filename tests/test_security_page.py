"""SECURITY.md: its tests and settings exist, its command starts a server that lacks nothing, and it is short."""

import re
import shlex
from pathlib import Path

import pytest

from bots_server.process.settings import CLIENT_VARIABLES, PREFIX, Settings, settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("file", "name"), NAMED, ids="::".join)
def test_every_named_test_exists(file: str, name: str) -> None:
    """Each `file::name` is a test below `tests/`."""
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)


def test_every_threat_has_a_test() -> None:
    """Each row of the table names what protects, and a test that shows it."""
    table = PAGE[PAGE.index("## Threats") :].split("\n\n| ", 1)[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) > 20
    for row in table:
        *_, protection, tests = row.strip("|").split("|")
        assert protection.strip(), row
        assert "::" in tests, row
    assert PAGE.count("::test_") == len(NAMED)


def test_every_named_setting_exists() -> None:
    """Each flag and each BOTS_ variable is one of the server."""
    flags = {name.replace("-", "_") for name in re.findall(r"(?<=--)[a-z][a-z-]+", PAGE)}
    assert len(flags) > 10
    assert flags <= Settings.model_fields.keys()
    variables = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    assert set(re.findall(r"\bBOTS_[A-Z_]+\b", PAGE)) - {PREFIX} <= variables


def test_hardened_command_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are accepted for a server that others reach, without --insecure."""
    for name in (*(f"{PREFIX}{field.upper()}" for field in Settings.model_fields), *CLIENT_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    (command,) = re.findall(r"^```sh\nbots-server (.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    chosen = settings(shlex.split(command.replace("\\\n", " ")))
    assert (chosen.open_to_others, chosen.lacking, chosen.insecure) == (True, "", False)


def test_page_is_short() -> None:
    """It has fewer than 120 lines."""
    assert len(PAGE.splitlines()) < 120
