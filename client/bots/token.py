"""The token that a client sends as `authorization: Bearer`: a text, or what a file holds at each call."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from bots.errors import InvalidArgumentError, invalid

# gRPC refuses metadata of more than 8 KiB, in words that do not name the token; other entries have the last of them.
_MOST = 7168
_TOKEN = re.compile(rf"[!-~]{{1,{_MOST}}}")


class Token:
    """A token. It does not stand in a repr; of a file, a pickle has the path alone.

    A file is read at each call, so that a token is renewed without a restart. While it cannot be read, or holds no
    token, the last one is sent. InvalidArgumentError: it holds no token at the start. OSError: it cannot be read.
    """

    def __init__(self, text: str | None, path: str | os.PathLike[str] | None = None) -> None:
        if text is not None and path is not None:
            raise invalid("token", "both token and token_file", "must be one of them")
        self._path = None if path is None else os.fspath(path)
        self._text = None if text is None else _checked("token", text)
        if self._path is not None:
            self._text = self._read(self._path)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call."""
        if self._path is not None:
            with contextlib.suppress(OSError, InvalidArgumentError):  # the service says whether the last one is valid
                self._text = self._read(self._path)
        return () if self._text is None else (("authorization", f"Bearer {self._text}"),)

    def __reduce__(self) -> tuple[Any, ...]:
        return Token, (self._text if self._path is None else None, self._path)

    @staticmethod
    def _read(path: str) -> str:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return _checked(f"token_file {path!r}", file.read())


def _checked(field: str, text: str) -> str:
    """Returns a token without the blanks around it, which files end with. Raises InvalidArgumentError."""
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        rule = "must be printable ASCII characters without blanks"
        raise invalid(field, f"{len(token)} characters", f"{rule}, between 1 and {_MOST}")
    return token
