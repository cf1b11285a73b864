"""Search by the service against its engines, on the local stores and on real servers, in one run; prints one JSON line.

    python -m bench.servers_search --data DATASETS --local DIR --servers DIR [--documents 11000] [--questions 300]

DIR are the data folders of two running stacks: of `make up` (Milvus Lite, tantivy) and of `make up SERVERS=1` (Milvus,
OpenSearch). Each is measured as `bench.search` measures it, a part of the questions at a time and the stacks in turns,
so that whatever else the machine does touches both alike.

    ratio = p95 of the service / (p95 of the embedding + the larger p95 of the two engines), at most 1.3
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from bench.local_stack import print_line, running
from bench.search import WARM_UP, Opened, asked_of, opened, timed
from service.local.state import StackState
from service.settings import Settings

MOST = 1.3
PART = 25


def settings_of(data_dir: Path) -> tuple[StackState, Settings]:
    """A running stack and its settings; the environment stays as it is, for there are two."""
    before = dict(os.environ)
    try:
        return running(data_dir)
    finally:
        os.environ.clear()
        os.environ.update(before)


async def in_parts(stacks: dict[str, Opened], texts: list[str]) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by stack and part of it."""
    spent: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in stacks}
    for on in stacks.values():
        await timed(on.parts, texts[:WARM_UP], warm_up=0)
    for start in range(0, len(texts), PART):
        for name, on in stacks.items():
            for part, taken in (await timed(on.parts, texts[start : start + PART], warm_up=0)).items():
                spent[name][part] += taken
    return spent


def verdict(spent: dict[str, list[float]]) -> dict[str, object]:
    """Quantiles of one stack, and whether it keeps to the bar."""
    p50, p95 = ({part: float(np.quantile(ms, share)) for part, ms in spent.items()} for share in (0.5, 0.95))
    ratios = [one["service"] / (one["embedding"] + max(one["milvus"], one["bm25"])) for one in (p50, p95)]
    return {
        "p50_ms": {part: round(value, 2) for part, value in p50.items()},
        "p95_ms": {part: round(value, 2) for part, value in p95.items()},
        "ratio_p50": round(ratios[0], 3),
        "ratio_p95": round(ratios[1], 3),
        "ok": ratios[1] <= MOST,
    }


async def bench(data: Path, folders: dict[str, Path], slug: str, documents: int, limit: int) -> dict[str, object]:
    corpus, texts = asked_of(data, documents, limit)
    async with AsyncExitStack() as opening:
        stacks = {
            name: await opening.enter_async_context(opened(*settings_of(folder), slug, corpus, texts))
            for name, folder in folders.items()
        }
        spent = await in_parts(stacks, texts)
        return {
            "bench": "servers_search",
            "questions": len(texts),
            "bar": MOST,
            **{name: {"chunks": on.chunks, **verdict(spent[name])} for name, on in stacks.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds mtrag/cloud and mtrag/clapnq")
    parser.add_argument("--local", type=Path, default=Path(".tessera"), help="data folder of the stack of `make up`")
    parser.add_argument("--servers", type=Path, required=True, help="data folder of that of `make up SERVERS=1`")
    parser.add_argument("--tenant", default="bench-search", help="slug of the tenant to fill and keep")
    parser.add_argument("--documents", type=int, default=11_000)
    parser.add_argument("--questions", type=int, default=300)
    chosen = parser.parse_args()
    folders = {"local": chosen.local, "servers": chosen.servers}
    print_line(asyncio.run(bench(chosen.data, folders, chosen.tenant, chosen.documents, chosen.questions)))


if __name__ == "__main__":
    main()
