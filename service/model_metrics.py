"""What `/metrics` says of embedding and reranking: as this process sees them, and as all workers do together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric

from rag.pipeline import Retriever
from shards.call_seconds import CallSeconds, Seconds
from shards.embed_models import EmbedModels


def model_metrics(models: EmbedModels, retriever: Retriever, workers: Mapping[str, CallSeconds]) -> Iterator[Metric]:
    """Yield the families; `workers` are the sums over all workers, by model."""
    yield _embedding("tessera_embedding_seconds", "Embedding a question, or a batch of passages.", models.seconds)
    yield _embedding("tessera_worker_embedding_seconds", "The same by all workers together.", workers)
    reranking = HistogramMetricFamily(
        "tessera_reranking_seconds", "Reranking the best of a search.", labels=["reranker", "outcome"]
    )
    if retriever.reranker is not None:
        for (_, outcome), seconds in sorted(retriever.reranking.found.items()):
            add_seconds(reranking, [retriever.reranker.name, outcome], seconds)
    yield reranking


def _embedding(name: str, help_text: str, models: Mapping[str, CallSeconds]) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=["model", "call", "outcome"])
    for model, calls in sorted(models.items()):
        for (call, outcome), seconds in sorted(calls.found.items()):
            add_seconds(family, [model, call, outcome], seconds)
    return family


def add_seconds(family: HistogramMetricFamily, labels: list[str], seconds: Seconds) -> None:
    """Add a histogram to its family."""
    bounds = [*map(str, seconds.bounds_s), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(seconds.counts)), strict=True))
    family.add_metric(labels, buckets=buckets, sum_value=seconds.total_s)
