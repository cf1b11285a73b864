"""Judges a history: what may never have been seen while faults went on, and what must be there when all is quiet."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf

from tests.faults.history import Change, History, Name, Rest, Sight, standing

WHOLE_HITS = 20
"""A version with at most so many chunks must show every one of them in a search for its word."""


@dataclass(frozen=True)
class Violation:
    """Something that must not be, and the document it concerns."""

    name: Name
    sentence: str


def violations(history: History) -> list[Violation]:
    """Return what was seen and must not have been, whatever failed at the time."""
    found = [Violation(("", ""), oddity) for oddity in history.oddities]
    found += _never_shown(history)
    found += _never_after_delete(history)
    found += _never_backwards(history)
    found += _found_once_done(history)
    found += _never_vanished(history)
    return found


def violations_at_rest(history: History, rests: Mapping[Name, Rest]) -> list[Violation]:
    """Return what differs from the model when nothing is under way."""
    return [Violation(name, sentence) for name, rest in rests.items() for sentence in _at_rest(history, name, rest)]


def _never_shown(history: History) -> Iterator[Violation]:
    """Another tenant's text, a text that nobody had uploaded yet, a chunk twice, two versions of one document."""
    for sight in history.sights:
        shown: dict[Name, int] = {}
        for word in sight.words:
            change = history.by_word.get(word)
            name = (change.tenant, change.name) if change else (sight.tenant, "")
            if change is None or change.began > sight.ended:
                yield Violation(name, f"a {sight.kind} showed {word}, which nobody had uploaded")
            elif change.tenant != sight.tenant:
                yield Violation(name, f"a {sight.kind} of {sight.tenant} showed {word} of {change.tenant}")
            elif shown.setdefault(name, change.step) != change.step:
                yield Violation(name, f"one {sight.kind} showed steps {shown[name]} and {change.step} of a document")
        if len(set(sight.keys)) < len(sight.keys):
            yield Violation((sight.tenant, ""), f"a {sight.kind} for {sight.asked} showed the same key twice")


def _never_after_delete(history: History) -> Iterator[Violation]:
    deleted = {name: _deletions(changes) for name, changes in history.changes.items()}
    ids = {
        change.document_id: change
        for changes in history.changes.values()
        for change in changes
        if change.kind == "delete" and change.outcome == "acknowledged"
    }
    for sight in history.sights:
        for word in sight.words:
            change = history.by_word.get(word)
            if change is None:
                continue
            since = min((end for step, end in deleted[change.tenant, change.name] if step > change.step), default=inf)
            if sight.began > since:
                late = sight.began - since
                sentence = f"a {sight.kind} begun {late:.3f} s after the acknowledged delete showed {word}"
                yield Violation((change.tenant, change.name), sentence)
        named = (*sight.keys, sight.asked) if sight.status == 200 else ()
        for gone in (ids[key] for key in named if sight.kind != "search" and key in ids):
            if sight.began > gone.ended:
                yield Violation((gone.tenant, gone.name), f"a {sight.kind} showed the deleted document")


def _never_backwards(history: History) -> Iterator[Violation]:
    """Once a version was seen, a read that begins later shows no earlier one."""
    seen: dict[Name, list[tuple[Sight, Change]]] = {}
    for sight in history.sights:
        if sight.kind in ("search", "chat", "chunks"):
            for change in {id(c): c for w in sight.words if (c := history.by_word.get(w))}.values():
                seen.setdefault((change.tenant, change.name), []).append((sight, change))
    for name, pairs in seen.items():
        pairs.sort(key=lambda pair: pair[0].ended)
        ends = [sight.ended for sight, _ in pairs]
        newest = list(accumulate((change.step for _, change in pairs), max))
        for sight, change in pairs:
            before = bisect_left(ends, sight.began)
            if before and newest[before - 1] > change.step:
                sentence = f"a {sight.kind} showed step {change.step} after step {newest[before - 1]} had been shown"
                yield Violation(name, sentence)


def _found_once_done(history: History) -> Iterator[Violation]:
    """A search for a version's word that begins after its job was seen done finds it, while nothing replaces it."""
    for sight in history.sights:
        change = history.by_word.get(sight.asked)
        if sight.kind != "search" or sight.status != 200 or change is None or sight.began <= change.searchable:
            continue
        later = history.changes[change.tenant, change.name][change.step + 1 :]
        if sight.asked not in sight.words and all(c.began > sight.ended or c.outcome == "refused" for c in later):
            name = (change.tenant, change.name)
            yield Violation(name, f"a search after the job was done did not find {change.word}")


def _never_vanished(history: History) -> Iterator[Violation]:
    """A delete of a document that is there is not answered 404."""
    for name, changes in history.changes.items():
        for before, change in pairwise(changes):
            there = before.kind == "put" and before.outcome == "acknowledged"
            if there and change.kind == "delete" and change.outcome == "refused" and change.answer.startswith("404"):
                yield Violation(name, f"the document of step {before.step} was gone before it was deleted")


def _at_rest(history: History, name: Name, rest: Rest) -> Iterator[str]:
    changes = history.changes[name]
    may_stand = standing(changes)
    acknowledged = [change for change in may_stand if change.outcome == "acknowledged"]
    shown = {word: chunks for word, chunks in rest.found.items() if chunks}
    if len(rest.listed) > 1:
        yield f"the list shows it {len(rest.listed)} times"
    if len(shown) > 1:
        yield f"several versions are found: {sorted(shown)}"
    allowed = {change.word for change in may_stand if change.kind == "put"}
    for word in sorted(shown.keys() - allowed):
        yield f"step {history.by_word[word].step} ({word}) is found, but does not stand"
    must = [change for change in acknowledged if change.kind == "put"]
    if must and len(may_stand) == 1 and not shown:
        yield f"the acknowledged step {must[0].step} ({must[0].word}) is not found"
    absent_allowed = not acknowledged or any(change.kind == "delete" for change in may_stand)
    if not rest.listed and not absent_allowed:
        yield "the list lacks it"
    if rest.listed and not allowed:
        yield "the list shows it although it is deleted"
    for word, chunks in shown.items():
        yield from _whole(history.by_word[word], chunks, rest)


def _whole(change: Change, chunks: tuple[str, ...], rest: Rest) -> Iterator[str]:
    if not rest.listed:
        yield f"{change.word} is found, but the list lacks its document"
        return
    if len(set(chunks)) < len(chunks):
        yield f"a chunk of {change.word} is found twice"
    if rest.positions != tuple(range(len(rest.positions))):
        yield f"its chunks lie at {rest.positions}"
    expected = sorted((change.word, number, change.parts) for number in range(1, change.parts + 1))
    if sorted(rest.paragraphs) != expected:
        yield f"{change.word} has {change.parts} paragraphs, its chunks hold {sorted(rest.paragraphs)}"
    if len(rest.positions) <= WHOLE_HITS and len(chunks) != len(rest.positions):
        yield f"{change.word} has {len(rest.positions)} chunks, a search for it shows {len(chunks)}"


def _deletions(changes: list[Change]) -> list[tuple[int, float]]:
    return [(c.step, c.ended) for c in changes if c.kind == "delete" and c.outcome == "acknowledged"]
