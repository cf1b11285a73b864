"""The reranker that the settings name."""

from __future__ import annotations

from rag.search.rerank import CrossEncoding, LateInteraction, Reranker
from rag.settings import SearchSettings
from shards.cross_encoder import CrossEncoder
from tenants.errors import Misconfigured


def build_reranker(settings: SearchSettings) -> Reranker | None:
    """Return the reranker, or None when reranking is off.

    Raises:
        Misconfigured: TESSERA_SEARCH_RERANKER is none of the known values.
    """
    kind, _, model = settings.reranker.partition(":")
    if kind == "none":
        return None
    if kind == "late_interaction":
        return LateInteraction()
    if kind == "cross_encoder" and model:
        return CrossEncoding(CrossEncoder(model))
    raise Misconfigured(
        f"TESSERA_SEARCH_RERANKER is {settings.reranker!r};"
        " it takes `late_interaction`, `none` or `cross_encoder:<model name or folder>`."
    )
