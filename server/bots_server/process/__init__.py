"""The process: settings, the gRPC server, worker processes, the private Valkey and the health check."""

import os

# The matrices of item_response are small: threads of the linear algebra cost more than they save. This must be set
# before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
