"""The turn of the call in progress: calls of one caller take turns, so that they do not crowd out those of others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import thread_time
from typing import Protocol


class Turns(Protocol):
    """Turns of one caller, and its time of a processor."""

    def begin(self) -> None:
        """Takes the first turn of a call. Raises DeadlineExceeded, ServerStopping; it has no turn then."""

    def resume(self) -> None:
        """Takes a further turn of a call. Raises as `begin` does, but the turn is to be given back in any case."""

    def release(self) -> None:
        """Gives a turn back."""

    def spend(self, seconds: float) -> None:
        """Takes seconds of a processor."""


_turns: ContextVar[Turns | None] = ContextVar("turns", default=None)


@contextmanager
def on_turn(turns: Turns) -> Iterator[None]:
    """Takes a turn for the duration of the block. Raises DeadlineExceeded, ServerStopping."""
    turns.begin()
    token = _turns.set(turns)
    try:
        yield
    finally:
        _turns.reset(token)
        turns.release()


@contextmanager
def off_turn() -> Iterator[None]:
    """Gives the turn to others for the duration of the block, which waits for Redis or for a lock.

    Raises DeadlineExceeded, ServerStopping if the call gets no further turn.
    """
    turns = _turns.get()
    if turns is None:
        yield
        return
    turns.release()
    try:
        yield
    finally:
        turns.resume()


def charged(work: Callable[[], None]) -> Callable[[], None]:
    """Returns work that another thread does for the caller of the call in progress, and whose time is the caller's."""
    turns = _turns.get()

    def do() -> None:
        since = thread_time()
        try:
            work()
        finally:
            if turns is not None:
                turns.spend(thread_time() - since)

    return do
