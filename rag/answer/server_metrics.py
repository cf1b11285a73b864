"""What a vLLM server says of its own load in `/metrics`.

Other servers have no such figures, and nothing forces a server to tell the truth: what cannot be is not believed, and
whoever chooses never counts less than what this process itself has there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""The newer name first; the older one was that of vLLM before 0.10."""
_QUERIES, _HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
_WANTED = (_RUNNING, _WAITING, *_CACHE, _QUERIES, _HITS)
_MOST = 1e6
"""Requests beyond which a figure is nonsense."""


@dataclass(frozen=True)
class ServerLoad:
    """Requests that a server computes and that wait for it; the share of its cache that is taken, 0..1; tokens that
    were looked up in its prefix cache, and those that were found there."""

    running: float
    waiting: float
    cache: float
    prefix_queries: float = 0.0
    prefix_hits: float = 0.0


def read_load(text: str) -> ServerLoad | None:
    """Return the load, None where the text has no figures of vLLM or figures that cannot be.

    Of several engines behind one address the requests are added, and the fullest cache counts.
    """
    # The parser is slow and the page long: it gets the few lines that count.
    lines = [line for line in text.splitlines() if line.startswith(_WANTED)]
    samples: dict[str, list[float]] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample.value)
    except ValueError:
        return None
    if _RUNNING not in samples or _WAITING not in samples:
        return None
    caches = next((samples[name] for name in _CACHE if name in samples), [0.0])
    load = ServerLoad(
        sum(samples[_RUNNING]),
        sum(samples[_WAITING]),
        max(caches),
        sum(samples.get(_QUERIES, ())),
        sum(samples.get(_HITS, ())),
    )
    requests = (load.running, load.waiting)
    plausible = all(math.isfinite(value) and 0 <= value <= _MOST for value in requests) and 0 <= load.cache <= 1
    return load if plausible else None
