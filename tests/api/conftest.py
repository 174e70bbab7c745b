"""Fixtures: a server over an empty Redis, and one with a small dataset and a run."""

from collections.abc import Iterator

import pytest

import bots
from tests.api.service import Service, serving


@pytest.fixture
def service(redis_url: str) -> Iterator[Service]:
    """A server over an empty Redis."""
    with serving(redis_url) as service:
        yield service


@pytest.fixture
def letters(service: Service) -> Service:
    """A server with the dataset `letters` (26 tasks with ids, tags and no references) and its run `policy`."""
    ids = [chr(ord("a") + task) for task in range(26)]
    tags = ["vowel" if letter in "aeiou" else "consonant" for letter in ids]
    service.client.create_dataset("letters", size=26, ids=ids, tags=tags)
    service.client.create_run("letters", "policy", retention=bots.Retention(request_memory=1000))
    return service
