"""The backups that deploy/redis/README.md describes bring the data back."""

from pathlib import Path

from tests.valkey import valkey, wait_until

OWN = ("--appendonly", "yes")  # as in deploy/redis/redis.conf


def test_dump_is_restored_by_the_steps_of_the_manual(tmp_path: Path) -> None:
    """A dump is read without an append-only file, which is then written, and has all of it."""
    with valkey(*OWN) as server, server.client() as client:
        client.set("kept", "yes")
        client.save()
        dump = (server.directory / "dump.rdb").read_bytes()
    with valkey("--appendonly", "no") as server:
        server.stop()
        (server.directory / "dump.rdb").write_bytes(dump)
        server.start()
        with server.client() as client:
            client.config_set("appendonly", "yes")
            wait_until(lambda: written(client.info("persistence")), "the append-only file is written")
        server.stop()
        server.arguments = OWN
        server.start()
        with server.client() as client:
            assert client.get("kept") == b"yes"


def written(persistence: dict[str, int]) -> bool:
    return bool(persistence["aof_enabled"]) and not (
        persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"]
    )
