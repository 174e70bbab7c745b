"""Runs the scripts of `lua/`: one atomic transition each."""

from __future__ import annotations

from bots_server.store.connection import Client
from bots_server.store.durability import Durability


class Scripts:
    def __init__(self, client: Client, durability: Durability) -> None:
        self.client = client
        self.durability = durability
