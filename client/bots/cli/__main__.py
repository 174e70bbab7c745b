"""The `bots` command: what goes wrong is one line and exit status 1."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Runs the command with the arguments of the process."""
    for package in ("typer", "rich", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            sys.exit(f"the bots command needs {package}: pip install 'bots-client[cli]'")

    from bots.cli.app import app
    from bots.cli.console import complain
    from bots.errors import BotsError

    try:
        app()
    except (BotsError, ValueError, OSError) as error:
        complain(" ".join(str(error).split()))
        sys.exit(1)


if __name__ == "__main__":
    main()
