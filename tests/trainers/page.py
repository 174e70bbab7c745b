"""The examples of client/TRAINERS.md, which the tests run as a user pastes them."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "client" / "TRAINERS.md"


# The names of the page, and those of the tests' server, run and job.
NAMES = {'"gsm8k"': '"sums"', 'job="qwen-7b"': 'job="trainer"', '"qwen-7b"': '"r"'}


def example(heading: str, address: str, place: int = 0) -> str:
    """Returns the Python of a section, by how its heading begins, for a server at `address` and the run sums/r.

    place  of the block in the section.
    """
    (section,) = (part for part in PAGE.read_text().split("\n## ") if part.startswith(heading))
    code: str = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[place]
    for name, given in {"localhost:50051": address, **NAMES}.items():
        code = code.replace(name, given)
    return code
