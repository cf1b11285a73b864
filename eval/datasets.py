"""A judged set on disk: a corpus, questions, and which documents answer which question.

    corpus.jsonl      one document a line: `_id`, `title`, `text`, and optionally `metadata`
    queries*.jsonl    one question a line: `_id`, `text`
    qrels.tsv         a header, then `query-id <tab> corpus-id <tab> score`; a score above 0 means that it answers

This is the form of BEIR (Thakur et al. 2021, arXiv 2104.08663).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tenants.errors import InvalidRequest

_SAMPLE_SEED = 20_260_101
_HEADER = ("query-id", "query_id")
Row = TypeVar("Row", bound=BaseModel)


class CorpusRow(BaseModel):
    """One document of a corpus."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    id: str = Field(alias="_id", min_length=1)
    title: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None


class Question(BaseModel):
    """One question."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    id: str = Field(alias="_id", min_length=1)
    text: str = Field(min_length=1)


@dataclass(frozen=True)
class Digests:
    """SHA-256 of each file, in hexadecimal: two reports can be compared when the judgements are the same."""

    corpus: str
    queries: str
    qrels: str


@dataclass(frozen=True)
class JudgedSet:
    """A set, read and checked.

    `questions` are those that have at least one document with a positive score, in the order of the file; `grades` maps
    question id -> document id -> score.
    """

    name: str
    queries_file: str
    corpus: tuple[CorpusRow, ...]
    questions: tuple[Question, ...]
    grades: Mapping[str, Mapping[str, int]]
    unjudged: int
    """Questions left out because nothing is judged to answer them."""
    missing: int
    """Documents that are judged to answer a question and are not in the corpus; they count as not found."""
    digests: Digests

    def sample(self, limit: int | None) -> JudgedSet:
        """Return the set with at most `limit` of its questions, drawn with a fixed seed, in the order of the file."""
        if limit is None or limit >= len(self.questions):
            return self
        places = random.Random(_SAMPLE_SEED).sample(range(len(self.questions)), limit)  # noqa: S311  # not a secret
        return replace(self, questions=tuple(self.questions[place] for place in sorted(places)))


def load_set(folder: Path, *, queries: Path | None = None, qrels: Path | None = None) -> JudgedSet:
    """Read a set; `queries` and `qrels` name other files, looked for in the folder first.

    Raises:
        InvalidRequest: (`invalid_set`) a file is missing, or says which line of it is wrong.
    """
    questions_path = _inside(folder, queries) if queries else _only_queries(folder)
    corpus_path, qrels_path = folder / "corpus.jsonl", _inside(folder, qrels or Path("qrels.tsv"))
    corpus = tuple(_rows(corpus_path, CorpusRow))
    questions = tuple(_rows(questions_path, Question))
    grades = _grades(qrels_path)
    known = _unique(corpus, corpus_path)
    _unique(questions, questions_path)
    judged = tuple(question for question in questions if any(g > 0 for g in grades.get(question.id, {}).values()))
    if not judged:
        raise _invalid(qrels_path, "judges no document to answer a question of this file of questions")
    wanted = {document for q in judged for document, grade in grades[q.id].items() if grade > 0}
    return JudgedSet(
        name=folder.resolve().name,
        queries_file=questions_path.name,
        corpus=corpus,
        questions=judged,
        grades={question.id: grades[question.id] for question in judged},
        unjudged=len(questions) - len(judged),
        missing=len(wanted - known),
        digests=Digests(*(_digest(path) for path in (corpus_path, questions_path, qrels_path))),
    )


def _inside(folder: Path, name: Path) -> Path:
    within = folder / name
    return within if within.exists() else name


def _only_queries(folder: Path) -> Path:
    plain = folder / "queries.jsonl"
    found = [plain] if plain.exists() else sorted(folder.glob("queries*.jsonl"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise _invalid(folder, f"has several files of questions ({names}): choose one with --queries")
    raise _invalid(folder, "has no queries.jsonl")


def _rows(path: Path, model: type[Row]) -> Iterator[Row]:
    for number, line in _lines(path):
        try:
            yield model.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise _invalid(path, f"line {number}: {place} {first['msg']}".replace("  ", " ")) from error


def _grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        parts = [part.strip() for part in line.split("\t")]
        if number == 1 and parts[0].lower() in _HEADER:
            continue
        try:
            question, document, score = parts
            grades.setdefault(question, {})[document] = int(score)
        except ValueError as error:
            raise _invalid(path, f"line {number}: is not `query-id <tab> corpus-id <tab> whole number`") from error
    return grades


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError as error:
        raise _invalid(path, "is missing") from error
    except UnicodeDecodeError as error:
        raise _invalid(path, "is not UTF-8") from error


def _unique(rows: tuple[CorpusRow, ...] | tuple[Question, ...], path: Path) -> set[str]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise _invalid(path, f"has the _id {row.id!r} twice")
        seen.add(row.id)
    return seen


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _invalid(path: Path, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {problem}.", code="invalid_set")
