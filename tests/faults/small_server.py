"""`bots-server` with a short memory, so that tests meet snapshots and a trimmed history soon.

python -m tests.faults.small_server SNAPSHOT_EVENTS HISTORY_EVENTS HISTORY_STRIDE FLAGS...
"""

import sys

from bots_server.store import history

if __name__ == "__main__":
    history.SNAPSHOT_EVENTS, history.HISTORY_EVENTS, history.HISTORY_STRIDE = map(int, sys.argv[1:4])
    del sys.argv[1:4]

    from bots_server.process.main import main

    main()
