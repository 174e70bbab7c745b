"""What is promised stands as the same sentence in the proto, in the README, in code and in a test."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "proto" / "bots" / "v1" / "task_selection.proto"


def plain(text: str) -> str:
    """Returns text without comment marks, list marks, markup and line breaks, so that sentences can be compared."""
    return re.sub(r"\s+", " ", re.sub(r"^\s*(//|#|--|\*|\d\.)*", " ", text.replace("`", ""), flags=re.MULTILINE))


def promises() -> list[str]:
    """Returns the seven promises of the proto's head."""
    text = PROTO.read_text()
    head = text[text.index("What is promised:") : text.index("Errors are canonical")]
    found = re.split(r"^//\s+\d\. ", head, flags=re.MULTILINE)[1:]
    return [plain(promise).strip() for promise in found]


def corpus(*patterns: str) -> str:
    """Returns all that the files say."""
    paths = [path for pattern in patterns for path in ROOT.glob(pattern) if "_pb2" not in path.name]
    assert paths
    return plain("\n".join(path.read_text() for path in sorted(paths) if path != Path(__file__)))


PLACES = {
    "README": ("README.md",),
    "code": ("server/**/*.py", "server/**/*.lua", "client/**/*.py"),
    "tests": ("tests/**/*.py",),
}


def test_there_are_seven() -> None:
    """The proto's head lists seven promises."""
    assert len(promises()) == 7


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", range(1, 8))
def test_a_promise_is_the_same_sentence_everywhere(number: int, place: str) -> None:
    """A promise that only one place makes is nobody's."""
    assert promises()[number - 1] in corpus(*PLACES[place])
