"""Released source of trainers: downloaded, and read or executed in parts, not installed."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any


def source(package: str, version: str, module: str, folder: Path) -> str:
    """Returns the text of a module (its path in the wheel ends so) of a release; the newest if the version is empty."""
    wanted = f"{package}=={version}" if version else package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    if not (wheels := list(folder.glob("*.whl"))):
        subprocess.run([*command, "--dest", str(folder), wanted], check=True, capture_output=True, text=True)
        wheels = list(folder.glob("*.whl"))
    (wheel,) = wheels
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name == module or name.endswith(f"/{module}"))
        return archive.read(name).decode()


def node(text: str, path: str) -> Any:
    """Returns the syntax tree of a function, a class, or a method ("Class.method") of a module."""
    found: Any = ast.parse(text)
    for name in path.split("."):
        (found,) = (one for one in found.body if getattr(one, "name", None) == name)
    return found


def defined(text: str, path: str, **given: Any) -> Any:
    """Returns a function, a class or a method of a module, executed alone with `given` as its globals."""
    found = node(text, path)
    (future,) = ast.parse("from __future__ import annotations").body
    scope = dict(given)
    exec(compile(ast.Module([future, found], []), path, "exec"), scope)
    return scope[found.name]


def signatures(text: str, owner: str) -> dict[str, list[str]]:
    """Returns the names of the parameters of a class's methods."""
    methods = [one for one in node(text, owner).body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {method.name: [argument.arg for argument in method.args.args] for method in methods}
