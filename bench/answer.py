"""The built-in answerer: how often it answers, hits and abstains by kind of question; where its constants come from.

    python -m bench.answer --data DATASETS [--examples examples] [--cache FOLDER] [--fit]

DATASETS holds squad_dev, mtrag and injection. Documents go through the real parser, chunker, embedder and BM25 index;
the search is the service's (fusion and late interaction, six passages). Prints one JSON line. With `--fit` the
constants of `rag/answer/selection.py` and `rag/answer/confidence.py` are fitted anew: on one half of the articles and
conversations for the figures of the other half, then on both for the constants to write down. The examples and
`impossible` questions that SQuAD's annotators wrote to deceive count in the figures; the examples are never fitted to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pickle
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.answer_corpora import Searcher, load_corpus
from bench.answer_fit import conditional_logit, logistic
from bench.answer_questions import COMPANIES, Asked, all_questions
from rag.answer import confidence, selection
from rag.answer.evidence import Evidence, gather_evidence
from rag.answer.extractive import EARLIER_QUESTIONS
from rag.answer.quoting import quotes_of, render
from rag.passages import Passage
from rag.settings import GenerationSettings
from shards.embed import Embedder, PassageEmbeddings, QueryEmbedding, load_embedder
from shards.settings import EmbedSettings

FALSE_ABSTENTION = 0.09
"""Share of the answerable SQuAD questions that the threshold may cost, on the questions that are fitted to."""
Weights = dict[str, float]


@dataclass(frozen=True)
class Seen:
    """A question with what the answerer saw."""

    asked: Asked
    passages: list[Passage]
    evidence: Evidence


class Remembering:
    """An embedder that embeds a text once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, tuple[NDArray[np.float32], bytes]] = {}
        self.name, self.dim, self.max_tokens = embedder.name, embedder.dim, embedder.max_tokens

    async def embed_passages(self, texts: Sequence[str]) -> PassageEmbeddings:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        made = await self._embedder.embed_passages(new)
        self._known.update(zip(new, zip(made.vectors, made.token_bits, strict=True), strict=True))
        vectors = [self._known[text][0] for text in texts]
        stacked = np.array(vectors, dtype=np.float32).reshape(len(texts), self.dim)
        return PassageEmbeddings(stacked, [self._known[text][1] for text in texts])

    async def embed_query(self, text: str) -> QueryEmbedding:
        return await self._embedder.embed_query(text)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return self._embedder.token_spans(text)

    async def aclose(self) -> None:
        await self._embedder.aclose()


async def observe(data: Path, examples: Path, cache: Path) -> list[Seen]:
    """Search for every question and gather the evidence."""
    kept = cache / "seen.pickle"
    if kept.exists():
        found: list[Seen] = pickle.loads(kept.read_bytes())
        return found
    embedder = Remembering(load_embedder(EmbedSettings()))
    searcher = Searcher(embedder, cache)
    names = ("squad", "cloud", "clapnq", *COMPANIES)
    corpora = {name: await load_corpus(name, data, examples, embedder, cache) for name in names}
    for corpus in corpora.values():
        await searcher.add(corpus)
    keys = {
        name: {str(one.external_id): int(at) for one, at in zip(corpus.passages, corpus.document, strict=True)}
        for name, corpus in corpora.items()
    }
    seen: list[Seen] = []
    for asked in all_questions(data, examples):
        without = [keys[asked.corpus][key] for key in asked.without]
        corpus = corpora[asked.corpus]
        passages, query, idf = await searcher.search(
            corpus, asked.text, asked.earlier, without, GenerationSettings().passages
        )
        earlier = asked.earlier[-EARLIER_QUESTIONS:]
        evidence = await gather_evidence(asked.text, passages, earlier, idf=idf, query=query, embedder=embedder)
        seen.append(Seen(asked, passages, evidence))
    await embedder.aclose()
    kept.write_bytes(pickle.dumps(seen))
    return seen


def holds(asked: Asked, text: str) -> bool:
    """Whether one of the right answers is in a text."""
    plain = " ".join(text.lower().split())
    return any(" ".join(answer.lower().split()) in plain for answer in asked.answers)


@dataclass
class Tally:
    """Counts of one kind of question; hits among those that have known answers."""

    asked: int = 0
    abstained: int = 0
    hits: int = 0
    units: int = 0
    leaks: int = 0


