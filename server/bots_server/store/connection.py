"""From a URL to a client of Redis.

    redis://[user:password@]host:6379/0              one server, or a balancer in front of several
    unix:///path/to/socket?db=0                      the same, on this machine
    redis+sentinel://[user:password@]host:26379,host:26379/service/0      the primary that Sentinel names
    redis+cluster://[user:password@]host:6379,host:6379                   Redis Cluster; its only db is 0

    rediss://, rediss+sentinel://, rediss+cluster://                      the same through TLS

User and password are percent-encoded: those of an ACL user, or the password of `requirepass` without a user. The query
may have ssl_ca_certs (the CA of the server's certificate; absent: the system's), ssl_certfile and ssl_keyfile (the
client's own certificate), all files in PEM; and sentinel_username and sentinel_password, for the sentinels themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

from bots_server.store.clients import ClusterClient, RedisClient, ServerClient
from bots_server.store.failures import failures

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
_OURS = {"max_connections", "decode_responses", "protocol"}  # options of redis-py that a URL must not change
_QUERY = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SENTINEL_QUERY = {"sentinel_username": "username", "sentinel_password": "password"}


def connect(url: str, *, timeout_seconds: float = 3.0, on_retry: Callable[[], None] = lambda: None) -> RedisClient:
    """Returns a client of the Redis at `url`. It connects at its first command (a cluster's: here).

    `timeout_seconds` bounds connecting and each wait for an answer (a cluster may wait twice). `on_retry` is called
    each time a broken connection is made again. Raises ValueError if the URL has none of the forms above, with a
    message that shows no part of the URL but its scheme; StoreUnavailable if a cluster does not answer.
    """
    options = _options(timeout_seconds)
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise ValueError(f"redis: must be {', '.join(f'{known}://' for known in _SCHEMES)}")
    try:
        parts = urlsplit(url)
        if parts.fragment or "@" in parts.path + parts.query:
            raise _Rule(_ENCODE)
        kind = scheme.partition("+")[2]
        if kind == "cluster":
            make_cluster = _of_cluster(parts, options)
        else:
            make_server = _of_sentinel(parts, options) if kind else _of_server(parts, url, options)
    except _Rule as rule:
        raise ValueError(f"redis = '{scheme}://…': {rule}") from None
    except ValueError:  # its message shows a part of the URL, which may be a part of the password
        raise ValueError(f"redis = '{scheme}://…': {_ENCODE}") from None
    with failures():
        return ClusterClient(make_cluster()) if kind == "cluster" else ServerClient(make_server, on_retry)


class _Rule(Exception):
    """A rule that a URL breaks. Its text shows no part of the URL, because any part may belong to the password."""


def _of_server(parts: SplitResult, url: str, options: dict[str, Any]) -> Callable[..., redis.Redis]:
    if parts.scheme != "unix":
        _hosts(parts, default_port=6379)
        if not (parts.path.strip("/") or "0").isdecimal():
            raise _Rule(f"must end in the number of a database, as in redis://host:6379/0; {_ENCODE}")
    if _OURS & dict(parse_qsl(parts.query)).keys():
        raise _Rule(f"must not have {' or '.join(sorted(_OURS))} in its query: the server chooses them")
    make = partial(redis.Redis.from_url, url, **options)
    try:
        make().connection_pool.make_connection()  # does not connect yet
    except TypeError:
        raise _Rule("its query has an option that redis-py does not know") from None
    return make


def _of_cluster(parts: SplitResult, options: dict[str, Any]) -> Callable[[], redis.RedisCluster]:
    _query(parts, _QUERY)
    nodes = [ClusterNode(*host) for host in _hosts(parts, default_port=6379)]  # type: ignore[no-untyped-call]
    once_more = {"retry": Retry(NoBackoff(), 1)}  # after it has asked the cluster where the slots are
    own = options | once_more | _tls(parts) | _login(parts)
    return lambda: redis.RedisCluster(startup_nodes=nodes, **own)


def _of_sentinel(parts: SplitResult, options: dict[str, Any]) -> Callable[..., redis.Redis]:
    query = _query(parts, (*_QUERY, *_SENTINEL_QUERY))
    hosts = _hosts(parts, default_port=26379)
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise _Rule("must name the service, as in redis+sentinel://host:26379/mymaster/0")
    secured = options | _tls(parts)
    asked = secured | {_SENTINEL_QUERY[key]: query[key] for key in _SENTINEL_QUERY if key in query}
    sentinel = Sentinel(hosts, sentinel_kwargs=asked, **secured, **_login(parts))  # type: ignore[no-untyped-call]
    return partial(sentinel.master_for, service, db=int(db or 0))


def _options(timeout_seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),  # ServerClient sends again; a cluster's client has its own attempts
        "protocol": 2,  # known to all servers, with the shortest handshake
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
        raise _Rule(f"must have no more in its query than {', '.join(known)}")
    return query


def _tls(parts: SplitResult) -> dict[str, Any]:
    query = dict(parse_qsl(parts.query))
    return {key: query[key] for key in _QUERY if key in query} | ({"ssl": True} if parts.scheme[:6] == "rediss" else {})


def _login(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return {key: unquote(value) for key, value in (("username", user), ("password", password)) if value}
