"""Ids that make a call safe to repeat."""

from __future__ import annotations

import uuid

from bots.request_ids import derived_request_id, new_request_id


def test_fresh_ids_are_uuids_and_differ() -> None:
    """A fresh id is a random UUID in its 36-character form."""
    ids = {new_request_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(str(uuid.UUID(one)) == one for one in ids)


def test_derived_ids_are_equal_for_equal_parts_alone() -> None:
    """Equal parts give one UUID of version 8; other parts, or the same text cut elsewhere, another."""
    one = derived_request_id("report", "abc", [0, 2])
    assert one == derived_request_id("report", "abc", [0, 2])
    assert uuid.UUID(one).version == 8
    assert uuid.UUID(one).variant == uuid.RFC_4122
    others = [("report", "abc", [0]), ("reporta", "bc", [0, 2]), ("report", "abc", "[0,", "2]")]
    assert len({one, *(derived_request_id(*parts) for parts in others)}) == 4
