"""Checksums of stored values: CRC-32 finds every flipped bit, and with its place a value that lies under another name.

Values that scripts make have the first 32 bits of SHA-1 instead, because that is what Redis' Lua offers
(`lua/include/head.lua`).
"""

from __future__ import annotations

import hashlib
import zlib

from bots_server.errors import Damaged, DatasetDamaged, RunDamaged

SEAL_BYTES = 4


def seal(value: bytes, place: str | bytes) -> bytes:
    """Returns a value with the checksum of its place and itself.

    place: what tells the value from its neighbours: the field of a hash, the number of a chunk
    """
    return value + _checksum(value, place)


def intact(stored: bytes, place: str | bytes) -> bool:
    """Returns whether a sealed value is what was sealed for this place."""
    return stored[-SEAL_BYTES:] == _checksum(memoryview(stored)[:-SEAL_BYTES], place)


def unseal(stored: bytes | None, place: str | bytes, key: str) -> bytes:
    """Returns what was sealed. Raises RunDamaged or DatasetDamaged, by the key that `stored` was read from."""
    if stored is None:
        raise damaged(key, f"has no {_text(place)}")
    if not intact(stored, place):
        raise damaged(key, f"has a wrong checksum at {_text(place)}")
    return stored[:-SEAL_BYTES]


def checksum(*words: str | bytes | int) -> bytes:
    """Returns the checksum that scripts give to these words: see `checksum` in lua/include/head.lua."""
    joined = b" ".join(word if isinstance(word, bytes) else str(word).encode() for word in words)
    return hashlib.sha1(joined).hexdigest()[:8].encode()  # noqa: S324


def damaged(key: str, what: str) -> Damaged:
    """Returns the error about a key of a run or dataset."""
    return (RunDamaged if ":run:" in key.rpartition("}")[2] else DatasetDamaged)(key, what)


def _checksum(value: bytes | memoryview, place: str | bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(place if isinstance(place, bytes) else place.encode())).to_bytes(4, "little")


def _text(place: str | bytes) -> str:
    return place if isinstance(place, str) else place.hex()
