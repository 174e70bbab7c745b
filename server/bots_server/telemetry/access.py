"""The access log: one line a call, with the names in it and without control characters."""

import logging
import threading
import time
from collections.abc import Mapping

access_log = logging.getLogger("bots_server.access")

VALUE_CHARACTERS = 200
MESSAGE_CHARACTERS = 1_000


def log_call(method: str, code: str, seconds: float, message: str, fields: Mapping[str, str | int]) -> None:
    """Logs a call that ended. `message` is of its error; `fields` may hold what the caller sent."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    shown = {
        name: clean(value, VALUE_CHARACTERS) if isinstance(value, str) else value
        for name, value in fields.items()
        if value != ""
    }
    told = method, code, seconds * 1e3, f": {clean(message, MESSAGE_CHARACTERS)}" if message else ""
    extra = {"fields": {"method": method, "code": code, "seconds": round(seconds, 6), **shown}}
    # Not `info`, which looks for the line of its caller.
    access_log.handle(
        access_log.makeRecord(access_log.name, logging.INFO, "", 0, "%s %s %.1f ms%s", told, None, extra=extra)
    )


def clean(text: str, characters: int) -> str:
    """Returns text cut to a number of characters, with those escaped that are not printed as themselves."""
    cut = text if len(text) <= characters else text[:characters] + "…"
    if cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in cut)


class Sampled:
    """Picks at most `limit` of the things that happen in a second. Safe to share among threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._second, self._picked = 0, 0

    def next(self) -> bool:
        """Returns whether the thing that happens now is picked."""
        second = int(time.monotonic())
        with self._lock:
            self._picked = self._picked + 1 if second == self._second else 1
            self._second = second
            return self._picked <= self._limit
