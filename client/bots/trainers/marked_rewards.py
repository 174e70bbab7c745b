"""Rewards of marked rows, which arrive one rollout at a time and in any process, gathered into reports.

Trainers that score a rollout wherever a worker is free spread the rollouts of a task over processes, so that no process
has a whole group. Each process reports what came to it within some seconds; the service makes one update of all the
reports of a selection.
"""

from __future__ import annotations

import atexit
import itertools
import secrets
import threading
import weakref
from typing import Any

from bots import columns
from bots import rewards as rewards_
from bots.batch import joined
from bots.errors import invalid
from bots.reporting_rewards import keep_rewards
from bots.run import Batch, Run
from bots.trainers.marks import batch_of


class MarkedRewards:
    """Safe to share among threads and event loops: no method waits for the service. A pickled copy starts empty.

    run                 the run that selected the rows.
    every_seconds       how long rewards are gathered, at most.
    low, high, success  as in `Batch.report_rewards`.
    """

    def __init__(
        self,
        run: Run,
        *,
        every_seconds: float = 5.0,
        low: float = 0.0,
        high: float = 1.0,
        success: float | None = None,
    ) -> None:
        if not every_seconds > 0:
            raise invalid("every_seconds", every_seconds, "must be above 0")
        self.run = run
        self.every_seconds = every_seconds
        self.range: dict[str, Any] = {"low": low, "high": high, "success": success}
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[str, list[float | None]] = {}
        self._timer: threading.Timer | None = None
        # Each report is of other rollouts, so each is a part with a name of its own.
        self._token = secrets.token_hex(8)
        self._parts = itertools.count()
        _ALIVE.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def add(self, mark: str, *rewards: Any) -> None:
        """Adds rewards of rollouts of a marked row; None or NaN: it cannot be scored.

        InvalidArgumentError: it is not a mark, or a reward is not between `low` and `high`.
        """
        values = [columns.number("reward", columns.plain(reward)) for reward in rewards]
        rewards_.counts([values], 1, **self.range)
        batch_of(self.run, mark)
        with self._lock:
            self._groups.setdefault(mark, []).extend(values)
            if self._timer is None:
                self._timer = threading.Timer(self.every_seconds, self.send)
                self._timer.daemon = True
                self._timer.start()

    def send(self) -> None:
        """Reports the rewards that came, one report a selection, in the background."""
        with self._lock:
            groups, self._groups = self._groups, {}
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        selections: dict[str, list[tuple[Batch, list[float | None]]]] = {}
        for mark, rewards in groups.items():
            batch = batch_of(self.run, mark)
            selections.setdefault(batch.selection_id, []).append((batch, rewards))
        for parts in selections.values():
            parts.sort(key=lambda part: int(part[0].positions[0]))
            keep_rewards(
                joined([batch for batch, _ in parts]),
                [rewards for _, rewards in parts],
                part=f"{self._token}:{next(self._parts)}",
                **self.range,
            )


_ALIVE: weakref.WeakSet[MarkedRewards] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    for rewards in list(_ALIVE):
        rewards.send()
