"""What a process has counted of its answers, for `/metrics`."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)


@dataclass
class Times:
    """A histogram of seconds: `counts[i]` of those up to `BOUNDS_S[i]`, the last of those above all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds


@dataclass
class GenerationFigures:
    """First tokens by model; fallbacks by reason; further tries by what made them necessary (`late` are hedges)."""

    first_tokens: dict[str, Times] = field(default_factory=dict)
    fallbacks: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)

    def first_token(self, model: str, seconds: float) -> None:
        """Count the time from the question to the model's first token, over all tries."""
        self.first_tokens.setdefault(model, Times()).add(seconds)
