"""The process: settings, the gRPC server, worker processes, the private Valkey and the health check."""

import os

# The matrices of item_response are small: threads of the linear algebra cost more than they save. This must be set
# before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# gRPC's own log is a line on stderr for each call and each handshake that it refuses, from the threads that serve.
# Callers without a token could fill the disk, or stop the server if nobody reads stderr. This must be set before grpc
# is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
