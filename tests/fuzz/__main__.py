"""`make fuzz`: a million calls, drawn by the code of the server that they reach.

    python -m tests.fuzz [CALLS]     of new calls, in a process for each core
    python -m tests.fuzz JOURNAL     repeats the calls that led to a failure, out/fuzz/N.journal

What is found is in out/fuzz, with the corpus, from which the next run goes on. Without atheris, which has wheels for
Python 3.11 to 3.13 on x86-64 Linux, Hypothesis draws the calls, some 100 a second.
"""

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from importlib.util import find_spec
from json import loads
from pathlib import Path

from tests.valkey import valkey

OUT = Path("out/fuzz")
WORKERS = os.cpu_count() or 1
FLAGS = ["-max_len=131072", "-timeout=60", "-rss_limit_mb=512", "-print_final_stats=1"]


def main(what: str) -> int:
    """Returns the exit status: 0 if no invariant was broken."""
    if find_spec("atheris") is None:
        print("atheris is not installed: not guided by coverage", flush=True)
        count = {"TEST_FUZZ_CALLS": str(int(what) // 2)}
        command = [sys.executable, "-m", "pytest", "tests/fuzz", "--timeout=0", f"--numprocesses={WORKERS}"]
        return subprocess.run(command, env=os.environ | count, check=False).returncode
    from tests.fuzz import guided

    if not what.isdigit():
        with valkey() as server:
            guided.replay(server.url, Path(what))
        return 0
    (OUT / "corpus").mkdir(parents=True, exist_ok=True)
    flags = [*FLAGS, f"-runs={int(what) // WORKERS}", f"-artifact_prefix={OUT}/", str(OUT / "corpus")]
    processes = multiprocessing.get_context("fork")  # the server is instrumented once
    with ExitStack() as stack:
        workers = []
        for number in range(WORKERS):
            url = stack.enter_context(valkey()).url
            workers.append(processes.Process(target=guided.fuzz, args=(url, OUT / f"{number}.journal", flags)))
            workers[-1].start()
        for worker in workers:
            worker.join()
    counts: Counter[str] = Counter()
    for number in range(WORKERS):
        counts.update(loads((OUT / f"{number}.counts").read_text()))
        print((OUT / f"{number}.log").read_text()[-1000:])
    print(*(f"{count:10} {name}" for name, count in sorted(counts.items())), sep="\n")
    return any(worker.exitcode for worker in workers) or any(name.startswith("FAILED ") for name in counts)


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["1000000"])))
