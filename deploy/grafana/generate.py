"""Generate the dashboards of deploy/grafana/dashboards; with --check, say which committed ones are stale."""

import argparse
import json
import sys
from pathlib import Path

from drift import drift
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from service import service

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"


def text(board: Dashboard) -> str:
    """Returns the dashboard as JSON, its panels numbered."""
    built = board.build()
    for identity, panel in enumerate(built.panels or (), start=1):
        panel.id_val = identity
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a committed file is stale")
    check = parser.parse_args().check
    stale = []
    for name, board in {"difficulty-drift": drift(), "service": service()}.items():
        path = DASHBOARDS / f"{name}.json"
        if path.exists() and path.read_text() == text(board):
            continue
        stale.append(path)
        if not check:
            path.write_text(text(board))
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path}")  # noqa: T201
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
