"""Arrows point one way: service -> replica -> core and store; the client imports no server."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "server" / "bots_server"
CLIENT = ROOT / "client" / "bots"
FOR_PEOPLE = ("cli", "replay", "demo")  # packages of the extra `cli`


def modules(folder: Path) -> list[Path]:
    """Returns the modules below a folder that people wrote."""
    return sorted(path for path in folder.rglob("*.py") if "_pb2" not in path.name)


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def under(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def offences(paths: list[Path], allowed: tuple[str, ...], forbidden: tuple[str, ...] = ()) -> list[str]:
    """Returns the imports that are neither of the standard library nor allowed."""
    assert paths
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path)
        if under(name, *forbidden) or not (name.split(".")[0] in sys.stdlib_module_names or under(name, *allowed))
    ]


def test_the_core_is_pure() -> None:
    """The core imports numpy and scipy, and nothing of ours."""
    assert offences(modules(SERVER / "core"), ("numpy", "scipy", "bots_server.core")) == []


def test_the_store_knows_no_method() -> None:
    """The store imports what it stores and its errors, not the core or the service."""
    allowed = ("redis", "grpc", "google.protobuf", "bots_server.store", "bots_server.storage", "bots_server.errors")
    assert offences(modules(SERVER / "store"), allowed) == []


def test_only_the_store_imports_redis() -> None:
    """No other module of the server imports redis, but for the one that starts a private one."""
    outside = [path for path in modules(SERVER) if path.parent != SERVER / "store" and path.name != "embedded.py"]
    assert [path for path in outside for name in imports(path) if under(name, "redis", "valkey")] == []


def test_replicas_know_no_service() -> None:
    """What is below the service does not import it."""
    between = [SERVER / f"{name}.py" for name in ("replica", "replicas", "ahead", "datasets", "messages")]
    below = [*modules(SERVER / "core"), *modules(SERVER / "store"), *between]
    assert [path for path in below for name in imports(path) if under(name, "bots_server.service")] == []


def test_the_server_uses_only_the_clients_stubs() -> None:
    """Of the client's package the server imports the stubs alone."""
    ours = [(path, name) for path in modules(SERVER) for name in imports(path) if under(name, "bots")]
    assert ours
    assert [(path, name) for path, name in ours if not under(name, "bots.v1")] == []


def test_the_client_is_light() -> None:
    """The client library imports grpcio, protobuf and numpy, and nothing more."""
    library = [path for path in modules(CLIENT) if path.relative_to(CLIENT).parts[0] not in FOR_PEOPLE]
    assert offences(library, ("grpc", "google.protobuf", "numpy", "bots"), tuple(f"bots.{p}" for p in FOR_PEOPLE)) == []


def test_the_client_imports_no_server() -> None:
    """Nothing of the client's distribution imports the server; the commands start it as a process."""
    assert [path for path in modules(CLIENT) for name in imports(path) if under(name, "bots_server")] == []
