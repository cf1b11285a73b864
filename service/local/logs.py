"""Log files of the children: one each, bounded at every start."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 5_000_000
KEEP = 3
TAIL_BYTES = 16_384


def rotate(path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
    """Move a log over the limit aside (`.1` is the newest), keeping at most `keep` old ones."""
    if not path.exists() or path.stat().st_size <= max_bytes:
        return
    older = [path.with_name(f"{path.name}.{number}") for number in range(keep, 0, -1)]
    for target, source in zip(older, [*older[1:], path], strict=True):
        if source.exists():
            source.replace(target)


def tail(path: Path, lines: int = 12, *, since: int = 0) -> list[str]:
    """Return the last lines of a log that lie after byte `since`; none when it is missing or empty."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(since, path.stat().st_size - TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace").splitlines()[-lines:]
