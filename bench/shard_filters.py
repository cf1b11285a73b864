"""Recall and time of a filtered search on real vectors through Milvus Lite; prints one JSON line.

    python -m bench.shard_filters VECTORS [--questions 60]

VECTORS is made by `python -m bench.shard_corpus`. Filters match 0.1%, 1%, 10% and 50% of the chunks: at random, or by
topic (the chunks nearest to a random one, as a department or a product would be), asked by questions on that topic (the
nearest ones) and by questions on others. Filtered and unfiltered searches take turns; `p95_ratio` compares them.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.local_stack import print_line
from bench.shard_corpus import load
from bench.shard_engine import Laid, lay_out
from bench.stores import milvus_lite
from shards.calibration import calibrate_on_sentences
from shards.cells import cell_count, divide
from shards.milvus import MilvusVectors
from shards.routing import routing_over
from shards.settings import MilvusSettings, ShardSettings

TARGET = 0.98
SHARES = (0.001, 0.01, 0.1, 0.5)
TOPICS = 4


async def asked(
    laid: Laid, rows: NDArray[np.float32], cases: list[tuple[NDArray[np.intp], NDArray[np.float32]]]
) -> dict[str, Any]:
    """Ask the questions of each case under its filter, and without one."""
    spent: dict[str, list[float]] = {"filtered": [], "unfiltered": []}
    recalls: list[float] = []
    plans: Counter[str] = Counter()
    rounds, scanned = [], []
    for allowed, queries in cases:
        matches = laid.matches(allowed)
        for query in queries:
            best = allowed[np.argsort(-(rows[allowed] @ query), kind="stable")[:10]]
            for name, more in (("filtered", {"matches": matches}), ("unfiltered", {})):
                began = time.perf_counter()
                found = await laid.ask(query, TARGET, **more)
                spent[name].append(1000 * (time.perf_counter() - began))
                if name == "filtered":
                    hits = {hit.chunk_id for hit in found.hits[:10]}
                    recalls.append(sum(laid.ids[row] in hits for row in best) / len(best))
                    plans[found.plan] += 1
                    rounds.append(found.rounds)
                    scanned.append(found.rows_scanned / len(rows))
    p95 = {name: float(np.percentile(ms, 95)) for name, ms in spent.items()}
    return {
        "recall": round(float(np.mean(recalls)), 4),
        "p95_ms": round(p95["filtered"], 1),
        "p95_ratio": round(p95["filtered"] / p95["unfiltered"], 2),
        "rows": round(float(np.mean(scanned)), 4),
        "rounds": round(float(np.mean(rounds)), 2),
        "plans": dict(plans),
    }


def cases_of(
    rows: NDArray[np.float32], questions: NDArray[np.float32], share: float, kind: str, count: int
) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    rng = np.random.default_rng(int(1000 * share) + 1)
    size = int(share * len(rows))
    if kind == "random":
        return [(np.sort(rng.permutation(len(rows))[:size]), questions[rng.permutation(len(questions))[:count]])]
    found = []
    for _ in range(TOPICS):
        centre = rows[rng.integers(len(rows))]
        allowed = np.sort(np.argpartition(-(rows @ centre), size)[:size])
        order = np.argsort(-(questions @ centre))
        nearest, others = order[: len(order) // 10], order[len(order) // 2 :]
        pool = nearest if kind == "on topic" else others
        found.append((allowed, questions[rng.permutation(pool)[: count // TOPICS]]))
    return found


async def bench(folder: Path, count: int) -> dict[str, Any]:
    corpus, settings = load(folder), ShardSettings()
    sentences = corpus.sentences[: settings.calibration_sentences]
    rows = corpus.rows
    made = divide(rows, cell_count(len(rows), settings), settings.micros_per_cell, seed=1)
    routing = routing_over(rows, made, seed=0)
    curve = calibrate_on_sentences(routing, rows, made.micro_of, sentences, 1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as kept, milvus_lite(Path(kept)) as uri:
        store = MilvusVectors(MilvusSettings(uri=uri, timeout_s=120))
        laid = await lay_out(store, rows, made, routing, curve)
        await asyncio.sleep(3)
        for kind in ("random", "on topic", "off topic"):
            for share in SHARES:
                cases = cases_of(rows, corpus.questions, share, kind, count)
                found[f"{kind} {share:g}"] = await asked(laid, rows, cases)
        await store.aclose()
    return {
        "bench": "shard_filters",
        "chunks": len(rows),
        "questions": count,
        **found,
        "bars": {
            "recall_.98": all(one["recall"] >= TARGET for one in found.values()),
            "p95_3x": all(one["p95_ratio"] <= 3.0 for one in found.values()),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--questions", type=int, default=60)
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.vectors, chosen.questions)))


if __name__ == "__main__":
    main()
