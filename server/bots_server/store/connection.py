"""From a URL to a client of redis-py.

redis://[user:password@]host:6379/0              one server, or whatever stands in front of several
rediss://...                                     the same through TLS
unix:///path/to/socket?db=0
redis+sentinel://[user:password@]host:26379,host:26379/service/0      the primary that Sentinel names
redis+cluster://[user:password@]host:6379,host:6379                   Redis Cluster; db is always 0
rediss+sentinel://, rediss+cluster://            the same through TLS
"""

from __future__ import annotations

from dataclasses import dataclass

import redis

Client = redis.Redis | redis.RedisCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """Files in PEM. Used with the rediss schemes alone."""

    ca_file: str | None = None  # who may sign the server's certificate; None: the system's
    certificate_file: str | None = None  # this client's certificate and key, where the server asks for one
    key_file: str | None = None


def connect(url: str, *, timeout_seconds: float = 3.0, tls: TLS | None = None) -> Client:
    """Returns a client of the Redis at `url`; connects at the first command, not here (a cluster: here).

    `timeout_seconds` bounds connecting and each wait for an answer. A broken connection is tried once more at once.
    Raises ValueError where the URL is none of the forms above.
    """
    raise NotImplementedError
