"""What clients did and saw, as they know it themselves: changes of documents with their outcome, and reads.

A document is a register under its `external_id`; its values are versions. Each version's text carries a word of its
own (`zq` and ten letters) in every paragraph, so any text that is read says which version it came from.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Literal

Kind = Literal["put", "delete"]
Outcome = Literal["open", "acknowledged", "refused", "unknown"]
Name = tuple[str, str]
"""A document: the tenant's slug and the `external_id`."""

WORD = re.compile(r"\bzq[a-z]{10}\b")
_PARAGRAPH = re.compile(r"\b(zq[a-z]{10}) paragraph (\d+) of (\d+)\b")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SUBJECTS = re.findall(
    r"\w+",
    "harbour ledger orchard glacier violin turbine parliament bakery comet saddle vaccine lantern monsoon "
    "quarry ballet satellite beehive cathedral tractor pension submarine compost embroidery volcano auction "
    "falcon plumbing sonata warehouse eclipse ferry dentist vineyard molecule passport reservoir chess "
    "avalanche typewriter customs ",
)


def new_word(random: Random) -> str:
    """Return a word that no other version has."""
    return "zq" + "".join(random.choice(_LETTERS) for _ in range(10))


def question_of(word: str) -> str:
    """Return what a version is about, for both engines: its word, and a phrase that follows from it."""
    random = Random(word)
    return f"{word} {' '.join(random.sample(_SUBJECTS, 4))} and {' '.join(random.sample(_SUBJECTS, 4))}"


def text_of(word: str, parts: int) -> str:
    """Return a text of so many paragraphs, each with the version's word, its number, and what the version is about."""
    about = question_of(word).removeprefix(word)
    return "\n\n".join(f"{word} paragraph {n} of {parts}: the notes on{about}." for n in range(1, parts + 1))


def paragraphs(text: str) -> list[tuple[str, int, int]]:
    """Return the paragraphs that a text holds: word, number, of how many."""
    return [(word, int(number), int(total)) for word, number, total in _PARAGRAPH.findall(text)]


@dataclass
class Change:
    """One write to a document; `step` is its place among the writes to it, which one client makes in turn."""

    tenant: str
    name: str
    step: int
    kind: Kind
    word: str = ""
    parts: int = 0
    began: float = 0.0
    ended: float = inf
    outcome: Outcome = "open"
    answer: str = ""
    """Status and code of the last answer, or the error of the connection."""
    document_id: str = ""
    version: int = 0
    job_id: str = ""
    searchable: float = inf
    """When its job was first seen done."""

    def end(self, outcome: Outcome, answer: str) -> None:
        """Note what became of it, now."""
        self.outcome, self.answer, self.ended = outcome, answer, time.monotonic()


@dataclass(frozen=True)
class Sight:
    """One read and what it showed."""

    tenant: str
    kind: Literal["search", "chat", "list", "content", "chunks"]
    asked: str
    """The word of a search or chat, the document id of the others."""
    began: float
    ended: float
    status: int
    words: tuple[str, ...] = ()
    """The versions that the texts shown come from, one entry a text."""
    keys: tuple[str, ...] = ()
    """Chunk ids of a search, document ids of a list."""
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rest:
    """What is there of one document when nothing is under way."""

    listed: tuple[str, ...]
    """Ids of the documents that the list shows under its name."""
    found: Mapping[str, tuple[str, ...]]
    """By word of each of its versions: the chunk ids that a search for the word shows with it."""
    positions: tuple[int, ...] = ()
    """Of the listed document's chunks."""
    paragraphs: tuple[tuple[str, int, int], ...] = ()
    """That the listed document's chunks hold."""


@dataclass
class History:
    """Everything that was done and seen."""

    changes: dict[Name, list[Change]] = field(default_factory=dict)
    sights: list[Sight] = field(default_factory=list)
    by_word: dict[str, Change] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    """What no answer may ever be, noted by the client that got it."""
    answers: Counter[str] = field(default_factory=Counter)

    def put(self, tenant: str, name: str, word: str, parts: int) -> Change:
        """Begin an upload or replacement."""
        change = self._begin(tenant, name, "put")
        change.word, change.parts = word, parts
        self.by_word[word] = change
        return change

    def delete(self, tenant: str, name: str, document_id: str) -> Change:
        """Begin a deletion."""
        change = self._begin(tenant, name, "delete")
        change.document_id = document_id
        return change

    def story(self, name: Name) -> str:
        """Return the history of one document, line by line."""
        lines = [
            f"  step {c.step} {c.kind} {c.word or c.document_id} parts {c.parts}: {c.outcome} ({c.answer})"
            f" {c.began:.3f}..{c.ended:.3f} document {c.document_id} version {c.version} job {c.job_id}"
            f" done {c.searchable:.3f}"
            for c in self.changes.get(name, ())
        ]
        words = {change.word for change in self.changes.get(name, ()) if change.word}
        seen = [s for s in self.sights if words.intersection(s.words)]
        lines += [f"  seen by {s.kind} {s.began:.3f}..{s.ended:.3f}: {sorted(words & set(s.words))}" for s in seen[-8:]]
        return "\n".join([f"{name[0]}/{name[1]}:", *lines])

    def _begin(self, tenant: str, name: str, kind: Kind) -> Change:
        earlier = self.changes.setdefault((tenant, name), [])
        change = Change(tenant, name, len(earlier), kind, began=time.monotonic())
        earlier.append(change)
        return change


def standing(changes: Sequence[Change]) -> list[Change]:
    """Return the changes any of which may be what stands in the end: the last acknowledged one, and those after it
    whose outcome is not known. A document of which none is acknowledged may also be absent."""
    last = max((change.step for change in changes if change.outcome == "acknowledged"), default=-1)
    return [
        change
        for change in changes
        if change.step == last or (change.step > last and change.outcome in ("unknown", "open"))
    ]
