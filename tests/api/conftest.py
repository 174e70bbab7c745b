"""Fixtures: a server over an empty Redis, and one with a small dataset and a run."""

from collections.abc import Iterator

import pytest

from tests.api.service import Run, Service, serving

LETTERS = [chr(ord("a") + task) for task in range(26)]
TAGS = ["vowel" if letter in "aeiou" else "consonant" for letter in LETTERS]


@pytest.fixture
def service(redis_url: str) -> Iterator[Service]:
    """A server over an empty Redis."""
    with serving(redis_url) as service:
        yield service


@pytest.fixture
def letters(service: Service) -> Service:
    """A server with the dataset `letters` (26 tasks with ids and tags, no references) and its run `policy`."""
    service.dataset("letters", 26, ids=LETTERS, tags=TAGS)
    service.create("letters", "policy", model="EVIDENCE_MODEL_INTERPOLATION", rest=0)
    return service


@pytest.fixture
def policy(letters: Service) -> Run:
    """The run `policy` of `letters`: model interpolation, tasks do not rest."""
    return letters.run("letters", "policy")
