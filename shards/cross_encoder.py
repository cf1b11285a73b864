"""A cross-encoder by setting: `TESSERA_SEARCH_RERANKER=cross_encoder:<model name or folder>`.

Needs the extra `tessera[torch]`; the default reranker needs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards import torch_models
from shards.torch_models import Precision

_PAIRS_AT_ONCE = 64


class CrossEncoder:
    """Scores pairs of question and passage with a sentence-transformers cross-encoder, one call at a time.

    Raises:
        Misconfigured: it cannot be loaded.
    """

    def __init__(self, model: str, *, device: str = "auto", precision: Precision = "auto") -> None:
        self.name = f"cross_encoder:{model}"
        self._turn = asyncio.Lock()
        self._model: Any = torch_models.load("CrossEncoder", model, device, precision, "TESSERA_SEARCH_RERANKER")

    async def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return one relevance score a passage; higher is better."""
        pairs = [(question, passage) for passage in passages]
        if not pairs:
            return []
        what, code = f"The reranker {self.name!r}", "reranker_unavailable"
        compute = partial(torch_models.by_halves, self._predict, pairs, what, code)
        found = await torch_models.in_turn(self._turn, compute)
        return [float(score) for score in found]

    async def check(self) -> None:
        """Nothing that loading it has not shown."""

    async def aclose(self) -> None:
        """Nothing of it is open."""

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        found = self._model.predict(list(pairs), batch_size=_PAIRS_AT_ONCE, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)
