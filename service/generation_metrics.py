"""What `/metrics` says of the models and their servers, as this process sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from rag.answer.figures import GenerationFigures
from rag.answer.routed import RoutedGenerator
from rag.answer.serving import Server
from service.model_metrics import add_seconds


def generation_metrics(generator: RoutedGenerator) -> Iterator[Metric]:
    """Yield the families."""
    yield from _servers(generator.servers)
    yield _first_tokens(generator.figures)
    yield _counted("fallbacks", "Answers that the model that was asked did not write, or not to its end.", generator)
    yield _counted("retries", "Further servers that an answer was asked of, by what made them necessary.", generator)


def _servers(servers: Sequence[Server]) -> Iterator[Metric]:
    up = GaugeMetricFamily("tessera_generation_up", "Whether a model server gets requests.", labels=["server"])
    own = GaugeMetricFamily("tessera_generation_outstanding", "Answers of this process there.", labels=["server"])
    running = GaugeMetricFamily("tessera_generation_running", "Requests that it computes.", labels=["server"])
    waiting = GaugeMetricFamily("tessera_generation_waiting", "Requests that wait there.", labels=["server"])
    cache = GaugeMetricFamily("tessera_generation_cache_usage", "Share of its cache that is taken.", labels=["server"])
    hits = GaugeMetricFamily("tessera_generation_prefix_hits", "Share of tokens found in its cache.", labels=["server"])
    by_url: dict[str, list[Server]] = {}
    for server in servers:
        by_url.setdefault(server.url, []).append(server)
    for url, known in by_url.items():  # several where models on it have keys of their own
        up.add_metric([url], float(any(server.up for server in known)))
        own.add_metric([url], sum(server.outstanding for server in known))
        load = next((server.last_load for server in known if server.last_load is not None), None)
        if load is not None:
            running.add_metric([url], load.running)
            waiting.add_metric([url], load.waiting)
            cache.add_metric([url], load.cache)
            hits.add_metric([url], load.prefix_hits / load.prefix_queries if load.prefix_queries else 0.0)
    yield from (up, own, running, waiting, cache, hits)


def _first_tokens(figures: GenerationFigures) -> Metric:
    family = HistogramMetricFamily(
        "tessera_generation_first_token_seconds", "From the question to a model's first token.", labels=["model"]
    )
    for model, seconds in sorted(figures.first_tokens.items()):
        add_seconds(family, [model], seconds)
    return family


def _counted(name: str, help_text: str, generator: RoutedGenerator) -> Metric:
    counts: Counter[str] = getattr(generator.figures, name)
    family = CounterMetricFamily(f"tessera_generation_{name}", help_text, labels=["reason"])
    for reason, count in sorted(counts.items()):
        family.add_metric([reason], count)
    return family
