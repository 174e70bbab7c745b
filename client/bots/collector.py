"""Rewards that arrive one rollout at a time, gathered into reports.

    collector = bots.Collector(run, rollouts=8)
    batch = run.select(32, lease_seconds=3600)
    collector.expect(batch)
    collector.add(task_id, reward)        # from any thread, also inside an event loop: it never waits for the service

A group is the rollouts of one task of one selection. It is reported when it has all its rewards; with `by="selection"`
when all groups of its selection have. A group that has not, `wait_seconds` after it was expected, is reported with the
rewards that came; a reward that comes later is reported by itself. Tasks without any reward are released.

A copy of a collector in another process (pickled or forked) starts empty and reports what is added to it, as parts of
the same selections, when its groups are full, at `flush`, and after `wait_seconds`.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from bots import columns
from bots.batch import joined
from bots.errors import invalid
from bots.reporting_rewards import keep_rewards
from bots.run import Batch, Run

MOST_DONE = 4_096

Key = tuple[str, int]  # selection id, position in the selection


@dataclass(eq=False)
class _Group:
    """Rewards of one task of a selection. due: time.monotonic() when it is reported with what came."""

    batch: Batch  # of this task alone
    due: float
    rewards: list[float | None] = field(default_factory=list)
    done: bool = False


class Collector:
    """Safe to share among threads; a context manager that flushes.

    run           the run whose selections are collected.
    rollouts      number of rewards of each task; None: groups are reported by `flush` and after `wait_seconds`.
    by            "group": one report a task; "selection": one report a selection.
    wait_seconds  time for stragglers, since `expect` or the first reward.
    low, high, success  as in `Batch.report_rewards`.
    """

    def __init__(
        self,
        run: Run,
        *,
        rollouts: int | None = None,
        by: Literal["group", "selection"] = "group",
        wait_seconds: float = 3600.0,
        low: float = 0.0,
        high: float = 1.0,
        success: float | None = None,
    ) -> None:
        if by not in ("group", "selection"):
            raise invalid("by", repr(by), 'must be "group" or "selection"')
        if not wait_seconds > 0:
            raise invalid("wait_seconds", wait_seconds, "must be above 0")
        self.run = run
        self.rollouts = None if rollouts is None else columns.whole("rollouts", columns.plain(rollouts))
        self.by = by
        self.wait_seconds = wait_seconds
        self.range: dict[str, Any] = {"low": low, "high": high, "success": success}
        self._reset(copy=False)

    def _reset(self, *, copy: bool) -> None:
        self._lock = threading.RLock()
        self._groups: dict[Key, _Group] = {}
        self._timer: threading.Timer | None = None
        # Reports of the original have the batch's own ids; those of copies, and late ones, are parts with names.
        self._token = secrets.token_hex(8) if copy else ""
        self._parts = itertools.count()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset(copy=True)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()

    def expect(self, batch: Batch) -> None:
        """Waits for the rewards of a batch; `add` then takes its tasks alone."""
        with self._lock:
            for one in batch:
                self._group(one)
            self._schedule()

    def add(self, where: Batch | Any, reward: Any) -> None:
        """Adds the reward of one rollout; None or NaN if it cannot be scored. Reports what is complete by it, in the
        background.

        where  a batch of one task (`batch[3]`), or a task of an expected batch: its id if the dataset has ids, else its
               row number. Of several expected selections the oldest that lacks a reward is meant.
        """
        value = columns.number("reward", columns.plain(reward))
        with self._lock:
            group = self._group(where) if isinstance(where, Batch) else self._find(where)
            if group.done:
                self._report([group], [[value]], late=True)
                return
            group.rewards.append(value)
            if self._complete(group):
                siblings = [other for key, other in self._groups.items() if key[0] == group.batch.selection_id]
                if self.by == "group":
                    self._finish([group])
                elif len(siblings) == group.batch.size and all(map(self._complete, siblings)):
                    self._finish(siblings)
            self._schedule()

    def flush(self, timeout: float | None = None) -> None:
        """Reports every reward that came, and delivers the reports; groups without any reward stay expected.

        DeadlineExceededError: some wait still when `timeout` seconds (None: the client's) are over.
        """
        with self._lock:
            self._finish([group for group in self._groups.values() if group.rewards and not group.done])
        self.run.flush(timeout)

    def release(self) -> int:
        """Reports every reward that came, and gives up the tasks without any; returns the number of leases ended."""
        with self._lock:
            groups = [group for group in self._groups.values() if not group.done]
            empty = [group for group in groups if not group.rewards]
            self._finish([group for group in groups if group.rewards])
            self._forget(empty)
        return sum(group.batch.release() for group in empty)

    @property
    def open_groups(self) -> int:
        """Number of tasks whose rewards are not complete."""
        return sum(not group.done for group in self._groups.values())

    def _group(self, batch: Batch) -> _Group:
        if len(batch) != 1:
            raise invalid("where", f"a batch of {len(batch)} tasks", "must be a task or a batch of one task")
        key = batch.selection_id, int(batch.positions[0])
        if key not in self._groups:
            self._groups[key] = _Group(batch, time.monotonic() + self.wait_seconds)
        return self._groups[key]

    def _find(self, task: Any) -> _Group:
        task = columns.plain(task)
        matching = [group for group in self._groups.values() if _is(group.batch, task)]
        for group in matching:
            if not group.done:
                return group
        if matching:
            return matching[-1]
        raise invalid("where", repr(task), "must be a task of an expected batch")

    def _complete(self, group: _Group) -> bool:
        return group.done or (self.rollouts is not None and len(group.rewards) >= self.rollouts)

    def _finish(self, groups: list[_Group]) -> None:
        groups = [group for group in groups if not group.done]
        selections = {group.batch.selection_id: group.batch for group in groups}
        for selection_id in selections:
            part = [group for group in groups if group.batch.selection_id == selection_id]
            if self.by == "group":
                for group in part:
                    self._report([group], [group.rewards])
            else:
                self._report(part, [group.rewards for group in part])
        for group in groups:
            group.done, group.rewards = True, []
        self._trim()

    def _report(self, groups: list[_Group], rewards: list[list[float | None]], *, late: bool = False) -> None:
        order = sorted(range(len(groups)), key=lambda at: int(groups[at].batch.positions[0]))
        batch = joined([groups[at].batch for at in order])
        part = f"{self._token}:{next(self._parts)}" if late or self._token else ""
        keep_rewards(batch, [rewards[at] for at in order], part=part, **self.range)

    def _forget(self, groups: list[_Group]) -> None:
        self._groups = {key: group for key, group in self._groups.items() if group not in groups}

    def _trim(self) -> None:
        """Forgets selections that are done, but for the newest, so that late rewards are recognised for a while."""
        done = [key for key, group in self._groups.items() if group.done]
        for key in done[: max(0, len(done) - MOST_DONE)]:
            del self._groups[key]

    def _schedule(self) -> None:
        due = min((group.due for group in self._groups.values() if not group.done), default=None)
        if due is None or (self._timer is not None and self._timer.is_alive()):
            return
        self._timer = threading.Timer(max(0.0, due - time.monotonic()), self._tick)
        self._timer.daemon = True
        self._timer.start()

    def _tick(self) -> None:
        with self._lock:
            late = [group for group in self._groups.values() if not group.done and group.due <= time.monotonic()]
            empty = [group for group in late if not group.rewards]
            self._finish([group for group in late if group.rewards])
            self._forget(empty)
            self._timer = None
            self._schedule()
        for group in empty:
            group.batch.release()


def _is(batch: Batch, task: Any) -> bool:
    if batch.ids is not None:
        return batch.ids[0] == columns.text("where", task)
    return int(batch.tasks[0]) == columns.whole("where", task)
