"""Log lines on stderr, as text for people or as JSON for machines; secrets are never in them.

Structured fields ride on a record as `extra={"fields": {...}}`.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


def start_logging(form: str, level: str) -> None:
    """Sets the process's log to lines of `form` ("text" or "json"), from severity `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info  select_batch OK 1.2 ms  dataset=guru-math run=qwen-7b`"""

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
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
