"""The turn of the call in progress: calls of one caller take turns, so that they do not crowd out those of others."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Turns(Protocol):
    """Turns of one caller."""

    def acquire(self, timeout: float | None = None) -> bool:
        """Takes a turn. Returns whether it was had in time."""

    def release(self) -> None:
        """Gives a turn back."""


_turns: ContextVar[Turns] = ContextVar("turns")


@contextmanager
def on_turn(turns: Turns, timeout: float | None) -> Iterator[bool]:
    """Takes a turn for the duration of the block. Yields whether it was had in time."""
    if not turns.acquire(timeout=timeout):
        yield False
        return
    token = _turns.set(turns)
    try:
        yield True
    finally:
        _turns.reset(token)
        turns.release()


@contextmanager
def off_turn() -> Iterator[None]:
    """Gives the turn to others for the duration of the block, which waits for Redis or for a lock."""
    turns = _turns.get(None)
    if turns is None:
        yield
        return
    turns.release()
    try:
        yield
    finally:
        turns.acquire()
