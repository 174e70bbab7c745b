"""The keyword arguments that adapters share: how rows are tasks, and how rewards are successes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from bots.trainers.tasks import Field


class RowOptions(TypedDict, total=False):
    """As in `TaskRows`."""

    text: Field
    id: Field | None
    skip_unknown: bool
    select: Mapping[str, Any]


class RangeOptions(TypedDict, total=False):
    """As in `Batch.report_rewards`."""

    low: float
    high: float
    success: float | None


class RewardOptions(RangeOptions, total=False):
    """As in `MarkedRewards`."""

    every_seconds: float


class Options(RowOptions, RewardOptions, total=False):
    """Of an adapter that selects and reports."""


def split(options: Options) -> tuple[RowOptions, RewardOptions]:
    """Returns the options of the rows, and those of the rewards."""
    rows: Any = {name: value for name, value in options.items() if name not in RewardOptions.__annotations__}
    rewards: Any = {name: value for name, value in options.items() if name in RewardOptions.__annotations__}
    return rows, rewards
