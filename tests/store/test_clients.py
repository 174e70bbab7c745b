"""The connections of a server's client: kept while they work, given up together if one fails."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import redis

from bots_server.store import RedisClient, connect
from bots_server.store.clients import ServerClient
from tests.faults.proxy import proxy
from tests.valkey import HOST, Valkey, free_port, valkey, wait_until

CALLS = 4


@pytest.fixture
def retries() -> list[None]:
    """One entry for each connection that was made again."""
    return []


@pytest.fixture
def client(redis_url: str, retries: list[None]) -> Iterator[RedisClient]:
    """A client that waits for answers as long as a test needs."""
    made = connect(redis_url, timeout_seconds=30.0, on_retry=lambda: retries.append(None))
    yield made
    made.close()


def connections(admin: redis.Redis) -> set[str]:
    """Returns the ids of the connections that others than `admin` have open."""
    own = str(admin.client_id())
    return {entry["id"] for entry in admin.client_list() if entry["id"] != own}


def blocked(admin: redis.Redis) -> set[str]:
    """Returns the ids of the connections whose command waits."""
    return {entry["id"] for entry in admin.client_list() if "b" in entry["flags"]}


def busy(client: RedisClient, admin: redis.Redis) -> set[str]:
    """Makes a client open several connections, which it keeps; returns their ids."""
    before = connections(admin)
    with ThreadPoolExecutor(CALLS) as calls:
        waiting = [calls.submit(client.ask, "queue", ("BLPOP", "queue", "0")) for _ in range(CALLS)]
        wait_until(lambda: len(connections(admin) - before) == CALLS, "each call has a connection")
        admin.rpush("queue", *range(CALLS))
        assert sorted(call.result()[0][1] for call in waiting) == [b"%d" % number for number in range(CALLS)]
    made = connections(admin) - before
    assert len(made) == CALLS
    return made


def test_connections_are_kept(client: RedisClient, shared_valkey: Valkey, retries: list[None]) -> None:
    """Calls that succeed use the same connections again."""
    with shared_valkey.client() as admin:
        made = busy(client, admin)
        for _ in range(2 * CALLS):
            assert client.ask("key", ("ECHO", "one")) == [b"one"]
        assert connections(admin) >= made
    assert retries == []


def test_the_others_are_given_up_with_a_broken_idle_connection(
    client: RedisClient, shared_valkey: Valkey, retries: list[None]
) -> None:
    """If an idle connection turns out to be broken, no other idle connection is used again: behind Sentinel or a
    balancer it may lead to a server that is not the primary any more."""
    with shared_valkey.client() as admin:
        made = busy(client, admin)
        used = str(client.ask("key", ("CLIENT", "ID"))[0])  # the next command gets it, too
        admin.client_kill_filter(_id=used)
        assert client.ask("key", ("ECHO", "again")) == [b"again"]
        wait_until(lambda: not connections(admin) & made, "the connections end")
    assert retries == [None]


def test_the_others_are_given_up_with_a_connection_that_breaks_in_use(
    client: RedisClient, shared_valkey: Valkey, retries: list[None]
) -> None:
    """If a connection breaks while its answer is awaited, the command is sent once more over a new connection, and no
    idle connection is used again."""
    with shared_valkey.client() as admin, ThreadPoolExecutor(1) as calls:
        made = busy(client, admin)
        waiting = calls.submit(client.ask, "queue", ("BLPOP", "queue", "0"))
        wait_until(lambda: blocked(admin), "the call waits")
        used = blocked(admin)
        admin.client_kill_filter(_id=used.copy().pop())
        wait_until(lambda: blocked(admin) - used, "the call waits again")
        admin.rpush("queue", "mine")
        assert waiting.result() == [(b"queue", b"mine")]
        wait_until(lambda: not connections(admin) & made, "the connections end")
    assert retries == [None]


def test_a_connection_in_use_ends_with_its_call_after_the_others_were_given_up(
    client: RedisClient, shared_valkey: Valkey, retries: list[None]
) -> None:
    """A connection that was in use when the others were given up serves its call, and no other one."""
    with shared_valkey.client() as admin, ThreadPoolExecutor(1) as calls:
        waiting = calls.submit(client.ask, "queue", ("BLPOP", "queue", "0"))
        wait_until(lambda: blocked(admin), "the call waits")
        old = connections(admin)
        client.disconnect()
        admin.rpush("queue", "late")
        assert waiting.result() == [(b"queue", b"late")]
        assert str(client.ask("key", ("CLIENT", "ID"))[0]) not in old
        wait_until(lambda: not connections(admin) & old, "the connection ends")
    assert retries == []


def test_the_others_are_given_up_with_a_connection_that_does_not_answer(redis_url: str, shared_valkey: Valkey) -> None:
    """After a timeout no earlier connection is used, so that no call reads a late answer; nothing is sent again."""
    client = connect(redis_url, timeout_seconds=1.0, on_retry=pytest.fail)
    with shared_valkey.client() as admin, closing(client):
        made = busy(client, admin)
        with pytest.raises(redis.TimeoutError):
            client.ask("queue", ("BLPOP", "queue", "0"))
        admin.rpush("queue", "late")
        assert client.ask("key", ("ECHO", "mine")) == [b"mine"]
        wait_until(lambda: not connections(admin) & made, "the connections end")


def test_no_connection_is_used_that_its_pool_has_given_up(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As redis-py's pool does with those to the primary of before when Sentinel has named another one."""
    server = redis.Redis.from_url(redis_url)
    with closing(ServerClient(lambda: server, pytest.fail)) as client:
        used = client.ask("key", ("CLIENT", "ID"))
        assert client.ask("key", ("CLIENT", "ID")) == used
        monkeypatch.setattr(server.connection_pool, "owns_connection", lambda connection: False)
        assert client.ask("key", ("CLIENT", "ID")) != used


