"""Corpora for `bench.answer`: documents through the real parser and chunker, searched as the service searches them."""

from __future__ import annotations

import json
import pickle
import random
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestion.chunk import Chunk, chunk_document, embedding_text
from ingestion.parse.detect import detect_format
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.flow import ParseItem
from ingestion.parse.limits import ParseLimits
from ingestion.parse.sandbox import parse_documents
from ingestion.parse.txt import parse_txt
from ingestion.settings import IngestSettings
from rag.passages import Passage, Ranks
from rag.search.fuse import fuse
from rag.search.rerank import blend
from rag.search.rewrite import embed_question
from rag.settings import SearchSettings
from shards import late_interaction
from shards.bm25 import TantivyLexical
from shards.embed import Embedder, QueryEmbedding
from shards.lexical import ChunkText
from shards.settings import LexicalSettings
from shards.vectors import Scored, VersionScope

DISTRACTORS = 2500
DEPTH = 100


@dataclass(frozen=True)
class Corpus:
    """Passages with their vectors, float32 (n, dim), and token bits; `document[i]` is the number of a document."""

    name: str
    passages: list[Passage]
    vectors: NDArray[np.float32]
    bits: list[bytes]
    document: NDArray[np.int64]

    @property
    def index(self) -> str:
        """The name of its lexical index."""
        return f"t_{uuid.uuid5(uuid.NAMESPACE_URL, self.name).hex}"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def load_corpus(name: str, data: Path, examples: Path, embedder: Embedder, cache: Path) -> Corpus:
    """`squad`, `cloud`, `clapnq`, or the folder of an example company; kept in `cache` once embedded."""
    kept = cache / f"{name}.pickle"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    documents = await _examples(examples / name) if (examples / name).is_dir() else _dataset(name, data)
    settings = IngestSettings()
    passages: list[Passage] = []
    texts: list[str] = []
    numbers: list[int] = []
    for number, (key, title, parsed) in enumerate(documents):
        chunks = chunk_document(
            parsed,
            title=title,
            token_spans=embedder.token_spans,
            max_tokens=settings.chunk_tokens,
            model_tokens=embedder.max_tokens,
        )
        for chunk in chunks:
            passages.append(_passage(name, key, title, chunk))
            texts.append(embedding_text(title, chunk))
            numbers.append(number)
    embedded = await embedder.embed_passages(texts)
    corpus = Corpus(name, passages, embedded.vectors, embedded.token_bits, np.array(numbers))
    kept.write_bytes(pickle.dumps(corpus))
    return corpus


def _passage(name: str, key: str, title: str, chunk: Chunk) -> Passage:
    document = uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{key}")
    return Passage(
        chunk_id=uuid.uuid5(document, str(chunk.position)),
        document_id=document,
        external_id=key,
        title=title,
        headings=chunk.headings,
        text=chunk.text,
        page=chunk.page,
        start=chunk.start,
        end=chunk.end,
        version=1,
        as_of=datetime.now(UTC),
        metadata={},
        score=0.0,
        ranks=Ranks(None, None, None),
    )


def _dataset(name: str, data: Path) -> list[tuple[str, str, ParsedDocument]]:
    """squad whole; of the larger sets every judged passage and a sample of the others."""
    folder = data / ("squad_dev" if name == "squad" else f"mtrag/{name}")
    rows = read_lines(folder / "corpus.jsonl")
    if name != "squad":
        judged = {
            line.split("\t")[1]
            for file in ("qrels.tsv", "qrels_un.tsv")
            for line in (folder / file).read_text().splitlines()[1:]
        }
        others = [row for row in rows if row["_id"] not in judged]
        rows = [row for row in rows if row["_id"] in judged] + random.Random(0).sample(others, DISTRACTORS)
    limits = TextLimits()
    return [(row["_id"], row.get("title") or "", parse_txt(row["text"].encode(), limits)) for row in rows]


async def _examples(folder: Path) -> list[tuple[str, str, ParsedDocument]]:
    listed = json.loads((folder / "manifest.json").read_text())["documents"]
    paths = [folder / one["file"] for one in listed]
    items = [ParseItem(path, detect_format(path.read_bytes(), path.name, None), path.name) for path in paths]
    parsed = await parse_documents(items, ParseLimits())
    return [(one["external_id"], one["title"], document) for one, document in zip(listed, parsed, strict=True)]


class Searcher:
    """Dense and BM25, fused and reranked with the service's defaults, over corpora in memory and on disk."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self.embedder = embedder
        self.lexical = TantivyLexical(LexicalSettings(path=folder / "lexical"))
        self.settings = SearchSettings()

    async def add(self, corpus: Corpus) -> None:
        """Index the words of a corpus unless that was done before."""
        if await self.lexical.count(corpus.index):
            return
        rows = [
            ChunkText(one.chunk_id, int(version), " > ".join([one.title, *one.headings]), one.text)
            for one, version in zip(corpus.passages, corpus.document, strict=True)
        ]
        await self.lexical.insert(corpus.index, rows)

    async def search(
        self, corpus: Corpus, question: str, earlier: Sequence[str], without: Collection[int], k: int
    ) -> tuple[list[Passage], QueryEmbedding, dict[str, float]]:
        """The best `k` passages from documents not in `without`, the embedded question and its words' idf."""
        query = await embed_question(self.embedder, question, earlier)
        allowed = ~np.isin(corpus.document, list(without))
        similar = np.where(allowed, corpus.vectors @ query.vector, -1.0)
        nearest = np.argsort(-similar)[:DEPTH]
        place = {one.chunk_id: at for at, one in enumerate(corpus.passages)}
        ann = [Scored(corpus.passages[at].chunk_id, float(similar[at])) for at in nearest]
        scope = VersionScope(np.unique(corpus.document[allowed])) if without else None
        bm25 = await self.lexical.search(corpus.index, question, k=DEPTH, scope=scope)
        idf = await self.lexical.word_idf(corpus.index, query.words)
        best = fuse(ann, bm25, bm25_weight=self.settings.bm25_weight)[: self.settings.rerank_depth]
        at = [place[hit.chunk_id] for hit in best]
        late = late_interaction.scores(query, idf, [corpus.bits[i] for i in at]).tolist()
        scores = blend([hit.score for hit in best], late, weight=self.settings.rerank_weight)
        order = sorted(range(len(at)), key=lambda i: -scores[i])[:k]
        return [corpus.passages[at[i]] for i in order], query, idf
