"""`bots watch`: a run's summary, live."""

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
from bots.cli import options
from bots.cli.connection import RunName, run_of
from bots.cli.console import out, show_json
from bots.cli.glance import glance
from bots.summary import Summary

RATE_SECONDS = 60.0


class Rate:
    """Updates per minute, over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def after(self, seconds: float, updates: float) -> float | None:
        """Returns the rate, given that `updates` had been made by the time `seconds`; None: too early to tell."""
        self._seen.append((seconds, updates))
        while len(self._seen) > 2 and self._seen[1][0] <= seconds - RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return 60 * (updates - before) / (seconds - since) if seconds > since else None


def watch(
    context: typer.Context,
    run: RunName,
    interval: Annotated[float, typer.Option(help="Seconds between looks, at least.")] = 1.0,
    as_json: options.Json = False,
) -> None:
    """Shows a run live, until Ctrl-C. With --json: a summary a line."""
    watched = run_of(context, run)
    if as_json:
        for summary in watched.watch(interval):
            show_json(summary)
    rate = Rate()
    shown: Summary | None = None
    with Live(Text(f"waiting for {run}"), console=out, auto_refresh=False) as live:
        while True:
            try:
                for shown in watched.watch(interval):
                    live.update(_now(shown, rate.after(time.monotonic(), shown.total.updates)), refresh=True)
            except bots.TemporaryError as error:
                away = Text(f"away, trying again: {error}", style="yellow")
                live.update(Group(_now(shown, None), away) if shown else away, refresh=True)
                time.sleep(interval)


def _now(summary: Summary, updates_per_minute: float | None) -> RenderableType:
    return glance(summary, updates_per_minute, datetime.now(timezone.utc))
