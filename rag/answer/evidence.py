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
PRESENT, ABSENT = 1.0, 0.2
"""What stands for the soft match of a term that the embedder has no word for, on the scale of the others."""


@dataclass(frozen=True)
class Evidence:
    """The candidates (n) in reading order by passage, and measures of each, float32 (n,).

    cosine: of question and unit;
    late: how well the question's words are matched in the unit, weighted by idf, 1 = perfectly;
    own, passage: share of the question's terms, by idf, in the unit, in the whole passage with title and headings;
    former: share of the words of earlier questions in the unit with its headings;
    typed: 1 if it holds the kind of answer asked for, -1 if it does not, 0 if no kind is asked for;
    place: int (n,), the passage.

    `matches`, float32 (t, n), is `late` for each of the question's t terms, `weights` (t,) their idf; `in_passage`
    the stems of each passage.
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
    matches = _matches(terms, candidates, query, embedded)
    weights = _floats(term.weight for term in terms)
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


def _matches(
    terms: Sequence[Term], candidates: Sequence[Candidate], query: QueryEmbedding, embedded: PassageEmbeddings
) -> Floats:
    """By late interaction, for words as the embedder knows them; else, as for text without spaces, by presence."""
    soft = {
        word: late_interaction.scores(query, {word: 1.0}, embedded.token_bits)
        for word in {term.word for term in terms} & set(query.words)
    }
    rows = [
        soft[term.word]
        if term.word in soft
        else _floats(PRESENT if term.stem in one.own else ABSENT for one in candidates)
        for term in terms
    ]
    return np.array(rows, dtype=np.float32).reshape(len(terms), len(candidates))


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, dtype=np.float32)


def _typed(question: str, candidates: Sequence[Candidate]) -> Floats:
    kind = asked_type(question)
    if kind is None:
        return np.zeros(len(candidates), dtype=np.float32)
    return _floats(1.0 if holds_type(kind, one.text, question) else -1.0 for one in candidates)
