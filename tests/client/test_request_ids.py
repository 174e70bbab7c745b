"""Ids that make a call safe to repeat."""

from __future__ import annotations

import time
import uuid

import bots


def test_ids_are_uuids_of_version_7() -> None:
    """An id is the 36-character text of a UUID of version 7 and the RFC's variant, with the present time in it."""
    before = time.time_ns() // 1_000_000
    text = bots.new_request_id()
    after = time.time_ns() // 1_000_000
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert len(text) == 36
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert before <= parsed.int >> 80 <= after


def test_ids_are_distinct_and_in_the_order_of_the_calls() -> None:
    """Ids of one process never collide, and later ones sort behind those of another microsecond before."""
    ids = []
    for _ in range(200):
        ids.append(bots.new_request_id())
        moment = time.time_ns()
        while time.time_ns() < moment + 1_000:
            pass
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == ids
