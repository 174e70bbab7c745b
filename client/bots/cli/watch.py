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
from bots.cli import options
from bots.cli.connection import RunName, run_of
from bots.cli.console import out, show_json
from bots.cli.glance import glance, position
from bots.summary import Summary

RATE_SECONDS = 60.0
TREND = 40  # values shown


class Rate:
    """Updates per minute, over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def after(self, seconds: float, updates: float) -> float | None:
        """Returns the rate, given the number of updates up to the time `seconds`; None at the first call."""
        self._seen.append((seconds, updates))
        while len(self._seen) > 2 and self._seen[1][0] <= seconds - RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return 60 * (updates - before) / (seconds - since) if seconds > since else None


def watch(
    context: typer.Context,
    run: RunName,
    interval: Annotated[float, typer.Option(help="Seconds between two views, at least.")] = 1.0,
    as_json: options.Json = False,
) -> None:
    """Shows a run live until Ctrl-C: pass rates, coverage, the model and its predictions. --json: a line a summary."""
    watched = run_of(context, run)
    if as_json:
        for summary in watched.watch(interval):
            show_json(summary)
    rate = Rate()
    trend: deque[float] = deque(maxlen=TREND)
    view: RenderableType = Text(f"waiting for {run}")
    with Live(view, console=out, auto_refresh=False) as live:
        while True:
            try:
                for summary in watched.watch(interval):
                    view = _view(summary, rate, trend)
                    live.update(view, refresh=True)
            except bots.TemporaryError as error:
                live.update(Group(view, Text(f"away, trying again: {error}", style="yellow")), refresh=True)
                time.sleep(interval)


def _view(summary: Summary, rate: Rate, trend: deque[float]) -> RenderableType:
    """Returns the glance after one more summary."""
    where = position(summary)
    if where is not None:
        trend.append(where)
    per_minute = rate.after(time.monotonic(), summary.updates)
    return glance(summary, per_minute, datetime.now(timezone.utc), trend)
