"""How a version scope is obeyed on Milvus: pushed down as a filter, or by fetching more hits and dropping.

Both are exact. A filter costs by its length and more hits by their number, both in each cell that is visited, because
the server evaluates the one and merges the other cell by cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from shards.milvus_clients import Server
from shards.vectors import MAX_K, EngineCosts, VersionScope

LITE = EngineCosts(call=2.0, row=0.0009, literal=0.0025, hit=0.0008, returned=0.023, fetch=0.08)
"""Measured on Milvus Lite 3.2 with 384 dimensions."""
SERVER = EngineCosts(call=2.5, row=0.0008, literal=0.0011, hit=0.0005, returned=0.015, fetch=0.085)
"""Measured on Milvus 2.3.5, standalone, with 384 dimensions (`bench.engine_costs`); `hit` was below what could be told
from noise."""
_PUSH_AT_ONCE = 32
"""So few literals cost less than a second search would."""
_RANGE_FROM = 4
"""A run this long is cheaper as two comparisons than as literals."""
_MOST_RANGES = 24
"""Each range is a comparison over the rows of each segment, so a long list of ranges loses to literals."""


def costs_of(server: Server | None) -> EngineCosts:
    """Return what a search costs on a server; nothing is known of one that was not called yet."""
    return LITE if server is None or server.lite else SERVER


class ScopeFilter:
    """A scope as an expression over `version_no`, made of integers by us and never of a caller's text."""

    def __init__(self, scope: VersionScope, costs: EngineCosts) -> None:
        self._costs = costs
        runs = scope.runs()
        sizes = runs[:, 1] - runs[:, 0] + 1
        ranked = [int(i) for i in (-sizes).argsort(kind="stable")[:_MOST_RANGES] if sizes[i] >= _RANGE_FROM]
        as_range = set(ranked)
        self._ranges = [(int(runs[i, 0]), int(runs[i, 1])) for i in sorted(as_range)]
        self._literals = [
            version
            for i, (first, last) in enumerate(runs.tolist())
            if i not in as_range
            for version in range(first, last + 1)
        ]

    @property
    def literals(self) -> int:
        """Return how many integers the server has to parse."""
        return len(self._literals) + 2 * len(self._ranges)

    def expression(self) -> str:
        """Return the filter in Milvus's grammar."""
        parts = [f"(version_no >= {first} and version_no <= {last})" for first, last in self._ranges]
        if self._literals:
            parts.insert(0, versions_in(self._literals))
        return " or ".join(parts)

    def first_fetch(self, k: int) -> int | None:
        """Return how many hits to fetch and sift first, None when pushing the filter down is cheaper."""
        if self.literals <= _PUSH_AT_ONCE:
            return None
        return self._affordable(4 * k)

    def next_fetch(self, k: int, fetched: int, kept: int) -> int | None:
        """Return how many hits to fetch after `kept` < k of `fetched` were in scope, None to push the filter down."""
        return self._affordable(math.ceil(1.5 * fetched * k / kept) if kept else 4 * fetched)

    def _affordable(self, hits: int) -> int | None:
        costs = self._costs
        return hits if hits <= MAX_K and hits * costs.hit <= self.literals * costs.literal else None


def versions_in(versions: Sequence[int]) -> str:
    """Return the filter that matches these versions."""
    return f"version_no in [{','.join(str(int(version)) for version in versions)}]"
