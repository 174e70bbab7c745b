"""What makes a call safe to repeat: its id, and a digest of its content."""

import hashlib
import os
import time
from uuid import UUID

from google.protobuf.message import Message


def content_digest(request: Message) -> bytes:
    """Returns 8 bytes that tell the content of a request from another under the same id.

    Who asks, under which id, and of which run are no content: a client that has learned the run's uid since, or a job
    that was renamed, repeats the same request.
    """
    content = type(request)()
    content.CopyFrom(request)
    for name in ("request_id", "run_uid", "job"):
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    return hashlib.blake2b(content.SerializeToString(deterministic=True), digest_size=8).digest()


def uuid7() -> str:
    """Returns a UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, then random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(UUID(int=value))
