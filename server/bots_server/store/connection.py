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

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis.backoff import AbstractBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

from bots_server.store.failures import failures

Client = redis.Redis | redis.RedisCluster

_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_ENCODE = "percent-encode / # ? @ : [ ] % in user and password, and @ elsewhere"
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
    Raises ValueError, which shows no part of the URL but its scheme, where it is none of the forms above, and
    StoreUnavailable where a cluster does not answer.
    """
    options = _options(timeout_seconds, on_retry)
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise ValueError(f"redis: must be {', '.join(f'{known}://' for known in _SCHEMES)}")
    try:
        parts = urlsplit(url)
        if parts.fragment or "@" in parts.path + parts.query:
            raise _Rule(_ENCODE)
        if kind := scheme.partition("+")[2]:
            make = _of_sentinel(parts, options) if kind == "sentinel" else _of_cluster(parts, options)
        else:
            make = _of_server(parts, url, options)
    except _Rule as rule:
        raise ValueError(f"redis = '{scheme}://…': {rule}") from None
    except ValueError:  # its words show a part of the URL, and that part may be one of the password
        raise ValueError(f"redis = '{scheme}://…': {_ENCODE}") from None
    with failures():
        return make()


class _Rule(Exception):
    """What a URL breaks. Its text shows nothing of the URL, because any part of it may be one of the password."""


def _of_server(parts: SplitResult, url: str, options: dict[str, Any]) -> Callable[[], Client]:
    if parts.scheme != "unix":
        _hosts(parts, default_port=6379)
        int(parts.path.strip("/") or 0)
    if "max_connections" in dict(parse_qsl(parts.query)):
        raise _Rule("may not have max_connections: there is a connection for each call under way")
    client = redis.Redis.from_url(url, **options)
    try:
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)  # it connects later
    except TypeError:
        raise _Rule("its query names what redis-py does not know") from None
    return lambda: client


def _of_cluster(parts: SplitResult, options: dict[str, Any]) -> Callable[[], Client]:
    _query(parts, _QUERY)
    nodes = [ClusterNode(*host) for host in _hosts(parts, default_port=6379)]  # type: ignore[no-untyped-call]
    own = options | _tls(parts) | _login(parts)
    return lambda: redis.RedisCluster(startup_nodes=nodes, **own)


def _of_sentinel(parts: SplitResult, options: dict[str, Any]) -> Callable[[], Client]:
    query = _query(parts, (*_QUERY, *_SENTINEL_QUERY))
    hosts = _hosts(parts, default_port=26379)
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise _Rule("must name the service, as in redis+sentinel://host:26379/mymaster/0")
    secured = options | _tls(parts)
    asked = secured | {_SENTINEL_QUERY[key]: query[key] for key in _SENTINEL_QUERY if key in query}
    sentinel = Sentinel(hosts, sentinel_kwargs=asked, **secured, **_login(parts))  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(service, db=int(db or 0))  # type: ignore[no-untyped-call]
    return lambda: client


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
            raise _Rule(f"must name a host; {_ENCODE}")
        hosts.append((one.hostname, one.port or default_port))
    return hosts


def _query(parts: SplitResult, known: Sequence[str]) -> dict[str, str]:
    query = dict(parse_qsl(parts.query))
    if query.keys() - set(known):
        raise _Rule(f"may have no more in its query than {', '.join(known)}")
    return query


def _tls(parts: SplitResult) -> dict[str, Any]:
    query = dict(parse_qsl(parts.query))
    return {key: query[key] for key in _QUERY if key in query} | ({"ssl": True} if parts.scheme[:6] == "rediss" else {})


def _login(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return {key: unquote(value) for key, value in (("username", user), ("password", password)) if value}