def is_answerable(kind: str) -> bool:
    """Whether the documents answer questions of this kind."""
    return kind in {"answerable", "handbook", "handbook follow-up"} or kind.endswith((" answerable", " rewritten"))


def importance(asked: Asked) -> float:
    """The weight of a question in the fit of `confidence`; 0 leaves it out."""
    if asked.kind in {"answerable", "goldless", "articleless", "altered number", "altered name"}:
        return 1.0
    if asked.kind.startswith("foreign") or asked.kind.endswith(" rewritten"):
        return 0.5
    if asked.kind == "impossible":
        return 0.3
    return 0.5 if asked.kind.endswith(" answerable") and not asked.earlier else 0.0


def fit(seen: Sequence[Seen]) -> tuple[Weights, Weights]:
    """The constants of `selection` and of `confidence`, from the questions that may be fitted to."""
    names = [name for name in selection.WEIGHTS if name != "former"]
    groups = []
    for one in seen:
        if one.asked.kind == "answerable" and one.evidence.candidates:
            columns = [getattr(one.evidence, name).astype(np.float64) for name in names]
            right = [holds(one.asked, candidate.text) for candidate in one.evidence.candidates]
            groups.append((np.column_stack(columns), np.array(right)))
    rank = dict(zip(names, conditional_logit(groups).tolist(), strict=True))
    rank["former"] = selection.WEIGHTS["former"]
    known = [(one.asked, found) for one in seen if importance(one.asked) and (found := judged(one, rank)[0])]
    measured = [name for name in confidence.WEIGHTS if name != "always"]
    rows = np.array([[*(found[name] for name in measured), 1.0] for _, found in known])
    answers = np.array([float(is_answerable(asked.kind)) for asked, _ in known])
    weights = np.array([importance(asked) for asked, _ in known])
    for side in (0.0, 1.0):
        weights[answers == side] *= len(known) / 2 / weights[answers == side].sum()
    fitted = logistic(rows, answers, weights)
    squad = np.array([asked.kind == "answerable" for asked, _ in known])
    fitted[-1] -= np.quantile((rows @ fitted)[squad], FALSE_ABSTENTION)
    return rank, dict(zip([*measured, "always"], fitted.tolist(), strict=True))


def report(seen: Sequence[Seen], rank: dict[int, Weights], sure: dict[int, Weights]) -> dict[str, Tally]:
    """What the answerer does with each question, under the constants for its half."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for one in seen:
        tally = tallies[one.asked.kind]
        tally.asked += 1
        found, scores = judged(one, rank[one.asked.half])
        if found is None or confidence.confidence(found, sure[one.asked.half]) < 0:
            tally.abstained += 1
            continue
        chosen = [one.evidence.candidates[at] for at in selection.choose(one.evidence, scores)]
        said = "\n".join(render(quote, one.passages[quote.place], 1) for quote in quotes_of(one.passages, chosen))
        tally.units += len(chosen)
        tally.hits += holds(one.asked, said)
        tally.leaks += any(fact in said for fact in one.asked.metadata.get("leak", ()))
    return dict(sorted(tallies.items()))


def judged(one: Seen, weights: Weights) -> tuple[dict[str, float] | None, NDArray[np.float64]]:
    """The measures of the best unit, `None` when there is no unit at all, and the scores of all units."""
    scores = selection.rank_scores(one.evidence, weights)
    if not len(scores):
        return None, scores
    return confidence.measures(one.asked.text, one.passages, one.evidence, int(scores.argmax())), scores


async def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--examples", type=Path, default=Path("examples"))
    parser.add_argument("--cache", type=Path, default=Path(".tessera/bench-answer"))
    parser.add_argument("--fit", action="store_true")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    seen = await observe(given.data, given.examples, given.cache)
    rank, sure = dict.fromkeys((0, 1), selection.WEIGHTS), dict.fromkeys((0, 1), confidence.WEIGHTS)
    line: dict[str, Any] = {"bench": "answer", "fitted": given.fit}
    if given.fit:
        line["rank"], line["sure"] = fit(seen)
        halves = [fit([one for one in seen if one.asked.half != half]) for half in (0, 1)]
        rank = {half: halves[half][0] for half in (0, 1)}
        sure = {half: halves[half][1] for half in (0, 1)}
    line["kinds"] = {kind: vars(tally) for kind, tally in report(seen, rank, sure).items()}
    print(json.dumps(line))


if __name__ == "__main__":
    asyncio.run(main())
