"""Which files of a folder, repository or bucket are taken: those of a known type, or those that a pattern names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from ingestion.parse.formats import EXTENSIONS
from ingestion.sources.entries import Entry, bounded_key, bounded_text


def is_wanted(path: str, include: Sequence[str]) -> bool:
    """Whether a file is taken: by the patterns (`*` crosses folders), else by its extension; hidden files are not."""
    name = PurePosixPath(path)
    if any(part.startswith(".") for part in name.parts):
        return False
    if include:
        return any(fnmatchcase(path, pattern) or fnmatchcase(name.name, pattern) for pattern in include)
    return name.suffix.lower() in EXTENSIONS


def file_entry(path: str, stamp: str | None) -> Entry:
    """Return the entry of a file; its path may hold bytes that are no text."""
    shown = path.encode("utf-8", "replace").decode()
    return Entry(bounded_key(path), path, stamp=stamp, metadata={"path": bounded_text(shown)})
