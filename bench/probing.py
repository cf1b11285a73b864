"""Recall and work of a search of the cells, on real vectors; prints one JSON line.

    python -m bench.shard_corpus DATASETS VECTORS     once: cuts and embeds the sets
    python -m bench.probing VECTORS [--splits 8] [--engine 400]

"Expected hits" against a fixed number of probes, of plain k-means cells and of micro-cells grouped in cells, each with
its free number chosen on a random third of the questions (whole conversations) and measured on the others. Then the
threshold from sentences of the tenant's own chunks alone, on all questions, and the same search through a Milvus Lite
server on some of them. `bars` says which of the issue's figures hold.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.local_stack import print_line
from bench.shard_corpus import ShardCorpus, load
from bench.shard_engine import lay_out
from bench.stores import milvus_lite
from shards.calibration import K, calibrate_on_sentences, true_rows
from shards.cells import assign, divide, train
from shards.milvus import MilvusVectors
from shards.routing import Routing, routing_over
from shards.settings import MilvusSettings, ShardSettings

TARGETS = (0.95, 0.98, 0.99)
Flags = NDArray[np.bool_]


class Ranked:
    """A way to order cells for each question: `worth` (q, cells), the highest visited first, down to a threshold."""

    def __init__(self, worth: NDArray[np.float32], cell_of_row: NDArray[np.int64], best: NDArray[np.int64]) -> None:
        self.worth = worth.copy()
        self.worth[np.arange(len(worth)), worth.argmax(axis=1)] = np.inf
        self.share = np.bincount(cell_of_row, minlength=worth.shape[1]) / len(cell_of_row)
        self.of_hits = np.take_along_axis(self.worth, cell_of_row[best], axis=1)

    def at(self, threshold: float, which: Flags) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Recall and share of the rows visited, for each of some questions."""
        visited = (self.worth[which] >= threshold) @ self.share
        return (self.of_hits[which] >= threshold).mean(axis=1), visited

    def threshold(self, target: float, which: Flags, margin: float) -> float:
        """The highest threshold that keeps the target on some questions, a margin of standard errors above it."""
        grid = -np.arange(self.worth.shape[1]) if self.worth.min() < 0 else np.geomspace(5, 0.0005, 400)
        for candidate in grid:
            recall, _ = self.at(float(candidate), which)
            if recall.mean() - margin * recall.std() / np.sqrt(len(recall)) >= target:
                return float(candidate)
        return -np.inf


