"""What makes a call safe to repeat: an id, and a digest of what it asks for (guarantee 1)."""

import hashlib
from collections.abc import Iterable
from typing import Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from bots_server.api import checks
from bots_server.api.callers import caller
from bots_server.core.posterior import Event
from bots_server.runs.registry import Registry
from bots_server.runs.replica import Replica
from bots_server.store import Appended, Store, codec

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


class Identified(Protocol):
    """A request that may be repeated."""

    job: str
    request_id: str
    request_age_seconds: float


def identified(request: Identified) -> tuple[str, int]:
    """Returns the id of a request, a new one if it has none, and its age in milliseconds. Raises InvalidField."""
    checks.job(request.job)
    return checks.request_id(request.request_id) or str(uuid4()), checks.request_age_ms(request.request_age_seconds)


def append(
    store: Store,
    registry: Registry,
    run: Replica,
    request: Identified,
    event: Event,
    *content: Content,
    prefetch: bool = False,
) -> Appended:
    """Appends the event of a request with this content, once however often it is repeated."""
    request_id, age_ms = identified(request)
    appended = store.history.append(
        run.record,
        codec.stored_event(event, identity=caller().identity, job=request.job, request_id=request_id),
        request_id=request_id,
        digest=digest(*content),
        request_age_ms=age_ms,
    )
    registry.appended(run, appended, prefetch=prefetch)
    return appended
