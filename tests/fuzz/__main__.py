"""`make fuzz`: a million calls, drawn by the code of the server that they reach.

    python -m tests.fuzz [CALLS]     of new calls, in two processes
    python -m tests.fuzz JOURNAL     repeats the calls that led to a failure, out/fuzz/N.journal

What is found is in out/fuzz, with the corpus, from which the next run goes on. Without atheris, which has wheels for
Python 3.11 to 3.13 on x86-64 Linux, Hypothesis draws the calls, some 100 a second.
"""

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from importlib.util import find_spec
from json import loads
from pathlib import Path

from bots_server.process.embedded import ending_with_parent
from tests.valkey import valkey

OUT = Path("out/fuzz")
WORKERS = os.cpu_count() or 1
FLAGS = ["-max_len=131072", "-len_control=0", "-timeout=30", "-rss_limit_mb=1024", "-print_final_stats=1"]


def main(what: str) -> int:
    """Returns the exit status: 0 if no invariant was broken."""
    if find_spec("atheris") is None:
        print("atheris is not installed: not guided by coverage", flush=True)
        count = {"TEST_FUZZ_CALLS": str(int(what) // 2)}
        command = [sys.executable, "-m", "pytest", "tests/fuzz", "--timeout=0", f"--numprocesses={WORKERS}"]
        return subprocess.run(command, env=os.environ | count, check=False).returncode
    if not what.isdigit():
        from tests.fuzz.guided import replay

        with valkey() as server:
            replay(server.url, Path(what))
        return 0
    (OUT / "corpus").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        workers = []
        for number in range(WORKERS):
            files = OUT / str(number)
            arguments = [stack.enter_context(valkey()).url, str(files.with_suffix(".journal"))]
            flags = [*FLAGS, f"-runs={int(what) // WORKERS}", f"-artifact_prefix={files}-", str(OUT / "corpus")]
            log = stack.enter_context(files.with_suffix(".log").open("w"))
            command = [sys.executable, "-m", "tests.fuzz.guided", *arguments, *flags]
            workers.append(subprocess.Popen(ending_with_parent(command), stdout=log, stderr=log))
        status = max(abs(worker.wait()) for worker in workers)
    counts: Counter[str] = Counter()
    for number in range(WORKERS):
        counts.update(loads((OUT / f"{number}.counts").read_text()))
        print((OUT / f"{number}.log").read_text()[-2000:])
    print(*(f"{count:10} {name}" for name, count in sorted(counts.items())), sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["1000000"])))
