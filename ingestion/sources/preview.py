"""What a run would do, found out without doing it: the first entries of a source, each compared with what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from ingestion.sources.entries import Connector, Unchanged
from ingestion.sources.models import Source, SourceEntry
from ingestion.sources.reading import Outcome, read_all
from ingestion.sources.runs import COUNTS, shown

LISTED = 100
"""Most entries that a preview reads."""
_AT_A_TIME = 16
Kept = Callable[[Sequence[str] | None], Awaitable[Mapping[str, SourceEntry]]]
"""Returns what is kept of entries by their keys; of all without keys."""


async def look(connector: Connector, source: Source, kept: Kept, *, at_once: int) -> dict[str, Any]:
    """Return the counts of a run over the first entries, and these with what would become of each.

    `complete` says whether these are all; only then is told which entries are missing. Raises `SourceFailed`.
    """
    found: list[Outcome] = []
    complete = True
    try:
        async with aclosing(connector.batches()) as batches:
            async for entries in batches:
                left = iter(entries[: LISTED - len(found)])
                complete = len(entries) <= LISTED - len(found)
                while some := list(islice(left, _AT_A_TIME)):
                    known = await kept([entry.key for entry in some])
                    outcomes = await read_all(connector, source, some, known, at_once=at_once)
                    _close(outcomes)
                    found += outcomes
                if not complete:
                    break
    except Unchanged:
        everything = await kept(None)
        return _counts(Counter(unchanged=len(everything))) | {"complete": True, "entries": []}
    complete = complete and connector.complete
    missing = await _missing(kept, found) if complete else []
    counts = Counter(outcome.change for outcome in found) + Counter(vanished=len(missing))
    return _counts(counts) | {"complete": complete, "entries": [*map(_entry, found), *missing]}


async def _missing(kept: Kept, found: Sequence[Outcome]) -> list[dict[str, Any]]:
    keys = sorted(set(await kept(None)) - {outcome.entry.key for outcome in found})
    return [{"key": key, "title": None, "url": None, "change": "vanished", "error": None} for key in keys]


def _entry(outcome: Outcome) -> dict[str, Any]:
    entry = outcome.entry
    return {
        "key": entry.key,
        "title": entry.title,
        "url": entry.metadata.get("url"),
        "change": outcome.change,
        "error": shown(outcome.error) if outcome.error is not None else None,
    }


def _counts(counts: Counter[str]) -> dict[str, Any]:
    return {name: counts[name] for name in COUNTS}


def _close(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.incoming is not None:
            outcome.incoming.content.close()
