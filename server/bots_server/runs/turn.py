"""The turn of the call in progress: calls of one caller take turns, so that they do not crowd out those of others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import thread_time
from typing import Protocol


class Turns(Protocol):
    """Turns of one caller."""

    def begin(self, timeout: float | None) -> bool:
        """Takes the first turn of a call. Returns whether it was had in time."""

    def resume(self) -> None:
        """Takes a further turn of a call."""

    def release(self, seconds: float) -> None:
        """Gives a turn back that took so many seconds of a processor."""

    def spend(self, seconds: float) -> None:
        """Takes seconds of a processor without a turn."""


class _Turn:
    def __init__(self, turns: Turns) -> None:
        self.turns, self._since = turns, thread_time()

    def release(self) -> None:
        self.turns.release(thread_time() - self._since)

    def resume(self) -> None:
        self.turns.resume()
        self._since = thread_time()


_turn: ContextVar[_Turn] = ContextVar("turn")


@contextmanager
def on_turn(turns: Turns, timeout: float | None) -> Iterator[bool]:
    """Takes a turn for the duration of the block. Yields whether it was had in time."""
    if not turns.begin(timeout):
        yield False
        return
    turn = _Turn(turns)
    token = _turn.set(turn)
    try:
        yield True
    finally:
        _turn.reset(token)
        turn.release()


@contextmanager
def off_turn() -> Iterator[None]:
    """Gives the turn to others for the duration of the block, which waits for Redis or for a lock."""
    turn = _turn.get(None)
    if turn is None:
        yield
        return
    turn.release()
    try:
        yield
    finally:
        turn.resume()


def charged(work: Callable[[], None]) -> Callable[[], None]:
    """Returns work that another thread does for the caller of the call in progress, and whose time is the caller's."""
    turn = _turn.get(None)

    def do() -> None:
        since = thread_time()
        try:
            work()
        finally:
            if turn is not None:
                turn.turns.spend(thread_time() - since)

    return do