def splits(groups: NDArray[np.int64], count: int) -> list[Flags]:
    """A random third of the conversations, several times."""
    rng = np.random.default_rng(5)
    known = np.unique(groups)
    return [np.isin(groups, rng.permutation(known)[: len(known) // 3]) for _ in range(count)]


def held_out(ranked: Ranked, thirds: list[Flags], target: float) -> dict[str, float]:
    recalls, rows, low, below = [], [], [], []
    for third in thirds:
        recall, visited = ranked.at(ranked.threshold(target, third, 1.64), ~third)
        recalls.append(recall.mean())
        rows.append(visited.mean())
        low.append(np.quantile(recall, 0.05))
        below.append((recall < 0.8).mean())
    return {
        "recall": round(float(np.mean(recalls)), 4),
        "recall_least": round(float(np.min(recalls)), 4),
        "p5": round(float(np.mean(low)), 2),
        "below_.8": round(float(np.mean(below)), 4),
        "rows": round(float(np.mean(rows)), 4),
    }


def expected_worth(routing: Routing, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Worth of every cell for every question, and the median time of one routing in milliseconds."""
    spent, found = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(routing.worth(routing.expect(query, K)))
        spent.append(time.perf_counter() - began)
    return np.stack(found), 1000 * float(np.median(spent))


async def through_engine(corpus: ShardCorpus, made: Any, routing: Routing, curve: Any, count: int) -> dict[str, Any]:
    chosen = np.random.default_rng(3).permutation(len(corpus.questions))[:count]
    best = true_rows(corpus.rows, corpus.questions[chosen])
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as folder, milvus_lite(Path(folder)) as uri:
        store = MilvusVectors(MilvusSettings(uri=uri, timeout_s=60))
        laid = await lay_out(store, corpus.rows, made, routing, curve)
        place = {chunk_id: row for row, chunk_id in enumerate(laid.ids)}
        spent: dict[str, list[float]] = {"cells": [], "exact": []}
        recalls, rows, predicted = [], [], []
        for number, question in enumerate(chosen):
            for exact in (number % 2 == 0, number % 2 == 1):
                began = time.perf_counter()
                found = await laid.ask(corpus.questions[question], 0.98, exact=exact)
                spent[found.plan].append(1000 * (time.perf_counter() - began))
                if not exact:
                    hits = {place[hit.chunk_id] for hit in found.hits[:K]}
                    recalls.append(len(hits & set(best[number].tolist())) / K)
                    rows.append(found.rows_scanned / len(corpus.rows))
                    predicted.append(found.predicted)
        await store.aclose()
    times = {plan: {f"p{p}_ms": round(float(np.percentile(ms, p)), 2) for p in (50, 95)} for plan, ms in spent.items()}
    return {
        "questions": len(chosen),
        "recall": round(float(np.mean(recalls)), 4),
        "predicted": round(float(np.mean(predicted)), 4),
        "rows": round(float(np.mean(rows)), 4),
        **times,
    }


async def bench(folder: Path, split_count: int, engine: int) -> dict[str, Any]:
    corpus, settings = load(folder), ShardSettings()
    sentences = corpus.sentences[: settings.calibration_sentences]
    rows, questions = corpus.rows, corpus.questions
    cells = round(len(rows) / settings.rows_per_cell)
    best, thirds = true_rows(rows, questions), splits(corpus.question_groups, split_count)
    began = time.perf_counter()
    made = divide(rows, cells, settings.micros_per_cell, seed=1)
    trained_s = time.perf_counter() - began
    routing = routing_over(rows, made, seed=0)
    cell_of_row = made.cell_of[made.micro_of]
    worth, route_ms = expected_worth(routing, questions)
    plain = train(rows, cells, seed=1)
    near = np.full((len(questions), cells), -1, dtype=np.float32)
    np.maximum.at(near.T, made.cell_of, made.centroids @ questions.T)
    orders = {
        "expected_hits": Ranked(worth, cell_of_row, best),
        "plain_fixed": Ranked(_by_rank(questions @ plain.T), assign(rows, plain), best),
        "micro_fixed": Ranked(_by_rank(near), cell_of_row, best),
    }
    found = {name: {str(t): held_out(order, thirds, t) for t in TARGETS} for name, order in orders.items()}
    curve = calibrate_on_sentences(routing, rows, made.micro_of, sentences, 1)
    everything = np.ones(len(questions), dtype=np.bool_)
    own = {t: orders["expected_hits"].at(curve.threshold(t).worth, everything) for t in TARGETS}
    from_sentences = {
        str(t): {"recall": round(float(r.mean()), 4), "rows": round(float(s.mean()), 4)} for t, (r, s) in own.items()
    }
    expected = found["expected_hits"]
    return {
        "bench": "probing",
        "chunks": len(rows),
        "questions": len(questions),
        "cells": cells,
        "micros": len(made.centroids),
        "train_s": round(trained_s, 1),
        "route_ms": round(route_ms, 3),
        **found,
        "own_sentences": from_sentences,
        "engine_.98": await through_engine(corpus, made, routing, curve, engine) if engine else None,
        "bars": {
            "recall": all(expected[str(t)]["recall"] >= t for t in TARGETS),
            "rows_at_.98": expected["0.98"]["rows"] <= 0.06,
            "route_1ms": route_ms <= 1.0,
            "own_sentences": all(from_sentences[str(t)]["recall"] >= t for t in TARGETS),
        },
    }


def _by_rank(near: NDArray[np.float32]) -> NDArray[np.float32]:
    """Worth that makes a threshold a number of probes."""
    order = np.argsort(-near, axis=1)
    worth = np.empty_like(near)
    np.put_along_axis(worth, order, -np.arange(near.shape[1], dtype=np.float32)[None].repeat(len(near), 0), axis=1)
    return worth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--engine", type=int, default=400, help="questions asked through Milvus Lite; 0 for none")
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.vectors, chosen.splits, chosen.engine)))


if __name__ == "__main__":
    main()
