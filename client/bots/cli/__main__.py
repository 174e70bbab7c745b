"""The `bots` command: an error is one line, and the exit status tells its kind (numbers as in sysexits.h).

64  bad input: a value breaks a rule            73  the name is taken by other content, or a quota is used up
66  no such dataset, run, checkpoint, file      75  the service cannot do it now; the same command may succeed later
69  the service is away                         77  the token is not valid, or not for this
70  a fault of the service or of the command    78  not in this state: too few eligible tasks, a deleted run, ...
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> None:
    """Runs the command with the arguments of the process."""
    for package in ("typer", "rich", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            sys.exit(f"the bots command needs {package}: pip install 'bots-client[cli]'")

    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else gRPC logs every handshake that fails
    from bots.cli.app import app
    from bots.cli.connection import moved_to_front
    from bots.cli.console import complain
    from bots.errors import BotsError

    try:
        app(moved_to_front(sys.argv[1:]))
    except (BotsError, ValueError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            complain(f"{error.filename}: {error.strerror}")
        else:
            complain(" ".join(str(error).split()))
        sys.exit(exit_status(error))


def exit_status(error: Exception) -> int:
    """Returns the exit status for an error."""
    from bots import errors

    table: tuple[tuple[type[Exception], int], ...] = (
        (errors.NotFoundError, 66),
        (errors.AlreadyExistsError, 73),
        (errors.FailedPreconditionError, 78),
        (errors.UnauthenticatedError, 77),
        (errors.PermissionDeniedError, 77),
        (errors.QuotaExceededError, 73),
        (errors.InvalidArgumentError, 64),
        (errors.UnavailableError, 69),
        (errors.DeadlineExceededError, 69),
        (errors.TemporaryError, 75),
        (errors.BrokenError, 70),
        (OSError, 66),
        (ValueError, 64),
    )
    return next((status for kind, status in table if isinstance(error, kind)), 70)


if __name__ == "__main__":
    main()
