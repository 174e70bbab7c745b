"""The bench. Its own process computes in one thread, as a server does (`bots_server.process`)."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is first imported
