"""The picture of an index is drawn whatever is known of it, and the summary reads as sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.cli.shard_picture import draw
from service.cli.shards import summary

CURVE = {"threshold": [1.0, 0.1, 0.01], "recall": [0.8, 0.97, 1.0], "rows_share": [0.01, 0.05, 0.4]}
KNOWN = {"source": "sentences", "questions": 300, "target": 0.98, "threshold": 0.05, "recall": 0.981}
SEEN = {"samples": 40, "recall": 0.97, "low": 0.95, "high": 0.99, "rows_share": 0.06}


def shown(cells: int, *, known: bool, seen: bool) -> dict[str, Any]:
    return {
        "generation": 3,
        "tier": "dedicated" if known else "pooled",
        "collection": "t_0_g3" if known else "pool_384_0/b7",
        "drift": {"scatter": 1.02, "made_anew": 0.05, "retrain_at": [1.1, 0.3]} if known else None,
        "embedding_model": "all-MiniLM-L6-v2",
        "chunk_tokens": None,
        "next": {"generation": 4, "embedding_model": "e5", "chunk_tokens": 120} if seen else None,
        "rows": 250 * cells,
        "cells": [
            {
                "cell": n,
                "micro_cells": 16,
                "rows": 250,
                "heat": float(n),
                "x": n / 10,
                "y": -n / 7,
                "recall": 0.9 if n % 3 else None,
            }
            for n in range(cells)
        ],
        "calibration": {**KNOWN, "rows_share": 0.06, "curve": CURVE} if known else None,
        "recall": SEEN if seen else None,
        "searches": 12,
        "used_at": "2026-11-21T10:00:00Z",
        "released_at": "2026-11-21T11:00:00Z" if seen else None,
        "woke_ms": 12.6 if seen else None,
    }


@pytest.mark.parametrize(("cells", "known", "seen"), [(40, True, True), (40, True, False), (1, False, False)])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_it_is_drawn(tmp_path: Path, cells: int, known: bool, seen: bool, ending: str) -> None:
    path = tmp_path / f"index.{ending}"
    draw("acme", shown(cells, known=known, seen=seen), path)
    start = path.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<svg" in path.read_bytes()
    assert path.stat().st_size > 5000


def test_the_summary_says_what_is_promised_and_measured() -> None:
    lines = summary(shown(40, known=True, seen=True))
    assert lines["promised"] == "recall 0.981 for 6.0% of the rows (target 0.98), from 300 sentences"
    assert lines["moving to"] == "e5, chunks of at most 120 tokens"
    assert lines["embedded by"] == "all-MiniLM-L6-v2"
    assert lines["measured"] == "recall 0.970 (0.950 to 0.990) for 6.0% of the rows, 40 sampled questions"
    assert "sampled" in summary(shown(40, known=True, seen=False))["measured"]
    assert "exact" in summary(shown(1, known=False, seen=False))["search"]
    assert lines["generation"] == "3, dedicated (t_0_g3)"
    assert "1.02 times" in lines["drift"]
    assert lines["last load"] == "13 ms"
    assert "released" in lines["memory"]
    assert "no document" in summary({"generation": None})["generation"]
