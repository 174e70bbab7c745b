"""Generate the Python stubs of the protos below this folder; with --check, say which committed ones are stale.

The generator is pinned: stubs of grpcio-tools 1.62.3 run on protobuf 4.25 to 7 and grpcio 1.60 on, and newer generators
refuse older runtimes. It needs an older protobuf than the rest of the project and Python 3.12 at most, so it lives in a
virtual environment of its own, which this script makes on first use.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent
ROOT = PROTO.parent
VENV = ROOT / ".venv-proto"
LOCK = ROOT / "deploy" / "requirements" / "stubs.txt"
PYTHONS = ["python3.11", "python3.12", "python3.10"]

# Folder of each proto's Python package:
DESTINATIONS = {
    "bots/v1/task_selection.proto": ROOT / "client",
    "bots/v1/error_details.proto": ROOT / "client",
    "bots_server/storage/v1/storage.proto": ROOT / "server",
}
SERVICES = {"bots/v1/task_selection.proto"}


def generator() -> Path:
    """Returns the Python that has the pinned generator, made on first use."""
    python = VENV / "bin" / "python"
    installed = VENV / "installed"
    if not installed.exists() or installed.read_text() != LOCK.read_text():
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([base_python(), LOCK.parent / "install.py", VENV, LOCK.stem], check=True)
        installed.write_text(LOCK.read_text())
    return python


def base_python() -> str:
    """Returns a Python that the generator has wheels for: this one if it is old enough."""
    if sys.version_info < (3, 13):
        return sys.executable
    for name in PYTHONS:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"the stub generator needs one of {', '.join(PYTHONS)}")


def generate(proto: str, out: Path) -> list[Path]:
    """Writes the stubs of `proto` below `out` and returns their paths, relative to it."""
    outputs = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
    suffixes = ["_pb2.py", "_pb2.pyi"]
    if proto in SERVICES:
        outputs += [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"]
        suffixes += ["_pb2_grpc.py", "_pb2_grpc.pyi"]
    python = generator()
    subprocess.run(
        [python, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs, proto],
        check=True,
        env={"PATH": str(python.parent)},
    )
    return [Path(proto.removesuffix(".proto") + suffix) for suffix in suffixes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a committed stub is stale")
    check = parser.parse_args().check
    stale = []
    with tempfile.TemporaryDirectory() as scratch:
        for proto, destination in DESTINATIONS.items():
            for path in generate(proto, Path(scratch)):
                fresh, committed = Path(scratch) / path, destination / path
                if committed.exists() and committed.read_bytes() == fresh.read_bytes():
                    continue
                stale.append(path)
                if not check:
                    committed.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(fresh, committed)
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
