"""How good one ranked list is, by the conventions of trec_eval (https://github.com/usnistgov/trec_eval).

With r(i) the grade of the document at rank i (1 = best; without a judgement, or with a negative grade, it is 0) and R
the number of documents whose grade is positive, found or not:

    DCG@k     sum over i <= k of r(i) / log2(i + 1)                  linear gain, as `ndcg_cut`
    nDCG@k    DCG@k / DCG@k of the best possible list
    recall@k  documents with r(i) > 0 at i <= k, divided by R        as `recall`
    MRR@k     1 / the first rank i <= k with r(i) > 0, else 0        as `recip_rank` of the list cut at k
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

RECALL_DEPTHS = (5, 10, 100)
MEASURES = ("ndcg@10", *(f"recall@{depth}" for depth in RECALL_DEPTHS), "mrr@10")


def measure(ranked: Sequence[str], grades: Mapping[str, int]) -> dict[str, float]:
    """Return every one of MEASURES, each 0..1, for one question.

    Args:
        ranked: document ids, best first, each once.
        grades: document id -> grade; at least one is positive.

    Raises:
        ValueError: a document is ranked twice, or no grade is positive (the best possible list would be empty).
    """
    if len(set(ranked)) != len(ranked):
        raise ValueError("a document is ranked twice")
    gains = [max(grades.get(document, 0), 0) for document in ranked]
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    if not best:
        raise ValueError("no document is judged to answer the question")
    found = {"ndcg@10": _dcg(gains[:10]) / _dcg(best[:10])}
    for depth in RECALL_DEPTHS:
        found[f"recall@{depth}"] = sum(gain > 0 for gain in gains[:depth]) / len(best)
    first = next((place for place, gain in enumerate(gains[:10], start=1) if gain > 0), None)
    found["mrr@10"] = 1 / first if first else 0.0
    return found


def judged_ranks(ranked: Sequence[str], grades: Mapping[str, int]) -> dict[str, int]:
    """Return document id -> rank of the judged documents that were found: all that any of MEASURES depends on."""
    return {document: place for place, document in enumerate(ranked, start=1) if document in grades}


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))
