"""Ids that make a call safe to repeat."""

from __future__ import annotations

import secrets
import time
import uuid


def new_request_id() -> str:
    """Returns a fresh UUID of version 7 (RFC 9562) in its 36-character text form.

    48 bits of Unix milliseconds, then 12 bits of the fraction of the millisecond (section 6.2, method 3), so that the
    ids of one process are in the order of its calls, then 62 random bits.
    """
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    bits = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))
