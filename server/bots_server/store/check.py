"""Checks of the Redis in use, made when the server starts and by GetServer."""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import ResponseError

from bots_server.store.clients import RedisClient
from bots_server.store.deadline import remaining
from bots_server.store.durability import MEMORY, Durability, Level
from bots_server.store.failures import failures

_OLDEST = (7, 0)  # Redis 7.0; Valkey reports 7.2 in the same field, for compatibility


def check_redis(client: RedisClient) -> list[str]:
    """Returns the risks of this Redis, one line each: version, role, scripts, memory, persistence, replicas.

    Raises StoreUnavailable, and DeadlineExceeded if the call has no time left.
    """
    risks = []
    with failures():
        for server in client.primaries():
            remaining()
            risks += _risks(server)
    return risks


def choose_durability(
    client: RedisClient, level: str, *, replicas: int = 1, timeout_seconds: float = 1.5
) -> Durability:
    """Returns the durability to use for `level` ("auto", "memory", "fsync" or "replica").

    "auto" is the level that costs no extra wait: fsync if Redis has `appendfsync always`, otherwise memory. (With
    `appendfsync everysec` fsync is possible, but then each report waits for up to a second.) Raises ValueError if this
    Redis cannot give the level, and StoreUnavailable.
    """
    with failures():
        servers = client.primaries()
        for server in servers:
            server.ping()  # an error here is about the login or the database, and none about a setting
        always = all(_setting(server, "appendfsync") == "always" and _has_file(server) for server in servers)
        if level == "replica":
            return Durability(level=Level.REPLICA, replicas=replicas, timeout_seconds=timeout_seconds)
        if level == "memory" or (level == "auto" and not always):
            return MEMORY
        waitaof = all(_has_waitaof(server) for server in servers)
        if not all(_has_file(server) for server in servers):
            raise ValueError("durability = 'fsync': Redis has no append-only file; set appendonly yes")
        if any(_setting(server, "appendfsync") == "no" for server in servers):
            # Valkey and Redis then never report a write as synced, and every report would fail.
            raise ValueError("durability = 'fsync': Redis has appendfsync no; set everysec or always")
        if not waitaof and not always:
            raise ValueError("durability = 'fsync': Redis before 7.2 needs appendfsync always")
        return Durability(level=Level.FSYNC, timeout_seconds=timeout_seconds, waitaof=waitaof)


def _risks(server: redis.Redis) -> list[str]:
    info: dict[str, Any] = server.info("everything")
    risks = []
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < _OLDEST:
        risks.append(f"Redis {info['redis_version']} is older than 7.0, the oldest that is tested")
    if info["role"] != "master":
        risks.append("this Redis is a replica: every write will fail until it is promoted or the URL names the primary")
    try:
        server.eval("return 1", 0)
    except ResponseError as error:
        risks.append(f"scripts are not allowed, and the service needs them: {error}")
    if info["maxmemory_policy"] != "noeviction":
        risks.append(
            f"maxmemory-policy is {info['maxmemory_policy']}: when memory is short Redis deletes reports and datasets "
            "silently; set noeviction"
        )
    if not info["aof_enabled"]:
        risks.append(
            "there is no append-only file: a crash or restart of Redis loses everything since its last dump, or "
            "everything; set appendonly yes"
        )
    elif _setting(server, "appendfsync") == "no":
        risks.append("appendfsync is no: a crash of its machine loses up to half a minute; set everysec or always")
    if info.get("aof_last_write_status", "ok") != "ok" or info["rdb_last_bgsave_status"] != "ok":
        risks.append("its last write to disk failed: it may refuse all writes until there is space")
    if info["connected_slaves"] and _setting(server, "min-replicas-to-write") == "0":
        risks.append(
            "it has replicas and min-replicas-to-write 0: a primary that is cut off from them still accepts reports, "
            "which a failover then loses"
        )
    return risks


def _has_file(server: redis.Redis) -> bool:
    return bool(server.info("persistence")["aof_enabled"])


def _has_waitaof(server: redis.Redis) -> bool:
    try:
        server.execute_command("WAITAOF", 0, 0, 1)  # type: ignore[no-untyped-call]
    except ResponseError:
        return False
    return True


def _setting(server: redis.Redis, name: str) -> str | None:
    """Returns a setting of the server; None if it may not be read, as with some hosted ones."""
    try:
        value: str | None = server.config_get(name).get(name)
    except ResponseError:
        return None
    return value
