"""Whether the service can be reached, and the warnings when a trainer goes on without it."""

from __future__ import annotations

import logging
import threading
import time

from bots.errors import BotsError, unreachable

logger = logging.getLogger("bots")

FIRST_PROBE_SECONDS = 0.5
LONGEST_PROBE_SECONDS = 5.0


class Availability:
    """Opened by unreachability alone; safe to share among threads.

    While the service is unreachable, selections fall back at once and a background task asks for it, after
    `FIRST_PROBE_SECONDS` and then at doubling intervals up to `LONGEST_PROBE_SECONDS`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unreachable = False
        self._probe_at = 0.0
        self._pause = FIRST_PROBE_SECONDS
        self._error: BotsError | None = None
        # Of the outage that was announced: its begin, and what happened meanwhile.
        self._degraded_since: float | None = None
        self._selections = 0
        self._reports = 0

    @property
    def reachable(self) -> bool:
        """Whether the last call reached the service."""
        return not self._unreachable

    def lost(self, error: BotsError) -> None:
        """Notes a failed call; nothing happens if the service answered."""
        if not unreachable(error):
            return
        with self._lock:
            self._pause = min(2 * self._pause, LONGEST_PROBE_SECONDS) if self._unreachable else FIRST_PROBE_SECONDS
            self._unreachable = True
            self._error = error
            self._probe_at = time.monotonic() + self._pause

    def found(self) -> None:
        """Notes that the service answered."""
        with self._lock:
            self._unreachable = False

    def probe_in(self) -> float:
        """Returns the seconds until the service should be asked for."""
        return max(0.0, self._probe_at - time.monotonic())

    def degraded(self, error: BotsError | None, *, selections: int = 0, reports: int = 0) -> None:
        """Counts selections drawn and reports kept without the service; warns at the first."""
        with self._lock:
            first = self._degraded_since is None
            if first:
                self._degraded_since = time.monotonic()
                self._selections = self._reports = 0
            self._selections += selections
            self._reports += reports
        if first:
            logger.warning(
                "the service is away: tasks are drawn uniformly and reports are kept until then (%s)",
                error or self._error,
            )

    def restored(self) -> None:
        """Notes that a selection or a report succeeded; tells once what the outage cost."""
        if self._degraded_since is None:
            return
        with self._lock:
            since, self._degraded_since = self._degraded_since, None
        if since is not None:
            logger.warning(
                "the service is back after %.0f s: %d selections were drawn uniformly, %d reports were kept",
                time.monotonic() - since,
                self._selections,
                self._reports,
            )
