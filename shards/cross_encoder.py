"""A cross-encoder by setting: `TESSERA_SEARCH_RERANKER=cross_encoder:<model name or folder>`.

Needs the extra `tessera[torch]`; the default reranker needs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from tenants.errors import Misconfigured


class CrossEncoder:
    """Scores pairs of question and passage with a sentence-transformers cross-encoder."""

    def __init__(self, model: str) -> None:
        self.name = f"cross_encoder:{model}"
        try:
            library: Any = importlib.import_module("sentence_transformers")
        except ModuleNotFoundError as error:
            raise Misconfigured(
                "TESSERA_SEARCH_RERANKER names a cross-encoder, which needs `pip install 'tessera[torch]'`."
            ) from error
        self._model = library.CrossEncoder(model)

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return one relevance score a passage."""
        return [float(score) for score in self._model.predict([(question, passage) for passage in passages])]
