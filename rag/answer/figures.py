"""What a process has counted of its answers, for `/metrics`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from shards.call_seconds import Seconds

BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)


@dataclass
class GenerationFigures:
    """First tokens by model; fallbacks by reason; further tries by what made them necessary (`late` are hedges)."""

    first_tokens: dict[str, Seconds] = field(default_factory=dict)
    fallbacks: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)

    def first_token(self, model: str, seconds: float) -> None:
        """Count the time from the question to the model's first token, over all tries."""
        self.first_tokens.setdefault(model, Seconds(BOUNDS_S)).add(seconds)
