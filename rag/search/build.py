"""The reranker that the settings name."""

from __future__ import annotations

from rag.search.rerank import CrossEncoding, LateInteraction, Reranker
from rag.settings import SearchSettings
from shards.addresses import address_fault
from shards.cross_encoder import CrossEncoder
from shards.remote_reranker import RemoteReranker
from tenants.errors import Misconfigured


def build_reranker(settings: SearchSettings) -> Reranker | None:
    """Return the reranker, or None when reranking is off.

    Raises:
        Misconfigured: TESSERA_SEARCH_RERANKER is none of the known values, or TESSERA_SEARCH_RERANK_URL no address.
    """
    kind, _, model = settings.reranker.partition(":")
    if kind == "none":
        return None
    if kind == "late_interaction":
        return LateInteraction()
    if kind == "cross_encoder" and model:
        return CrossEncoding(CrossEncoder(model, device=settings.rerank_device, precision=settings.rerank_precision))
    if kind == "remote" and model:
        return CrossEncoding(_remote(model, settings))
    raise Misconfigured(
        f"TESSERA_SEARCH_RERANKER is {settings.reranker!r};"
        " it takes `late_interaction`, `none`, `cross_encoder:<model name or folder>` or `remote:<model>`."
    )


def _remote(model: str, settings: SearchSettings) -> RemoteReranker:
    addresses = [address.strip() for address in settings.rerank_url.split(",") if address.strip()]
    if not addresses:
        raise Misconfigured(
            f"TESSERA_SEARCH_RERANKER is {settings.reranker!r}; TESSERA_SEARCH_RERANK_URL must say where that is,"
            " for example http://host:8000/v1."
        )
    for fault in filter(None, map(address_fault, addresses)):
        raise Misconfigured(f"TESSERA_SEARCH_RERANK_URL {fault}")
    return RemoteReranker(
        model,
        addresses,
        settings.rerank_key,
        form=settings.rerank_form,
        budget_s=settings.rerank_timeout_s,
        at_once=settings.rerank_at_once,
    )
