"""Names and times the steps of a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds by step name; steps may overlap."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; a step entered twice adds up."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - begun) * 1000
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + spent, 3)

    def total(self) -> dict[str, float]:
        """Return the timings with the total so far."""
        return {**self.timings_ms, "total": round((time.perf_counter() - self._start) * 1000, 3)}
