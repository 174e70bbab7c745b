"""The access log: one line a call, with the names in it and without control characters."""

import logging
import re
from collections.abc import Mapping

access_log = logging.getLogger("bots_server.access")

VALUE_CHARACTERS = 200
MESSAGE_CHARACTERS = 1_000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def log_call(method: str, code: str, seconds: float, message: str, fields: Mapping[str, str | int]) -> None:
    """Logs a call that ended. `message` is of its error; `fields` may hold what the caller sent."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    shown = {
        name: clean(value, VALUE_CHARACTERS) if isinstance(value, str) else value for name, value in fields.items()
    }
    access_log.info(
        "%s %s %.1f ms%s",
        method,
        code,
        seconds * 1e3,
        f": {clean(message, MESSAGE_CHARACTERS)}" if message else "",
        extra={"fields": {"method": method, "code": code, "seconds": round(seconds, 6), **shown}},
    )


def clean(text: str, characters: int) -> str:
    """Returns text with control characters escaped, cut to a number of characters."""
    cut = text if len(text) <= characters else text[:characters] + "…"
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", cut)
