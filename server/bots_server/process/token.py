"""`bots-server token create`: makes a token, and the line of the tokens file that admits its holder."""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence

from bots_server.api.callers import ROLES, hashed, parse_line


def main(arguments: Sequence[str]) -> None:
    """Prints a new token on stdout, the only time that it is shown, and its line on stderr or into the file."""
    parser = argparse.ArgumentParser(prog="bots-server token")
    create = parser.add_subparsers(required=True, metavar="create").add_parser(
        "create", help="make a token and its line of the tokens file"
    )
    create.add_argument("--identity", required=True, help="name of the holder in logs, history and leases")
    create.add_argument("--role", required=True, choices=ROLES, help="what the holder may do")
    create.add_argument("--datasets", default="*", help="patterns of dataset names, with commas; default: *, all")
    create.add_argument("--file", help="tokens file to append the line to; a new one is readable by its owner alone")
    chosen = parser.parse_args(arguments)
    token = f"bots_{secrets.token_urlsafe(32)}"
    words = chosen.identity, chosen.role, chosen.datasets, hashed(token)
    try:
        parse_line(words)
        append(chosen.file, "  ".join(words))
    except (OSError, ValueError) as error:
        raise SystemExit(f"bots-server token: {error}") from None
    print(token)  # noqa: T201


def append(path: str | None, line: str) -> None:
    """Appends a line to a file, on a line of its own; without a path it is shown."""
    if path is None:
        print(f"Append this line to the server's tokens file:\n{line}", file=sys.stderr)  # noqa: T201
        return
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        unended = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * unended + line.encode() + b"\n")
