"""Real vectors for the benchmarks of sharding: every retrieval set of DATASETS, cut and embedded as the service does.

Texts are cut by the service's own chunker, and once more into windows of half the size, a corpus of its own beside the
first, until there are `WANTED` chunks. Made once (some minutes) and kept in a folder as `.npy` files.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.datasets import Question
from ingestion.chunk import chunk_document, embedding_text
from ingestion.parse.document import Block, ParsedDocument
from shards.embed import Embedder, load_embedder
from shards.neighbours import with_neighbours
from shards.settings import EmbedSettings

SETS = ("squad_dev", "cranfield", "multihop/hotpot100", "mtrag/clapnq", "mtrag/cloud")
WANTED = 64_000
CHUNK_TOKENS = (200, 100)
QUESTIONS_A_FILE = 600
_GROUP = 512
_FILES = ("rows", "row_sets", "sentences", "sentence_sets", "questions", "question_sets", "question_groups")


@dataclass(frozen=True)
class ShardCorpus:
    """`rows` (n, 384) unit vectors, `sentences` (s, 384) of sentences out of them, `questions` (q, 384) that people
    asked. `*_sets` index `SETS`; questions of one conversation share a group."""

    rows: NDArray[np.float32]
    row_sets: NDArray[np.int64]
    sentences: NDArray[np.float32]
    sentence_sets: NDArray[np.int64]
    questions: NDArray[np.float32]
    question_sets: NDArray[np.int64]
    question_groups: NDArray[np.int64]


def load(folder: Path) -> ShardCorpus:
    """Read what `python -m bench.shard_corpus DATASETS FOLDER` made."""
    if not (folder / "rows.npy").exists():
        sys.exit(f"{folder} holds no vectors: make them with `python -m bench.shard_corpus DATASETS {folder}`")
    return ShardCorpus(*(np.load(folder / f"{name}.npy") for name in _FILES))


async def make(data: Path, folder: Path) -> None:
    """Cut and embed everything."""
    embedder = load_embedder(EmbedSettings())
    rows, row_sets, texts = await _rows(data, embedder)
    chance = np.random.default_rng(1)
    picked = chance.permutation(len(texts))[:1500]
    sentences = [await embedder.embed_query(_window(texts[at], chance)) for at in picked]
    questions, question_sets, groups = _questions(data)
    asked = [await embedder.embed_query(text) for text in questions]
    vectors = np.stack([one.vector for one in sentences]), np.stack([one.vector for one in asked])
    found = (rows, row_sets, vectors[0], row_sets[picked], vectors[1], np.array(question_sets), np.array(groups))
    for name, values in zip(_FILES, found, strict=True):
        np.save(folder / f"{name}.npy", values)
    await embedder.aclose()
    print(json.dumps({"rows": len(rows), "sentences": len(sentences), "questions": len(questions)}))


async def _rows(data: Path, embedder: Embedder) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    found: list[NDArray[np.float32]] = []
    sets: list[int] = []
    kept: list[str] = []
    seen: set[str] = set()
    for tokens in CHUNK_TOKENS:
        for number, name in enumerate(SETS):
            waiting: list[tuple[str, int]] = []  # text to embed, number of its document
            for at, line in enumerate((data / name / "corpus.jsonl").open()):
                row = json.loads(line)
                if len(kept) + len(waiting) >= WANTED and tokens != CHUNK_TOKENS[0]:
                    break
                cut = _cut(row.get("title") or "", row.get("text") or "", embedder, tokens)
                fresh = [text for text in cut if text not in seen]
                seen.update(fresh)
                waiting += [(text, at) for text in fresh]
                if len(waiting) >= _GROUP:
                    found.append(await _embedded(waiting, embedder))
                    kept += [text for text, _ in waiting]
                    sets += [number] * len(waiting)
                    waiting = []
                    print(name, tokens, len(kept), file=sys.stderr, flush=True)
            if waiting:
                found.append(await _embedded(waiting, embedder))
                kept += [text for text, _ in waiting]
                sets += [number] * len(waiting)
    return np.concatenate(found), np.array(sets), kept


def _cut(title: str, text: str, embedder: Embedder, tokens: int) -> list[str]:
    if not text.strip():
        return []
    parsed = ParsedDocument(text=text, blocks=(Block("paragraph", 0, len(text)),), title=None, pages=None, format="txt")
    spans, limit = embedder.token_spans, embedder.max_tokens
    chunks = chunk_document(parsed, title=title, token_spans=spans, max_tokens=tokens, model_tokens=limit)
    return [embedding_text(title, chunk) for chunk in chunks]


async def _embedded(waiting: list[tuple[str, int]], embedder: Embedder) -> NDArray[np.float32]:
    vectors = (await embedder.embed_passages([text for text, _ in waiting])).vectors
    breaks = np.flatnonzero(np.diff([document for _, document in waiting])) + 1
    return np.concatenate([with_neighbours(part) for part in np.split(vectors, breaks)])


def _window(text: str, chance: np.random.Generator) -> str:
    words = text.split()
    length = int(chance.integers(5, 31))
    start = int(chance.integers(0, max(1, len(words) - length + 1)))
    return " ".join(words[start : start + length])


def _questions(data: Path) -> tuple[list[str], list[int], list[int]]:
    texts: list[str] = []
    sets: list[int] = []
    groups: list[int] = []
    known: dict[str, int] = {}
    for number, name in enumerate(SETS):
        for path in sorted((data / name).glob("queries*.jsonl")):
            asked = [Question.model_validate_json(line) for line in path.open()]
            for question in asked[:: max(1, len(asked) // QUESTIONS_A_FILE)]:
                texts.append(question.text)
                sets.append(number)
                groups.append(known.setdefault(name + question.id.split("<::>")[0], len(known)))
    return texts, sets, groups


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    asyncio.run(make(Path(sys.argv[1]), Path(sys.argv[2])))
