"""`bots-server fsck [--repair]`: names what is damaged in Redis, and repairs what is safe to repair."""

from contextlib import closing, nullcontext

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
    chosen = settings([argument for argument in arguments if argument != "--repair"], serving=False)
    left = 0
    try:
        given = chosen.redis_url()
        with embedded.start(chosen.data_dir) if given is None else nullcontext(given) as url:
            client = connect(url, timeout_seconds=TIMEOUT_SECONDS)
            with closing(Store(client, prefix=chosen.key_prefix)) as store:
                for damage in list(store.damages()):
                    if repair and damage.repair is not None:
                        damage.repair()
                        done = "repaired"
                    else:
                        left, done = left + 1, damage.advice
                    print(f"{damage.where}: {damage.what}; {done}")  # noqa: T201
    except (embedded.EmbeddedError, Failure, OSError, ValueError) as error:
        raise SystemExit(f"bots-server fsck: {error}") from error
    print("no damage" if not left else f"damaged: {left}")  # noqa: T201
    raise SystemExit(left > 0)
