"""Selected rows for trainers that ask for one row, or a few, at a time."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from bots.trainers.marks import marks
from bots.trainers.tasks import TaskRows

MarkedRow = tuple[int, str]  # row number in the trainer's dataset, mark


class RowSupply:
    """Hands out rows of selections of at least `batch_size` tasks, so that the rows of a step are one update.

    rows        the trainer's dataset as the run's tasks.
    batch_size  number of tasks of a selection; the trainer's batch.
    policy_step of the selections to come; None: not known.
    ahead       select in a thread when half of the last selection is handed out, so that an event loop does not wait.
    """

    def __init__(self, rows: TaskRows, batch_size: int, *, ahead: bool = False) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.policy_step: int | None = None
        self._waiting: deque[MarkedRow] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bots-select") if ahead else None
        self._next: Future[list[MarkedRow]] | None = None

    def take(self, count: int) -> list[MarkedRow]:
        """Returns the next rows with their marks."""
        while len(self._waiting) < count:
            if self._next is not None:
                future, self._next = self._next, None
                self._waiting.extend(future.result())
            else:
                self._waiting.extend(self._select(max(self.batch_size, count - len(self._waiting))))
        taken = [self._waiting.popleft() for _ in range(count)]
        if self._executor is not None and self._next is None and len(self._waiting) <= self.batch_size // 2:
            self._next = self._executor.submit(self._select, self.batch_size)
        return taken

    def _select(self, count: int) -> list[MarkedRow]:
        batch = self.rows.select(count, policy_step=self.policy_step)
        return list(zip(self.rows.rows_of(batch), marks(batch), strict=True))
