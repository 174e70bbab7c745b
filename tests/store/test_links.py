"""The connections of a link: kept while they work, given up together where one does not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from bots_server.store import connect
from bots_server.store.links import ServerLink
from tests.valkey import Valkey, wait_until

CALLS = 4


@pytest.fixture
def link(redis_url: str) -> Iterator[ServerLink]:
    """A link whose connections answer within a second."""
    client = connect(redis_url, timeout_seconds=1.0)
    assert isinstance(client, redis.Redis)
    made = ServerLink(client)
    yield made
    made.leave()
    client.close()


def connections(admin: redis.Redis) -> set[str]:
    """Returns the ids of the connections that others than `admin` have open."""
    own = str(admin.client_id())
    return {entry["id"] for entry in admin.client_list() if entry["id"] != own}


def busy(link: ServerLink, admin: redis.Redis) -> set[str]:
    """Has a link make several connections, which it keeps; returns their ids."""
    before = connections(admin)
    with ThreadPoolExecutor(CALLS) as calls:
        waiting = [calls.submit(link.ask, "queue", ("BLPOP", "queue", "0")) for _ in range(CALLS)]
        wait_until(lambda: admin.info("clients")["blocked_clients"] == CALLS, "all to wait")
        admin.rpush("queue", *range(CALLS))
        assert sorted(call.result()[0][1] for call in waiting) == [b"%d" % number for number in range(CALLS)]
    made = connections(admin) - before
    assert len(made) == CALLS
    return made


def test_connections_are_kept(link: ServerLink, shared_valkey: Valkey) -> None:
    """What works goes on over the same connections."""
    with shared_valkey.client() as admin:
        made = busy(link, admin)
        for _ in range(2 * CALLS):
            assert link.ask("key", ("PING",)) == [b"PONG"]
        assert connections(admin) >= made


def test_a_broken_connection_is_made_again_and_the_others_are_given_up(link: ServerLink, shared_valkey: Valkey) -> None:
    """Where an idle connection turns out to be broken, the command is sent once more over a new one, and no other idle
    one is used again: it may lead to a server that is no primary any more."""
    with shared_valkey.client() as admin:
        made = busy(link, admin)
        used = str(link.ask("key", ("CLIENT", "ID"))[0])  # the next command takes it too
        admin.client_kill_filter(_id=used)
        assert link.ask("key", ("PING",)) == [b"PONG"]
        wait_until(lambda: not connections(admin) & made, "the connections to end")


def test_a_connection_that_does_not_answer_is_given_up_with_the_others(link: ServerLink, shared_valkey: Valkey) -> None:
    """After a timeout no connection from before it is used: the answer that comes late is nobody's."""
    with shared_valkey.client() as admin:
        made = busy(link, admin)
        with pytest.raises(redis.TimeoutError):
            link.ask("queue", ("BLPOP", "queue", "0"))
        admin.rpush("queue", "late")
        assert link.ask("key", ("ECHO", "mine")) == [b"mine"]
        wait_until(lambda: not connections(admin) & made, "the connections to end")


def test_leaving_from_many_threads(link: ServerLink, shared_valkey: Valkey) -> None:
    """Calls go on while others give the connections up."""
    with ThreadPoolExecutor(8) as calls:
        asked = [calls.submit(link.ask, "key", ("ECHO", str(number))) for number in range(200)]
        left = [calls.submit(link.leave) for _ in range(200)]
        assert [call.result() for call in asked] == [[b"%d" % number] for number in range(200)]
        assert all(call.result() is None for call in left)
