"""How well each quotable unit of the passages speaks to the question: by meaning, word by word, by type.

Nothing is decided here: `selection.py` ranks by these measures and `confidence.py` says whether they suffice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.answer.answer_types import asked_type, holds_type
from rag.answer.candidates import Candidate, embedding_text, list_candidates, passage_stems
from rag.answer.terms import Term, coverage, question_terms
from rag.passages import Passage
from shards import late_interaction
from shards.embed import Embedder, PassageEmbeddings, QueryEmbedding

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """The candidates (n) in reading order by passage, and measures of each, float32 (n,).

    cosine: of question and unit;
    late: how well the question's words are matched in the unit, weighted by idf, 1 = perfectly;
    own, passage: share of the question's terms, by idf, in the unit, in the whole passage with title and headings;
    former: share of the words of earlier questions in the unit with its headings;
    typed: 1 if it holds the kind of answer asked for, -1 if it does not, 0 if no kind is asked for;
    place: int (n,), the passage.

    `matches`, float32 (w, n), is `late` for each of the question's w content words, `weights` (w,) their idf;
    `in_passage` the stems of each passage.
    """

    terms: Sequence[Term]
    candidates: Sequence[Candidate]
    cosine: Floats
    late: Floats
    own: Floats
    passage: Floats
    former: Floats
    typed: Floats
    place: NDArray[np.intp]
    matches: Floats
    weights: Floats
    in_passage: Sequence[frozenset[str]]


async def gather_evidence(
    question: str,
    passages: Sequence[Passage],
    earlier: Sequence[str],
    *,
    idf: Mapping[str, float],
    query: QueryEmbedding,
    embedder: Embedder,
) -> Evidence:
    """Split, embed and measure. `earlier` are former questions of the user; without passages arrays are empty."""
    terms = question_terms(question, idf)
    candidates = await asyncio.to_thread(list_candidates, terms, passages)
    texts = [embedding_text(embedder, one) for one in candidates]
    embedded = await embedder.embed_passages(texts)
    return await asyncio.to_thread(_measure, question, terms, passages, candidates, earlier, query, embedded)


def _measure(
    question: str,
    terms: Sequence[Term],
    passages: Sequence[Passage],
    candidates: Sequence[Candidate],
    earlier: Sequence[str],
    query: QueryEmbedding,
    embedded: PassageEmbeddings,
) -> Evidence:
    known = {term.stem for term in terms}
    former = [term for term in question_terms("\n".join(earlier), {}) if term.stem not in known]
    in_passage = [passage_stems(passage) for passage in passages]
    covered = [coverage(terms, found) for found in in_passage]
    weight_of = _word_weights(terms, query)
    rows = [late_interaction.scores(query, {word: 1.0}, embedded.token_bits) for word in weight_of]
    matches = np.array(rows, dtype=np.float32).reshape(len(weight_of), len(candidates))
    weights = _floats(weight_of.values())
    return Evidence(
        terms=terms,
        candidates=candidates,
        cosine=embedded.vectors @ query.vector,
        late=weights @ matches / max(float(weights.sum()), 1e-6),
        own=_floats(coverage(terms, one.own) for one in candidates),
        passage=_floats(covered[one.place] for one in candidates),
        former=_floats(coverage(former, one.own | one.around) for one in candidates),
        typed=_typed(question, candidates),
        place=np.array([one.place for one in candidates], dtype=np.intp),
        matches=matches,
        weights=weights,
        in_passage=in_passage,
    )


def _word_weights(terms: Sequence[Term], query: QueryEmbedding) -> dict[str, float]:
    """The question's content words as the embedder knows them, with their terms' weights; all alike if none is."""
    weight_of = {term.word: term.weight for term in terms}
    known = {word: weight_of[word] for word in query.words if word in weight_of}
    return known or dict.fromkeys(query.words, 1.0)


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, dtype=np.float32)


def _typed(question: str, candidates: Sequence[Candidate]) -> Floats:
    kind = asked_type(question)
    if kind is None:
        return np.zeros(len(candidates), dtype=np.float32)
    return _floats(1.0 if holds_type(kind, one.text, question) else -1.0 for one in candidates)
