"""From a URL to a client of redis-py.

    redis://[user:password@]host:6379/0              one server, or whatever stands in front of several
    rediss://...                                     the same through TLS
    unix:///path/to/socket?db=0
    redis+sentinel://[user:password@]host:26379,host:26379/service/0      the primary that Sentinel names
    redis+cluster://[user:password@]host:6379,host:6379                   Redis Cluster; there is no db but 0
    rediss+sentinel://..., rediss+cluster://...      the same through TLS

User and password are percent-encoded, those of an ACL user or, without a user, of `requirepass`. Sentinels are asked
with the password of the query (`?sentinel_username=...&sentinel_password=...`), or with none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

Client = redis.Redis | redis.RedisCluster

_FORMS = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// (README, configuration)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """Files in PEM, for the rediss schemes."""

    ca_file: str | None = None  # who may sign the server's certificate; None: whom the system trusts
    certificate_file: str | None = None  # this client's certificate and key, where the server asks for them
    key_file: str | None = None


def connect(url: str, *, timeout_seconds: float = 3.0, tls: TLS | None = None) -> Client:
    """Returns a client of the Redis at `url`; it connects at its first command (a cluster's client: here).

    `timeout_seconds` bounds connecting and each wait for an answer. A connection that turns out broken is made once
    more, at once: it may have broken while it was idle. Raises ValueError where the URL is none of the forms above.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    options = _options(timeout_seconds)
    if (
        scheme not in ("redis", "rediss", "unix")
        or kind not in ("", "sentinel", "cluster")
        or (kind and scheme == "unix")
    ):
        raise ValueError(f"redis = {_without_password(parts)!r}: must be {_FORMS}")
    if scheme == "rediss" and tls is not None:
        options |= {"ssl_ca_certs": tls.ca_file, "ssl_certfile": tls.certificate_file, "ssl_keyfile": tls.key_file}
    if kind == "":
        return redis.Redis.from_url(url, **options)

    hosts = _hosts(parts, default_port=26379 if kind == "sentinel" else 6379)
    options |= {"ssl": True} if scheme == "rediss" else {}
    login = _login(parts)
    if kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
        return redis.RedisCluster(startup_nodes=nodes, **(options | login))
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError(f"redis = {_without_password(parts)!r}: must name the service, as in host:26379/mymaster/0")
    asked = options | _sentinel_login(parts)
    sentinel = Sentinel(hosts, sentinel_kwargs=asked, **(options | login))  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(service, db=int(db or 0))  # type: ignore[no-untyped-call]
    return client


def _options(timeout_seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        # Not after a timeout: that would double the wait. Every script is safe to repeat in any case.
        "retry": Retry(ConstantBackoff(0), 1, supported_errors=(redis.ConnectionError,)),
        "protocol": 2,  # what all servers speak, and no more to shake hands about
        "decode_responses": False,  # values are protobuf
    }


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """Returns the hosts of `user:password@host:port,host:port`."""
    hosts = []
    for address in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{address}")
        if not one.hostname:
            raise ValueError(f"redis = {_without_password(parts)!r}: must name a host")
        hosts.append((one.hostname, one.port or default_port))
    return hosts


def _login(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return {key: unquote(value) for key, value in (("username", user), ("password", password)) if value}


def _sentinel_login(parts: SplitResult) -> dict[str, str]:
    query = parse_qs(parts.query)
    return {key: query[f"sentinel_{key}"][0] for key in ("username", "password") if f"sentinel_{key}" in query}


def _without_password(parts: SplitResult) -> str:
    """Returns the URL as it may be shown."""
    _, at, hosts = parts.netloc.rpartition("@")
    return parts._replace(netloc=("***" if at else "") + at + hosts, query="").geturl()
