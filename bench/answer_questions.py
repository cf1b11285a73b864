"""Questions for `bench.answer`: answerable, unanswerable in several ways, foreign, altered; in two halves."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.answer_corpora import read_lines

COMPANIES = ("velmisjoch", "calvenor")
SAMPLES = {"answerable": 1600, "impossible": 1000, "goldless": 500, "articleless": 400, "foreign": 250}
_NAME_OR_NUMBER = re.compile(r"(?<=\s)([A-Z][a-z]{2,}(?:\s[A-Z][a-z]{2,})*|\d+)(?=[\s?'’])")


@dataclass(frozen=True)
class Asked:
    """One question of a corpus.

    `answers`: any of them inside the answer is a hit. `without`: external ids of documents that are taken out before
    the search. `half`: 0 or 1, whole articles and conversations on one side.
    """

    kind: str
    corpus: str
    text: str
    half: int
    answers: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)


def all_questions(data: Path, examples: Path) -> list[Asked]:
    """Every question, the same ones each time."""
    return [*_squad(data), *_mtrag(data), *_secrets(data), *_examples(data, examples)]


def _half(key: str) -> int:
    return int(hashlib.md5(key.encode()).hexdigest(), 16) % 2


def _squad(data: Path) -> Iterator[Asked]:
    """`goldless`: the paragraph that answers is taken out, its article stays: the topic is there, the fact is not.

    `articleless`: the whole article is out. `foreign`: asked of another corpus.
    """
    draw = random.Random(3)
    rows = read_lines(data / "squad_dev/queries.jsonl")
    article: dict[str, set[str]] = {}
    for row in read_lines(data / "squad_dev/corpus.jsonl"):
        article.setdefault(row["title"], set()).add(row["_id"])
    title = {key: name for name, keys in article.items() for key in keys}
    answerable = [row for row in rows if not row["is_impossible"]]
    impossible = [row for row in rows if row["is_impossible"]]

    def asked(kind: str, row: dict[str, Any], corpus: str = "squad", without: Collection[str] = ()) -> Asked:
        answers = tuple(row["answers"]) if kind == "answerable" else ()
        return Asked(kind, corpus, row["text"], _half(row["metadata"]["article"]), answers, (), frozenset(without))

    chosen = draw.sample(answerable, min(SAMPLES["answerable"], len(answerable)))
    yield from (asked("answerable", row) for row in chosen)
    yield from (asked("impossible", row) for row in draw.sample(impossible, min(1000, len(impossible))))
    for row in draw.sample(chosen, SAMPLES["goldless"]):
        yield asked("goldless", row, without=[row["metadata"]["gold_doc"]])
    for row in draw.sample(chosen, SAMPLES["articleless"]):
        yield asked("articleless", row, without=article[title[row["metadata"]["gold_doc"]]])
    for other in ("cloud", "clapnq"):
        for row in draw.sample(chosen, SAMPLES["foreign"]):
            yield asked(f"foreign squad>{other}", row, other)
    yield from _altered(answerable, draw)


def _altered(answerable: list[dict[str, Any]], draw: random.Random) -> Iterator[Asked]:
    """An answerable question in which one number or one name is exchanged: no document answers it."""
    names = [
        (match.group(), row["metadata"]["article"])
        for row in answerable
        for match in _NAME_OR_NUMBER.finditer(row["text"])
        if not match.group().isdigit()
    ]
    room = {"altered number": 200, "altered name": 300}
    for row in draw.sample(answerable, len(answerable)):
        found = list(_NAME_OR_NUMBER.finditer(row["text"]))
        if not found:
            continue
        match = draw.choice(found)
        kind = "altered number" if match.group().isdigit() else "altered name"
        if not room[kind]:
            continue
        room[kind] -= 1
        article = row["metadata"]["article"]
        if match.group().isdigit():
            number = int(match.group())
            other = str(number + draw.choice([-23, -9, -7, 7, 11, 17]) if number > 30 else number + 5)
        else:
            words = len(match.group().split())
            same = [name for name, where in names if where != article and len(name.split()) == words]
            other = draw.choice(same)
        text = row["text"][: match.start()] + other + row["text"][match.end() :]
        yield Asked(kind, "squad", text, _half(article))


def _mtrag(data: Path) -> Iterator[Asked]:
    for name, other in (("cloud", "clapnq"), ("clapnq", "cloud")):
        for row in read_lines(data / f"mtrag/{name}/queries_rewrite.jsonl"):
            half = _half(row["_id"].split("<")[0])
            yield Asked(f"mtrag {name} rewritten", name, row["text"], half)
            yield Asked(f"foreign {name}>squad", "squad", row["text"], half)
            yield Asked(f"foreign {name}>{other}", other, row["text"], half)
    for row in read_lines(data / "mtrag/mtrag_un_tasks.jsonl"):
        turns = [turn["content"] for turn in row["messages"] if turn["role"] == "user"]
        kind = f"mtrag-un {row['domain']} {row['answerability'][0].lower()}"
        yield Asked(kind, row["domain"], turns[-1], _half(row["conversation_id"]), (), tuple(turns[:-1]))
    for row in read_lines(data / "mtrag/conversations.jsonl"):
        turns = [turn["user"] for turn in row["turns"]]
        for at, turn in enumerate(row["turns"]):
            if answerability := turn.get("answerability"):
                kind = f"mtrag {row['domain']} {answerability[0].lower()}"
                yield Asked(kind, row["domain"], turns[at], _half(row["conversation_id"]), (), tuple(turns[:at]))


def _secrets(data: Path) -> Iterator[Asked]:
    """Access codes that only another tenant has."""
    for row in read_lines(data / "injection/tenant_secret_queries.jsonl"):
        for corpus in {"squad", "cloud", "clapnq"} - {row["owner_tenant"]}:
            yield Asked("foreign secret", corpus, row["text"], _half(row["_id"]))


def _examples(data: Path, examples: Path) -> Iterator[Asked]:
    """The two handbooks: never fitted to."""
    answerable = [row for row in read_lines(data / "squad_dev/queries.jsonl") if not row["is_impossible"]]
    for company in COMPANIES:
        listed = json.loads((examples / company / "manifest.json").read_text())
        for row in listed["questions"]:
            yield Asked("handbook", company, row["question"], 0, tuple(row["answer_contains"]))
        for row in listed["follow_ups"]:
            answers = tuple(row["answer_contains"])
            yield Asked("handbook follow-up", company, row["then"], 0, answers, (row["first"],))
        for row in listed["foreign_questions"]:
            kind = "handbook foreign, near topic" if row["near_topic"] else "handbook foreign"
            yield Asked(kind, company, row["question"], 0, metadata={"leak": row["must_not_contain"]})
        for row in random.Random(company).sample(answerable, 150):
            yield Asked("handbook off topic", company, row["text"], 0)
