"""Finds the files that paths name: files, folders, globs, and folders of Hugging Face datasets."""

from __future__ import annotations

import glob
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bots.files.errors import DataError
from bots.files.sources import FORMAT_OF_ENDING, Source, ending_of, explained, line_of, source_of, spooled

PARTS = re.compile(r"(?P<split>.+)-(?P<part>\d{5,})-of-(?P<parts>\d{5,})(-[0-9a-f]+)?$")


def find(paths: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """Returns the files that are named: in the order given, those of a folder or a glob by name.

    A path is a file, a folder, a glob, or "-" for the standard input. DataError: a path names no data.
    """
    found: list[Source] = []
    for path in paths:
        found += [spooled(Path("-"), sys.stdin.buffer)] if os.fspath(path) == "-" else _named(Path(path))
    seen: set[Path] = set()
    for source in found:
        real = source.path.resolve()
        if real in seen and source.spool is None:
            raise DataError(source.path, "must be named only once", kind="file")
        seen.add(real)
    if not found:
        raise ValueError("files: got none, must be at least one")
    return found


def _named(path: Path) -> list[Source]:
    with explained(path):
        if path.is_dir():
            return _folder(path)
        if not path.exists() and glob.has_magic(str(path)):
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
            if not matches:
                raise DataError(path, "must match at least one file", kind="file")
            return [source for match in matches for source in _named(match)]
        if path.is_fifo():
            with path.open("rb") as stream:
                return [spooled(path, stream)]
        return [source_of(path)]


def _folder(folder: Path) -> list[Source]:
    if (folder / "dataset_dict.json").exists():
        splits = _description(folder / "dataset_dict.json", "splits")
        if len(splits) != 1:
            rule = f"must be one split of the dataset: {', '.join(str(folder / split) for split in splits)}"
            raise DataError(folder, rule, kind="file")
        folder = folder / splits[0]
    if (folder / "state.json").exists():
        if _description(folder / "state.json", "_indices_data_files"):
            rule = "must be saved without an index: call flatten_indices() before save_to_disk"
            raise DataError(folder, rule, kind="file")
        return [source_of(folder / file["filename"]) for file in _description(folder / "state.json", "_data_files")]
    files = [path for path in sorted(folder.rglob("*")) if _is_data(path.relative_to(folder)) and path.is_file()]
    if not files:
        raise DataError(folder, f"must hold files whose names end in {', '.join(FORMAT_OF_ENDING)}", kind="file")
    sources = [replace(source_of(path), folder=folder) for path in files]
    _check_alike(folder, sources)
    return sources


def _description(file: Path, name: str) -> list[Any]:
    """Returns a list that a description of a dataset holds; empty if it has none."""
    try:
        held = json.loads(file.read_text(encoding="utf-8")).get(name)
    except (json.JSONDecodeError, AttributeError) as error:
        raise DataError(file, f"must be one JSON object ({line_of(error)})", kind="file") from error
    return held or []


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    about = path.name in ("dataset_info.json", "dataset_infos.json")
    return not hidden and not about and ending_of(path) in FORMAT_OF_ENDING


def _check_alike(folder: Path, sources: Sequence[Source]) -> None:
    """Raises DataError if the files are in several formats or splits, or if parts are missing."""
    formats = {source.ending for source in sources}
    if len({FORMAT_OF_ENDING[ending] for ending in formats}) > 1:
        rule = (
            f"must hold one format, has {', '.join(sorted(formats))}: name the files, such as {folder}/*{min(formats)}"
        )
        raise DataError(folder, rule, kind="file")
    parts = [match for source in sources if (match := PARTS.match(source.path.name.split(".")[0]))]
    splits = sorted({match["split"] for match in parts})
    if len(splits) > 1:
        rule = f"must hold one split, has {', '.join(splits)}: name the files, such as '{folder}/**/{splits[-1]}-*'"
        raise DataError(folder, rule, kind="file")
    if parts and len(parts) != int(parts[0]["parts"]):
        rule = (
            f"must hold all {int(parts[0]['parts'])} parts of {splits[0]!r}, has {len(parts)}: name the files instead"
        )
        raise DataError(folder, rule, kind="file")
