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
from bots_server.storage.v1 import storage_pb2 as storage
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
    if value is None or isinstance(value, (str, float, int)):
        return repr(value).encode()
    return b"(" + b",".join(map(encoded, value)) + b")"


class Identified(Protocol):
    """A request that may be repeated."""

    job: str
    request_id: str
    request_age_seconds: float


class Change:
    """A request that adds an event to a run, once however often it is repeated."""

    def __init__(self, store: Store, registry: Registry, run: Replica, request: Identified, *content: Content) -> None:
        """Raises InvalidField if the job, the id or its age breaks a rule."""
        self._store, self._registry, self._run = store, registry, run
        self._job, self._repeatable = checks.job(request.job), bool(request.request_id)
        self._id = checks.request_id(request.request_id) or str(uuid4())
        self._age_ms, self._digest = checks.request_age_ms(request.request_age_seconds), digest(*content)

    def first_answer(self) -> Appended | None:
        """Returns what the first call with this id answered; None: this may be the first.

        For a call that needs what may be deleted by the time of a repeat. Raises RequestIdReused.
        """
        return self._store.history.repeated(self._run.record, self._id, self._digest) if self._repeatable else None

    def append(
        self,
        event: Event,
        *,
        state: storage.Snapshot | None = None,
        checkpoint: str = "",
        expected_version: int | None = None,
        prefetch: bool = False,
    ) -> Appended:
        """Appends the event. Raises as `History.append` does.

        state:      what a Restored or Undone goes on from
        checkpoint: the name that a Restored goes back to
        prefetch:   draws for the next selection, in the background
        """
        stored = codec.stored_event(
            event,
            identity=caller().identity,
            job=self._job,
            request_id=self._id,
            state_uid="" if state is None else uuid4().hex,
            checkpoint=checkpoint,
        )
        appended = self._store.history.append(
            self._run.record,
            stored,
            request_id=self._id,
            digest=self._digest,
            request_age_ms=self._age_ms,
            expected_version=expected_version,
            state=state,
        )
        self._registry.appended(self._run, appended, prefetch=prefetch)
        return appended
