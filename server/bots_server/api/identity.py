"""What makes a call safe to repeat: an id, and a digest of what it asks for."""

import hashlib
from collections.abc import Iterable
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

Content = str | float | bool | None | NDArray[np.generic] | Iterable["Content"]


def digest(*content: Content) -> bytes:
    """Returns 8 bytes that differ if the content of a request does.

    The content is the values that are asked for, not their encoding, so that builds that know different fields and
    versions of protobuf agree. The job, the id and its age are no content.
    """
    return hashlib.blake2b(encoded(content), digest_size=8).digest()


def encoded(value: Content) -> bytes:
    """Returns a value as bytes that no other value has."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}".encode() + value.tobytes()
    if isinstance(value, str | float | int | None):
        return repr(value).encode()
    return b"(" + b",".join(map(encoded, value)) + b")"


def new_request_id() -> str:
    """Returns the id of a call that came without one."""
    return str(uuid4())
