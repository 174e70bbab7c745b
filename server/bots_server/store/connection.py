"""From a URL to a client of redis-py.

    redis://[user:password@]host:6379/0              one server, or whatever stands in front of several
    unix:///path/to/socket?db=0                      the same, on this machine
    redis+sentinel://[user:password@]host:26379,host:26379/service/0      the primary that Sentinel names
    redis+cluster://[user:password@]host:6379,host:6379                   Redis Cluster; there is no db but 0

    rediss://, rediss+sentinel://, rediss+cluster://                      the same through TLS

User and password are percent-encoded: of an ACL user, or of `requirepass` where there is no user. The query may have
what redis-py calls ssl_ca_certs (who signs the server's certificate; absent: the system's), ssl_certfile and
ssl_keyfile (this client's own), files in PEM; and sentinel_username and sentinel_password, for the sentinels
themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis.backoff import AbstractBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

from bots_server.store.failures import failures

Client = redis.Redis | redis.RedisCluster

_QUERY = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SENTINEL_QUERY = {"sentinel_username": "username", "sentinel_password": "password"}


class _AtOnce(AbstractBackoff):
    """No pause before a retry, of which somebody is told."""

    def __init__(self, on_retry: Callable[[], None]) -> None:
        self._on_retry = on_retry

    def compute(self, failures: int) -> float:
        self._on_retry()
        return 0

    def __deepcopy__(self, memo: dict[int, Any]) -> _AtOnce:
        return self  # redis-py copies it for each connection; it keeps nothing


def connect(url: str, *, timeout_seconds: float = 3.0, on_retry: Callable[[], None] = lambda: None) -> Client:
    """Returns a client of the Redis at `url`; it connects at its first command (a cluster's: here).

    `timeout_seconds` bounds connecting and each wait for an answer (a cluster may wait twice). A connection that turns
    out to be broken is made once more, at once, because it may have broken while it was idle; `on_retry` is told.
    Raises ValueError where the URL is none of the forms above, StoreUnavailable where a cluster does not answer.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    options = _options(timeout_seconds, on_retry)
    if parts.scheme in ("redis", "rediss", "unix"):
        return redis.Redis.from_url(url, **options)
    if scheme not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise _wrong(parts, "must be redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")

    query = dict(parse_qsl(parts.query))
    unknown = query.keys() - {*_QUERY, *_SENTINEL_QUERY}
    if unknown:
        raise _wrong(parts, f"knows no {', '.join(sorted(unknown))} in its query")
    options |= {key: query[key] for key in _QUERY if key in query}
    if scheme == "rediss":
        options["ssl"] = True
    hosts = _hosts(parts, default_port=26379 if kind == "sentinel" else 6379)
    own = options | _login(parts)
    if kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
        with failures():
            return redis.RedisCluster(startup_nodes=nodes, **own)
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise _wrong(parts, "must name the service, as in redis+sentinel://host:26379/mymaster/0")
    asked = options | {_SENTINEL_QUERY[key]: query[key] for key in _SENTINEL_QUERY if key in query}
    sentinel = Sentinel(hosts, sentinel_kwargs=asked, **own)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(service, db=int(db or 0))  # type: ignore[no-untyped-call]
    return client


def _options(timeout_seconds: float, on_retry: Callable[[], None]) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        # Not after a timeout: that would double the wait. Every script is safe to repeat in any case.
        "retry": Retry(_AtOnce(on_retry), 1, supported_errors=(redis.ConnectionError,)),
        "protocol": 2,  # what all servers speak, and no more to shake hands about
        "decode_responses": False,  # values are protobuf
    }


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """Returns the hosts of `user:password@host:port,host:port`."""
    hosts = []
    for address in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{address}")
        if not one.hostname:
            raise _wrong(parts, "must name a host")
        hosts.append((one.hostname, one.port or default_port))
    return hosts


def _login(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return {key: unquote(value) for key, value in (("username", user), ("password", password)) if value}


def _wrong(parts: SplitResult, rule: str) -> ValueError:
    """Returns the refusal of a URL, without its secrets."""
    _, at, hosts = parts.netloc.rpartition("@")
    shown = parts._replace(netloc=("***" if at else "") + at + hosts, query="").geturl()
    return ValueError(f"redis = {shown!r}: {rule}")
