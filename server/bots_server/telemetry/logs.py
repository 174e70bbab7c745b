"""Log lines on stderr, as text or as JSON. Secrets are never in them.

Records go through a queue to a thread of their own, so that a blocked stderr stops no call. If the queue is full, a
record is dropped and counted. When the process ends, queued records are written, and each later one, for instance of an
exit hook, before its call returns. A blocked stderr holds up the end once, for no longer than twice FLUSH_SECONDS.

Structured fields are attached to a record as `extra={"fields": {...}}`.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from queue import Full, Queue
from typing import Any

QUEUED_RECORDS = 10_000
WRITE_SECONDS = 0.1  # between writes while records come: to wake the thread for each record slows the calls
FLUSH_SECONDS = 2.0


class RecordQueue(QueueHandler):
    """Puts records into a bounded queue. If it has no room, the record is dropped and `on_drop` is called."""

    def __init__(self, queue: "Queue[Any]") -> None:
        super().__init__(queue)
        self.on_drop: Callable[[], object] = lambda: None
        self._records, self._ending, self._blocked = queue, False, False

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Returns the record as it is: the queue stays in this process."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self._records.put_nowait(record)
        except Full:
            self.on_drop()
        if self._ending:
            self.flush()

    def flush(self) -> None:
        """Returns when the queued records are written, or if stderr is blocked. `logging` calls it at exit."""
        if self._blocked:
            return
        self._blocked, written = True, threading.Event()
        with suppress(Full):
            self._records.put(written, timeout=FLUSH_SECONDS)
            self._blocked = not written.wait(FLUSH_SECONDS)

    def close(self) -> None:
        """Makes each later record wait until it is written. `logging` calls it at exit, before older exit hooks run."""
        self._ending = True
        super().close()


class Writer(threading.Thread):
    """Writes the records of a queue to stderr, a line each. Sets each event of the queue when it comes to it."""

    def __init__(self, queue: "Queue[Any]", formatter: logging.Formatter) -> None:
        super().__init__(name="log", daemon=True)
        self._queue, self._formatter = queue, formatter

    def run(self) -> None:
        while True:
            time.sleep(WRITE_SECONDS)
            for record in [self._queue.get() for _ in range(max(1, self._queue.qsize()))]:
                if isinstance(record, threading.Event):
                    record.set()
                    continue
                with suppress(Exception):  # of a record that has no text, or of a full disk: the log goes on
                    self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        """Writes a line at once, so that those of several processes do not mix."""
        left = f"{self._formatter.format(record)}\n".encode(errors="backslashreplace")
        while left:
            left = left[os.write(2, left) :]


def start_logging(form: str, level: str) -> RecordQueue:
    """Sets the process's log to lines of `form` ("text" or "json"), from severity `level` on. Returns its handler."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line shows them
    queue: Queue[Any] = Queue(QUEUED_RECORDS)
    Writer(queue, JsonFormatter() if form == "json" else TextFormatter()).start()
    handler = RecordQueue(queue)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    return handler


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info    SelectBatch OK 1.2 ms  dataset=guru-math run=qwen-7b`"""

    def format(self, record: logging.LogRecord) -> str:
        shown = {"method", "code", "seconds"}  # in the message already
        fields = "".join(f"  {key}={value}" for key, value in _fields(record).items() if key not in shown)
        line = f"{_time(record)} {record.levelname.lower():7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return dict(getattr(record, "fields", {}))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
