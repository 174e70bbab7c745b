"""`bots watch`: a run at a glance, live."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timezone
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

import bots
from bots.cli.connection import RunName, run_of
from bots.cli.console import out
from bots.cli.glance import glance
from bots.summary import Summary

RATE_SECONDS = 60.0


class Rate:
    """Reports per minute, over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def after(self, seconds: float, reports: float) -> float | None:
        """Returns the rate when `reports` had come by the time `seconds`; None: too early to tell."""
        self._seen.append((seconds, reports))
        while len(self._seen) > 2 and self._seen[1][0] <= seconds - RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return 60 * (reports - before) / (seconds - since) if seconds > since else None


def watch(
    context: typer.Context,
    run: RunName,
    interval: Annotated[float, typer.Option(help="Look at most once in so many seconds.")] = 1.0,
) -> None:
    """Shows a run live, until Ctrl-C: the histogram of posterior means, capability, prediction error, and more."""
    watched = run_of(context, run)
    rate = Rate()
    shown: Summary | None = None
    with Live(Text(f"waiting for {run}"), console=out, auto_refresh=False) as live:
        while True:
            try:
                for shown in watched.watch(interval):
                    live.update(_now(shown, rate.after(time.monotonic(), shown.total.reports)), refresh=True)
            except bots.TemporaryError as error:
                away = Text(f"away, trying again: {error}", style="yellow")
                live.update(Group(_now(shown, None), away) if shown else away, refresh=True)
                time.sleep(interval)


def _now(summary: Summary, reports_per_minute: float | None) -> RenderableType:
    return glance(summary, reports_per_minute, datetime.now(timezone.utc))
