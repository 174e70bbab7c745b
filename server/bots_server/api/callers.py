"""Who calls: the caller of the call in progress."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """A caller that is known.

    identity: empty if callers have none
    """

    identity: str = ""


def caller() -> Caller:
    """Returns the caller of the call in progress."""
    return Caller()
