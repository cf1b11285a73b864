"""What `/metrics` says of embedding and reranking, as this process sees them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric

from rag.pipeline import Retriever
from shards.call_seconds import BOUNDS_S, Seconds
from shards.embed_models import EmbedModels

_BOUNDS = [*map(str, BOUNDS_S), "+Inf"]


def model_metrics(models: EmbedModels, retriever: Retriever) -> Iterator[Metric]:
    """Yield the families."""
    embedding = HistogramMetricFamily(
        "tessera_embedding_seconds",
        "Embedding a question, or a batch of passages.",
        labels=["model", "call", "outcome"],
    )
    for model, calls in sorted(models.seconds.items()):
        for (call, outcome), seconds in sorted(calls.found.items()):
            _add(embedding, [model, call, outcome], seconds)
    yield embedding
    reranking = HistogramMetricFamily(
        "tessera_reranking_seconds", "Reranking the best of a search.", labels=["reranker", "outcome"]
    )
    if retriever.reranker is not None:
        for (_, outcome), seconds in sorted(retriever.reranking.found.items()):
            _add(reranking, [retriever.reranker.name, outcome], seconds)
    yield reranking


def _add(family: HistogramMetricFamily, labels: list[str], seconds: Seconds) -> None:
    buckets = list(zip(_BOUNDS, map(float, accumulate(seconds.counts)), strict=True))
    family.add_metric(labels, buckets=buckets, sum_value=seconds.total_s)
