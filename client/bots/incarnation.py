"""What tells one start of a job from the next, shared by all ranks of that start.

A selection by key is one batch for all ranks of one incarnation, and a new incarnation ends the leases of the one
before. The incarnation is, in this order:

 1. `Client(incarnation=...)`, at most 64 bytes.
 2. The environment variable BOTS_INCARNATION.
 3. What the launcher gives to all ranks of one start, and changes at each start:
      torchrun          TORCHELASTIC_RUN_ID and TORCHELASTIC_RESTART_COUNT, MASTER_ADDR, MASTER_PORT
      Slurm             SLURM_JOB_ID, SLURM_STEP_ID and SLURM_RESTART_COUNT
      Ray               RAY_JOB_ID
      Kubernetes        JOB_COMPLETION_INDEX is per pod: set BOTS_INCARNATION there
      others            MASTER_ADDR and MASTER_PORT (accelerate, DeepSpeed)
 4. A random text: this process alone. A fork keeps it; a spawned process gets it with the pickled client.

MASTER_ADDR and MASTER_PORT may be the same at the next start; two starts are then one incarnation: keys give the
batches of the first start for an hour, and leases of the first start run until they expire. Set BOTS_INCARNATION if
your launcher does that.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from bots.errors import invalid
from bots.request_ids import derived_digest

MOST_BYTES = 64

# The first set of variables whose first one is present; variables that are absent count as empty.
LAUNCHERS = (
    ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"),
    ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    ("RAY_JOB_ID",),
    ("MASTER_ADDR", "MASTER_PORT"),
)


def incarnation(given: str | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the incarnation of this process. InvalidArgumentError: the given one is longer than 64 bytes."""
    text = given if given is not None else environment.get("BOTS_INCARNATION")
    if text is not None:
        if not 1 <= len(text.encode()) <= MOST_BYTES:
            raise invalid("incarnation", f"{len(text.encode())} bytes", f"must be 1 to {MOST_BYTES} bytes")
        return text
    for names in LAUNCHERS:
        if environment.get(names[0]):
            return derived_digest(*(environment.get(name, "") for name in names)).hex()[:32]
    return secrets.token_hex(16)
