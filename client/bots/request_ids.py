"""Ids that make a call safe to repeat."""

from __future__ import annotations

import hashlib
import uuid


def new_request_id() -> str:
    """Returns a fresh random UUID in its 36-character text form."""
    return str(uuid.uuid4())


def derived_request_id(*parts: object) -> str:
    """Returns the UUID (version 8, RFC 9562) that SHA-256 makes of the parts: equal parts give equal ids anywhere."""
    digest = derived_digest(*parts)
    bits = int.from_bytes(digest[:16], "big")
    bits = bits & ~(0xF << 76) | 0x8 << 76
    bits = bits & ~(0b11 << 62) | 0b10 << 62
    return str(uuid.UUID(int=bits))


def derived_digest(*parts: object) -> bytes:
    """Returns SHA-256 over the parts' text, each after its length."""
    digest = hashlib.sha256(b"bots")
    for part in parts:
        text = str(part).encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()
