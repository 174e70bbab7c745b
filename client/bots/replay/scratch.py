"""Datasets that a command creates on a server and deletes again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from bots.client import Client


@contextmanager
def scratch_datasets(address: str, purpose: str) -> Iterator[str]:
    """Yields an unused prefix for names of datasets; deletes all datasets so named at exit."""
    prefix = f"{purpose}-{secrets.token_hex(4)}-"
    try:
        yield prefix
    finally:
        with Client(address, timeout=20, strict=True) as client:
            for name in [dataset.name for dataset in client.list_datasets()]:
                if name.startswith(prefix):
                    client.delete_dataset(name, delete_runs=True)
