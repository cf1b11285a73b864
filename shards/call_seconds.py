"""How long calls of a model took: histograms of this process, for `/metrics`."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from tenants.errors import Unavailable

T = TypeVar("T")
QUESTION, BATCH = "question", "batch"
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass
class Seconds:
    """A histogram: `counts[i]` of the calls up to `bounds_s[i]`, the last of those above all."""

    bounds_s: tuple[float, ...] = BOUNDS_S
    counts: list[int] = field(init=False)
    total_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin with none."""
        self.counts = [0] * (len(self.bounds_s) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds


@dataclass
class CallSeconds:
    """Of one model: histograms by what was called and whether it was `answered` or the model was `away`."""

    found: dict[tuple[str, str], Seconds] = field(default_factory=dict)

    async def count(self, call: str, work: Awaitable[T]) -> T:
        """Wait for a call and count it. One that fails for its content or is given up says nothing of the model."""
        began = time.perf_counter()
        try:
            result = await work
        except Unavailable:
            self._add(call, "away", time.perf_counter() - began)
            raise
        self._add(call, "answered", time.perf_counter() - began)
        return result

    def _add(self, call: str, outcome: str, seconds: float) -> None:
        self.found.setdefault((call, outcome), Seconds()).add(seconds)
