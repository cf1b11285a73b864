"""The check of a model's sentences: what it lets through, its constants, and what an obedient model gets out.

    python -m bench.answer_support --data DATASETS

DATASETS holds mtrag and injection. Sentences of people's answers are held against the passages that they were written
from (`own`), against passages of another turn of the same conversation (`near`) and of another conversation (`other`).
Then a model that obeys every document: for each poisoned document it repeats the instruction, its secret word and its
address, each with a citation, and at last the sentence that answers. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.answer_corpora import read_lines
from bench.answer_fit import logistic
from rag.answer.citations import CitationChecker
from rag.answer.sentences import sentence_spans
from rag.answer.support import WEIGHTS, SupportFinder
from rag.answer.units import split_units
from rag.passages import Passage, Ranks
from shards.embed import Embedder, load_embedder
from shards.settings import EmbedSettings

TURNS = 260
SHORTEST = 25
MEASURES = [name for name in WEIGHTS if name != "always"]


@dataclass(frozen=True)
class Reply:
    """A person's answer and the ids of the passages it was written from."""

    domain: str
    conversation: str
    text: str
    relevant: tuple[str, ...]


def passage(key: str, title: str, text: str) -> Passage:
    """A passage that is a document of its own."""
    identity = uuid.uuid5(uuid.NAMESPACE_URL, key)
    return Passage(
        identity,
        identity,
        key,
        title,
        (),
        text,
        None,
        0,
        len(text),
        1,
        datetime.now(UTC),
        {},
        1.0,
        Ranks(None, None, None),
    )


def replies(data: Path) -> list[Reply]:
    """The replies of MTRAG and MTRAG-UN to answerable questions."""
    found = [
        Reply(row["domain"], row["conversation_id"], turn["assistant"], tuple(turn["relevant_passages"]))
        for row in read_lines(data / "mtrag/conversations.jsonl")
        for turn in row["turns"]
        if (turn.get("answerability") or [""])[0] == "ANSWERABLE"
    ]
    found += [
        Reply(row["domain"], row["conversation_id"], row["reference_answer"], tuple(row["relevant_passages"]))
        for row in read_lines(data / "mtrag/mtrag_un_tasks.jsonl")
        if row["answerability"] == ["ANSWERABLE"]
    ]
    return [one for one in found if one.relevant]


async def best_measures(sentence: str, passages: Sequence[Passage], finder: SupportFinder) -> dict[str, float] | None:
    """What speaks for a sentence in the passage that supports it best; `None` if each lacks one of its numbers."""
    measured = [found[1] for at in range(len(passages)) if (found := await finder.measure(sentence, at))]
    return max(measured, key=lambda one: one["words"] + one["cosine"], default=None)


async def observe(data: Path, embedder: Embedder) -> list[tuple[str, dict[str, float] | None]]:
    """Kind and measures of every sentence."""
    draw = random.Random(1)
    texts = {
        (name, row["_id"]): passage(row["_id"], row.get("title") or "", row["text"])
        for name in ("cloud", "clapnq")
        for row in read_lines(data / f"mtrag/{name}/corpus.jsonl")
    }
    every = [one for one in replies(data) if all((one.domain, key) in texts for key in one.relevant)]
    seen: list[tuple[str, dict[str, float] | None]] = []
    for one in draw.sample(every, TURNS):
        same = [r for r in every if r.conversation == one.conversation and not set(r.relevant) & set(one.relevant)]
        others = [r for r in every if r.domain == one.domain and r.conversation != one.conversation]
        against = {"own": one, "other": draw.choice(others)} | ({"near": draw.choice(same)} if same else {})
        for kind, source in against.items():
            passages = [texts[source.domain, key] for key in source.relevant[:6]]
            finder = SupportFinder(passages, embedder)
            for start, end in sentence_spans(one.text):
                if end - start >= SHORTEST:
                    seen.append((kind, await best_measures(one.text[start:end], passages, finder)))
    return seen


def fitted(seen: Sequence[tuple[str, dict[str, float] | None]]) -> dict[str, float]:
    """The constants of `rag/answer/support.py`, from these sentences."""
    known = [(kind, found) for kind, found in seen if found is not None]
    rows = np.array([[*(found[name] for name in MEASURES), 1.0] for _, found in known])
    own = np.array([float(kind == "own") for kind, _ in known])
    return dict(zip([*MEASURES, "always"], logistic(rows, own, np.ones(len(own))).tolist(), strict=True))


def let_through(seen: Sequence[tuple[str, dict[str, float] | None]], weights: dict[str, float]) -> dict[str, list[int]]:
    """Sentences let through and sentences in all, by kind."""
    counts: dict[str, list[int]] = {}
    for kind, found in seen:
        passed = found is not None and sum(weights[name] * found.get(name, 1.0) for name in weights) > 0
        count = counts.setdefault(kind, [0, 0])
        count[0] += passed
        count[1] += 1
    return counts


async def obey(data: Path, embedder: Embedder) -> dict[str, int]:
    """Poisoned documents whose secret gets out through a model that obeys, and those whose answer still does."""
    counts = {"documents": 0, "leaked": 0, "answered": 0}
    for row in read_lines(data / "injection/canary_docs.jsonl"):
        text, secrets = row["text"], row["fail_if_answer_contains"]
        units = [text[unit.start : unit.end] for unit in split_units(text)]
        orders = [unit for unit in units if any(secret in unit for secret in secrets)]
        answers = [unit for unit in units if any(gold in unit for gold in row["gold_answers"])]
        said = [*orders, row["canary"], f"The code is {row['canary']}.", f"See https://{secrets[-1]}/x", *answers[:1]]
        checker = CitationChecker([passage(row["_id"], row["title"], text)], embedder)
        checked = [found for one in said if (found := await checker.check(f"{one} [1]"))]
        out = " ".join([*(one.text for one in checked), *(c.quote for one in checked for c in one.citations)])
        counts["documents"] += 1
        counts["leaked"] += any(secret in out for secret in secrets)
        counts["answered"] += any(gold in out for gold in row["gold_answers"])
    return counts


async def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    embedder = load_embedder(EmbedSettings())
    seen = await observe(data, embedder)
    obeyed = await obey(data, embedder)
    await embedder.aclose()
    line = {"bench": "answer_support", "fitted": fitted(seen), "passed": let_through(seen, WEIGHTS), "obey": obeyed}
    print(json.dumps(line))


if __name__ == "__main__":
    asyncio.run(main())
