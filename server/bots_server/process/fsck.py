"""`bots-server fsck [--repair]`: names what is damaged in Redis, and repairs what is safe to repair."""

from contextlib import ExitStack

from bots_server.errors import Failure
from bots_server.process import embedded
from bots_server.process.settings import settings
from bots_server.store import Store, connect

USAGE = """usage: bots-server fsck [--repair] [--redis URL | --redis-file FILE | --data-dir DIR] [--key-prefix PREFIX]

Names what is damaged in Redis, with what to do. With --repair it repairs what is safe to repair. Give it the flags or
BOTS_ variables of the servers. For a private Valkey, stop the server first."""

TIMEOUT_SECONDS = 60.0  # of one command; nobody waits for an answer in a training step


def main(arguments: list[str]) -> None:
    """Prints a line for each damage with what to do. Exits with 1 if there is any that is not repaired.

    Takes the settings of the server, of which it uses those of Redis, the data directory and the keys' prefix.
    """
    if {"-h", "--help"} & set(arguments):
        print(USAGE)  # noqa: T201
        return
    repair = "--repair" in arguments
    chosen = settings([argument for argument in arguments if argument != "--repair"])
    left = 0
    with ExitStack() as stack:
        try:
            url = chosen.redis_url()
            if url is None:
                start = embedded.start(chosen.data_dir, fsync=False, on_death=lambda: None)
                url = stack.enter_context(start)
            store = Store(connect(url, timeout_seconds=TIMEOUT_SECONDS), prefix=chosen.key_prefix)
            stack.callback(store.close)
            for damage in list(store.damages()):
                repaired = repair and damage.repair is not None
                if repaired and damage.repair is not None:
                    damage.repair()
                left += not repaired
                print(f"{damage.where}: {damage.what}; {'repaired' if repaired else damage.advice}")  # noqa: T201
        except (embedded.EmbeddedError, Failure, OSError, ValueError) as error:
            raise SystemExit(f"bots-server fsck: {error}") from error
    print("no damage" if not left else f"damaged: {left}")  # noqa: T201
    raise SystemExit(left > 0)