def test_no_connection_of_a_scan_is_used_after_the_others_were_given_up(
    client: RedisClient, shared_valkey: Valkey
) -> None:
    """What scans and checks use is given up with the other connections, or ends with its call if it is in use."""
    with shared_valkey.client() as admin:
        (server,) = client.primaries()
        used = server.client_id()
        client.disconnect()
        del server
        wait_until(lambda: str(used) not in connections(admin), "the connection ends")
        (server,) = client.primaries()
        assert server.client_id() != used


def test_connection_that_cannot_be_made_leaves_the_others(
    client: RedisClient, shared_valkey: Valkey, retries: list[None]
) -> None:
    """If Redis accepts no more clients, the idle connections go on: only one that broke says that they may be wrong."""
    with shared_valkey.client() as admin, ThreadPoolExecutor(CALLS) as calls:
        made = busy(client, admin)
        before = admin.config_get("maxclients")["maxclients"]
        admin.config_set("maxclients", CALLS + 1)
        try:
            waiting = [calls.submit(client.ask, "queue", ("BLPOP", "queue", "0")) for _ in range(CALLS - 1)]
            wait_until(lambda: len(blocked(admin)) == CALLS - 1, "all calls but one wait")
            kept = (made - blocked(admin)).pop()
            held = calls.submit(client.ask, "other", ("BLPOP", "other", "0"))
            wait_until(lambda: kept in blocked(admin), "all connections are in use")
            with pytest.raises(redis.ConnectionError):
                client.ask("key", ("ECHO", "refused"))
            admin.rpush("other", "one")
            held.result()
            assert str(client.ask("key", ("CLIENT", "ID"))[0]) == kept
            admin.rpush("queue", *range(CALLS))
            assert len([call.result() for call in waiting]) == CALLS - 1
            assert connections(admin) == made
        finally:
            admin.config_set("maxclients", before)
    assert retries == [None]


def test_closed_client_connects_no_more(client: RedisClient, shared_valkey: Valkey) -> None:
    """A call or scan after the end raises, and one in progress ends its connection: no connection is left open."""
    with shared_valkey.client() as admin, ThreadPoolExecutor(1) as calls:
        before = connections(admin)
        waiting = calls.submit(client.ask, "queue", ("BLPOP", "queue", "0"))
        wait_until(lambda: blocked(admin), "the call waits")
        client.close()
        admin.rpush("queue", "late")
        assert waiting.result() == [(b"queue", b"late")]
        client.disconnect()  # as a call does to which a replica answers
        with pytest.raises(redis.ConnectionError, match="closed"):
            client.ask("key", ("ECHO", "after"))
        with pytest.raises(redis.ConnectionError, match="closed"):
            client.primaries()
        wait_until(lambda: connections(admin) <= before, "no connection is left")


def test_disconnecting_from_many_threads(client: RedisClient) -> None:
    """Calls go on while other threads give the connections up."""
    with ThreadPoolExecutor(8) as calls:
        asked = [calls.submit(client.ask, "key", ("ECHO", str(number))) for number in range(200)]
        left = [calls.submit(client.disconnect) for _ in range(200)]
        assert [call.result() for call in asked] == [[b"%d" % number] for number in range(200)]
        assert all(call.result() is None for call in left)


def test_answers_of_many_keys_come_in_order(client: RedisClient) -> None:
    """Commands about many keys are sent together, and an error answer is an answer."""
    client.ask("a", ("SET", "a", "1"))
    first, second, third = client.ask_each([("GET", "a"), ("HGET", "a", "field"), ("GET", "b")])
    assert (first, third) == (b"1", None)
    assert isinstance(second, redis.ResponseError)


def test_no_call_goes_to_the_earlier_primary_after_a_connection_broke() -> None:
    """If a balancer leads to another primary and one connection breaks, every later call goes to that one, although
    other connections to the earlier primary still work.
    """
    with valkey(port=free_port()) as earlier, valkey(port=free_port()) as later, proxy(earlier.port) as balancer:
        client = connect(f"redis://{HOST}:{balancer.port}")

        def port(_: int) -> str:
            (answer,) = client.ask("key", ("CONFIG", "GET", "port"))
            return str(answer)

        with earlier.client() as admin, ThreadPoolExecutor(CALLS) as calls:
            busy(client, admin)
            assert f"{earlier.port}" in port(0)
            balancer.upstream = later.port
            admin.client_kill_filter(_id=str(client.ask("key", ("CLIENT", "ID"))[0]))
            assert f"{later.port}" in port(0)
            assert all(f"{later.port}" in answer for answer in calls.map(port, range(200)))
        client.close()
